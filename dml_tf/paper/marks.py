"""What the figures are made of: panels, legends, series with their spread, clouds of points."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; markers serve grey prints.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
PAGE, GRID, QUIET = "#ffffff", "#dddddd", "#555555"
_WIDTH, _PANEL_HEIGHT, _DPI = 5.2, 2.9, 150  # inches; narrow, so that a phone can show the text
APART = 0.06  # between series, in units of the axis
# A series squeezes the others if the axis is so many times as long with it as without it.
_SQUEEZES = 2.0
_ROOM = 0.06  # of an axis, beyond its first and last value


def panels(count: int) -> tuple[Figure, np.ndarray]:
    """A figure with panels one above the other."""
    figure = Figure((_WIDTH, _PANEL_HEIGHT * count + 0.4), dpi=_DPI, layout="constrained")
    axes = figure.subplots(count, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend(figure: Figure, axis: Axes):
    """The names of an axis' series, above the figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9)


def points(
    axis: Axes,
    x: Sequence[float],
    series: pd.DataFrame,
    label: str,
    k: int,
    dashes: str = "-",
    apart: float = APART,
):
    """Means with bars of one standard deviation.

    One seed has no bar, so its marker is hollow. A line of such markers only is faint.
    """
    colour, marker = STYLES[k]
    x, single = _place(x, k, apart), series.seeds.to_numpy() < 2
    axis.errorbar(
        x, series.measured, yerr=series["std"].fillna(0), label=label, color=colour, marker=marker,
        markersize=5, linestyle=dashes, capsize=2.5, **_weight(single.all()),
        markerfacecolor=PAGE if single.all() else colour,
    )  # fmt: skip
    if single.any() and not single.all():
        shown = series.measured.to_numpy()[single]
        hollow = {"markerfacecolor": PAGE, "markersize": 5, "linestyle": "none"}
        axis.plot(x[single], shown, color=colour, marker=marker, **hollow)


def curve(axis: Axes, values: pd.DataFrame, label: str, k: int, dashes: str = "-"):
    """A mean over training, with a band of one standard deviation; one seed's is faint."""
    colour, weight = STYLES[k][0], _weight((values.seeds < 2).all())
    axis.plot(values.step, values.measured, dashes, label=label, color=colour, **weight)
    low, high = values.measured - values["std"], values.measured + values["std"]
    axis.fill_between(values.step, low, high, color=colour, alpha=0.18, linewidth=0)


def cloud(axis: Axes, x: Sequence[float], y: Sequence[float], colours, label: str, k: int):
    """Points whose marker and fill show the series `k`; colours show something else."""
    filled = "none" if k else colours
    axis.scatter(x, y, 16, marker=STYLES[k][1], edgecolors=colours, facecolors=filled, label=label)


def make_room(axis: Axes, lines: pd.DataFrame, rows: Sequence[str], apart: float = APART):
    """Fits an axis to all series but one that squeezes them.

    That one's points beyond the axis are arrows with their numbers. The first series, with which
    the others are compared, always stays.

    Args:
        axis: Where the series of `lines` are drawn, over `x`.
        lines: The measured cells, indexed by row and column.
        rows: The series' names, in the order of their colours.
        apart: As given to `points`.
    """
    if len(rows) < 3:
        return
    spread = lines["std"].fillna(0)
    low, high = lines.measured - spread, lines.measured + spread
    names = lines.index.get_level_values("row")
    lengths = {row: high[names != row].max() - low[names != row].min() for row in rows[1:]}
    squeezing = min(lengths, key=lengths.get)
    length = lengths[squeezing]
    if not 0 < _SQUEEZES * length < high.max() - low.min():
        return
    others = names != squeezing
    bottom, top = low[others].min(), high[others].max()
    series = lines[~others]
    below, above = series[series.measured < bottom], series[series.measured > top]
    axis.set_ylim(
        bottom - (_ROOM if below.empty else 3 * _ROOM) * length,
        top + (_ROOM if above.empty else 3 * _ROOM) * length,
    )
    k = rows.index(squeezing)
    for beyond, edge, arrow, side in ((below, 0.03, "v", 1), (above, 0.97, "^", -1)):
        for x, value in zip(_place(beyond.x, k, apart), beyond.measured, strict=True):
            _arrow(axis, (x, edge), arrow, side, f"{value:.1f}", STYLES[k][0])


def _arrow(axis: Axes, at: tuple[float, float], arrow: str, side: int, text: str, colour: str):
    """A number at an axis' edge; `side` is the way from the edge to the number."""
    edges = axis.get_xaxis_transform()
    axis.plot(*at, arrow, color=colour, markersize=6, transform=edges)
    axis.annotate(
        text, at, (0, 6 * side), xycoords=edges, textcoords="offset points", color=colour,
        ha="center", va="bottom" if side > 0 else "top", fontsize=9,
        bbox={"facecolor": PAGE, "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def _place(x: Sequence[float], k: int, apart: float) -> np.ndarray:
    """Where the series `k` has its points: series are a little apart."""
    return np.array(x, float) + apart * (k - 1)


def _weight(is_single: bool) -> dict[str, float]:
    """How strong a line is: one seed's is less sure."""
    return {"linewidth": 1.0, "alpha": 0.55} if is_single else {"linewidth": 1.4}
