"""How each of the paper's figures is drawn, from tables of numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dml_tf.data import REID_DATASETS
from dml_tf.paper import marks
from dml_tf.paper.items.figures import COHORT_SIZES
from dml_tf.paper.scales import MARKET_IDENTITIES

_BARS = "bars are one standard deviation over seeds"
_BEYOND = "A number at an arrow is beyond the axis."


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a figure is drawn, and how it is read.

    Attributes:
        draw: Takes the measured lines, indexed by row and column, and the series.
        reading: What is seen, for the caption.
        series: What the figure shows beside its cells: `curves`, `points` or nothing.
    """

    draw: Callable[[pd.DataFrame, pd.DataFrame | None], Figure]
    reading: str
    series: str = ""


def _figure2a(_: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    figure, (axis,) = marks.panels(1)
    networks = list(curves.row.unique())
    for (network, method), curve in curves.groupby(["row", "column"], sort=False):
        dashes = "-" if method == "DML" else "--"
        marks.curve(axis, curve, f"{network}, {method}", networks.index(network), dashes)
    axis.set(xlabel="training steps", ylabel=f"accuracy, %,\n{curves.images.iloc[0]} images")
    marks.legend(figure, axis)
    return figure


def _figure2b(lines: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    figure, (above, below) = marks.panels(2)
    columns = ["Net 1", "Net 2", "Average"]
    convergence = curves[curves.column == "Average"].groupby("row", sort=False)
    for k, (update, curve) in enumerate(convergence):
        marks.curve(above, curve, update, k)
        marks.points(below, range(len(columns)), lines.loc[update].loc[columns], update, k, "")
    above.set(xlabel="training steps", ylabel=f"cross-entropy,\n{curves.images.iloc[0]} images")
    below.set(ylabel=_measure(lines), xticks=range(len(columns)), xticklabels=columns)
    marks.legend(figure, above)
    return figure


def _figure3a(lines: pd.DataFrame, _: None) -> Figure:
    figure, (above, below) = marks.panels(2)
    is_spread = lines.of == "std"
    _by_size(above, lines[~is_spread], _rows(lines))
    _by_size(below, lines[is_spread], _rows(lines))
    above.set_ylabel(f"average {_measure(lines)}")
    below.set(ylabel=f"spread in a cohort,\n{_measure(lines)}")
    marks.legend(figure, above)
    return figure


def _figure3b(lines: pd.DataFrame, _: None) -> Figure:
    figure, (axis,) = marks.panels(1)
    _by_size(axis, lines, _rows(lines))
    axis.set_ylabel(f"ensemble's {_measure(lines)}")
    marks.legend(figure, axis)
    return figure


def _figure4a(lines: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    figure, axes = marks.panels(2)
    units = {"Training cross-entropy": "nats", "Training accuracy": "%"}
    for axis, (column, unit) in zip(axes, units.items(), strict=True):
        seen = curves[curves.column == column]
        for k, (strategy, curve) in enumerate(seen.groupby("row", sort=False)):
            marks.curve(axis, curve, strategy, k)
            beside = curve.step[-1:] * (1.02 + 0.025 * k)
            marks.points(axis, beside, lines.loc[[(strategy, column)]], "", k)
        axis.set(xlabel="training steps", ylabel=f"{column.lower()}, {unit}")
    marks.legend(figure, axes[0])
    return figure


def _figure4b(lines: pd.DataFrame, _: None) -> Figure:
    figure, (axis,) = marks.panels(1)
    _by_number(axis, lines, _rows(lines), apart=0)
    axis.set(xlabel="sigma of the noise on each parameter", ylabel="training cross-entropy, nats")
    marks.legend(figure, axis)
    return figure


def _figure4c(lines: pd.DataFrame, _: None) -> Figure:
    figure, (axis,) = marks.panels(1)
    _by_number(axis, lines, _rows(lines))
    ranks = "class, by rank; 1 is the true one"
    axis.set(xlabel=ranks, ylabel="posterior mass, %", xticks=range(1, 6), yscale="log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))  # labels also within a decade
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    marks.legend(figure, axis)
    return figure


def _figure5(lines: pd.DataFrame, points: pd.DataFrame) -> Figure:
    strategies = points.row.unique()
    figure, axes = marks.panels(len(strategies))
    for axis, strategy in zip(axes, strategies, strict=True):
        shown = points[points.row == strategy]
        colours = matplotlib.colormaps["tab10"](pd.factorize(shown.label)[0])
        for k, network in enumerate(shown.network.unique()):
            chosen = shown.network == network
            marks.cloud(axis, shown.x[chosen], shown.y[chosen], colours[chosen], "", k)
            marks.cloud(axis, [], [], marks.QUIET, network, k)  # for the legend
        same = lines.loc[strategy].iloc[0]
        axis.set_xlabel(f"{strategy}: nearest is the same network's for {same.measured:.1f}%")
        axis.set(xticks=[], yticks=[])
    marks.legend(figure, axes[0])
    return figure


def _figure6(lines: pd.DataFrame, _: None) -> Figure:
    figure, (axis,) = marks.panels(1)
    parts = list(lines.index.unique("row"))
    for k, strategy in enumerate(lines.index.unique("column")):
        series = lines.xs(strategy, level="column")
        marks.points(axis, [parts.index(part) for part in series.index], series, strategy, k)
    reid = lines.data.isin(REID_DATASETS).any()
    identities = f"identities with labels, of the paper's {MARKET_IDENTITIES}"
    labelled = identities if reid else "images with labels"
    axis.set(xticks=range(len(parts)), xticklabels=parts, xlabel=labelled, ylabel=_measure(lines))
    marks.legend(figure, axis)
    return figure


DRAWINGS: Mapping[str, Drawing] = {
    "figure2a": Drawing(_figure2a, "Bands are one standard deviation over seeds.", "curves"),
    "figure2b": Drawing(
        _figure2b,
        f"Above: convergence of the average network. Below: on test images; {_BARS}.",
        "curves",
    ),
    "figure3a": Drawing(
        _figure3a,
        "Above: a cohort's mean over its networks. Below: their standard deviation in a cohort; "
        f"{_BARS}. {_BEYOND}",
    ),
    "figure3b": Drawing(_figure3b, f"Means over seeds; {_BARS}. {_BEYOND}"),
    "figure4a": Drawing(
        _figure4a,
        "Curves: means over an epoch's mini-batches, as they were seen. Points at the right: "
        f"the trained networks, on the images without augmentation. Bands and {_BARS}.",
        "curves",
    ),
    "figure4b": Drawing(_figure4b, f"Means over draws of the noise, and over seeds; {_BARS}."),
    "figure4c": Drawing(_figure4c, f"Means over the training images, and over seeds; {_BARS}."),
    "figure5": Drawing(
        _figure5,
        "Features of test images by two networks, of the first seed. Marker and fill show the "
        "network, colours the class or identity. Below each picture: how many features have a "
        "feature of the same network as their nearest, mean over seeds; about half of them if both "
        "networks' features are alike.",
        "points",
    ),
    "figure6a": Drawing(_figure6, f"Means over seeds, by the part of images with labels; {_BARS}."),
    "figure6b": Drawing(
        _figure6, f"Means over seeds, by the number of identities with labels; {_BARS}."
    ),
}


def _by_size(axis: Axes, lines: pd.DataFrame, rows: Sequence[str]):
    """A series for each method, over the cohort's size; none squeezes the others."""
    _by_number(axis, lines, rows)
    marks.make_room(axis, lines, rows)
    axis.set(xlabel="networks in the cohort", xticks=COHORT_SIZES, xlim=(0.7, 5.4))


def _by_number(axis: Axes, lines: pd.DataFrame, rows: Sequence[str], apart: float = marks.APART):
    """A series for each row, over the cells' `x`; a row's colour is its place in `rows`."""
    for row in lines.index.unique("row"):
        series = lines.xs(row, level="row")
        marks.points(axis, series.x.astype(float), series, row, rows.index(row), apart=apart)


def _rows(lines: pd.DataFrame) -> list[str]:
    return list(lines.index.unique("row"))


def _measure(lines: pd.DataFrame) -> str:
    return "mAP, %" if lines.data.isin(REID_DATASETS).any() else "accuracy, %"
