"""The paper's figures, from the lines of their tables and from records. Imports no TensorFlow."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dml_tf import experiments, tables
from dml_tf.data import REID_DATASETS
from dml_tf.experiments import Cell
from dml_tf.scales import Scale

# Okabe and Ito's colours, which the colour-blind tell apart; the markers serve grey prints.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
_WIDTH, _PANEL_HEIGHT, _DPI = 5.2, 2.9, 150  # inches; narrow, so that a phone can show the text
# Item -> which of the history's measures it shows over training.
CURVES = {"figure2a": "accuracy", "figure2b": "supervised_loss"}
_BARS = "bars are one standard deviation over seeds"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How a figure is drawn, and how it is read.

    Attributes:
        draw: Takes the scale, the results folder and the lines that were measured, indexed by row
            and column.
        reading: What is seen, for the caption.
    """

    draw: Callable[[Scale, Path, pd.DataFrame], Figure]
    reading: str


def write(scale: Scale, folder: Path, items: Iterable[str] = tuple(experiments.ITEMS)) -> list:
    """Writes `<folder>/<item>.png` of each figure that has records, and its curves as CSV.

    A file of which the records are gone is deleted.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        items: Names of tables and figures; those that are not drawn are passed over.

    Returns:
        The files written.
    """
    written = []
    for item in items:
        picture, table = folder / f"{item}.png", folder / f"{item}_curves.csv"
        figure = draw(scale, folder, item)
        if figure is None:
            picture.unlink(missing_ok=True)
            table.unlink(missing_ok=True)
            continue
        # Without matplotlib's version in it, the same records give the same file.
        figure.savefig(picture, metadata={"Software": None})
        written.append(picture)
        if item in CURVES:
            curves(scale, folder, item).to_csv(table, index=False, float_format="%.4g")
            written.append(table)
    return written


def draw(scale: Scale, folder: Path, item: str) -> Figure | None:
    """One figure.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: Name of the figure.

    Returns:
        The figure; None if the item is not drawn, or nothing of it has been measured.
    """
    lines = measured(scale, folder, item)
    if item not in DRAWINGS or lines.empty:
        return None
    figure = DRAWINGS[item].draw(scale, folder, lines)
    there = [tables.found(cell, scale, folder) for cell in experiments.cells([item])]
    names = ", ".join(sorted({record["data"] for seeds in there for record in seeds.values()}))
    seeds = "-".join(map(str, sorted({lines.seeds.min(), lines.seeds.max()})))
    title = f"{names}; scale {scale.name}; seeds: {seeds}"
    figure.axes[0].set_title(title, loc="left", fontsize=8, color="#555555")
    return figure


def measured(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """The cells of an item that have been measured.

    Args:
        scale: Which runs fill them.
        folder: Results folder with `runs/`.
        item: Name of a table or figure.

    Returns:
        Those lines of `tables.table`, without the computed ones, indexed by `row` and `column`.
    """
    lines = tables.table(scale, folder, item, experiments.cells([item]))
    return lines[lines.seeds > 0].set_index(["row", "column"])


def describe(scale: Scale, folder: Path, item: str) -> str:
    """What a figure shows, in words and numbers, for those who do not see it.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: Name of the figure.

    Returns:
        Each row with its measured cells.
    """
    rows = measured(scale, folder, item).measured.groupby(level="row", sort=False)
    return "; ".join(
        f"{row}: " + ", ".join(f"{column} {value:.1f}" for (_, column), value in values.items())
        for row, values in rows
    )


def curves(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """What an item shows over training.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: One of `CURVES`.

    Returns:
        For each cell and epoch: `row`, `column`, `images` (training or validation), `step` (the
        epoch's last), `measured` (mean over seeds; percent, or nats), `std` and `seeds`.
    """
    metric, parts = CURVES[item], []
    for cell in experiments.cells([item]):
        there = list(tables.found(cell, scale, folder).values())
        if cell.of == "std" or not there:
            continue
        images, values = _history(there, cell, metric)
        epochs = values.shape[1]
        curve = {
            "row": cell.row,
            "column": cell.column,
            "images": images,
            "step": np.arange(1, epochs + 1) * there[0]["steps"] // epochs,
            "measured": values.mean(axis=0),
            "std": values.std(axis=0, ddof=1) if len(there) > 1 else np.nan,
            "seeds": len(there),
        }
        parts.append(pd.DataFrame(curve))
    return pd.concat(parts)


def _history(there: Sequence[dict], cell: Cell, metric: str) -> tuple[str, np.ndarray]:
    """Which images were looked at, and the cell's measure of them, `(seeds, epochs)`."""
    values = []
    for record in there:
        peers = list(record["test"]["peers"])
        chosen = peers if cell.of == "mean" else [peers[cell.of]]
        history = record["history"]
        held_out = f"val_{peers[0]}_{metric}" in history
        values.append(
            np.mean([history["val_" * held_out + f"{peer}_{metric}"] for peer in chosen], axis=0)
        )
    factor = 100 if metric == "accuracy" else 1
    return "validation" if held_out else "training", factor * np.array(values)


def _figure2a(scale: Scale, folder: Path, lines: pd.DataFrame) -> Figure:
    del lines
    figure, (axis,) = _panels(1)
    seen = curves(scale, folder, "figure2a")
    networks = list(seen.row.unique())
    for (network, method), curve in seen.groupby(["row", "column"], sort=False):
        dashes = "-" if method == "DML" else "--"
        _curve(axis, curve, f"{network}, {method}", networks.index(network), dashes)
    axis.set(xlabel="training steps", ylabel=f"accuracy, %,\n{seen.images.iloc[0]} images")
    _legend(figure, axis)
    return figure


def _figure2b(scale: Scale, folder: Path, lines: pd.DataFrame) -> Figure:
    figure, (above, below) = _panels(2)
    seen = curves(scale, folder, "figure2b")
    columns = ["Net 1", "Net 2", "Average"]
    convergence = seen[seen.column == "Average"].groupby("row", sort=False)
    for k, (update, curve) in enumerate(convergence):
        _curve(above, curve, update, k)
        _points(below, range(len(columns)), lines.loc[update].loc[columns], update, k, "")
    above.set(xlabel="training steps", ylabel=f"cross-entropy,\n{seen.images.iloc[0]} images")
    below.set(ylabel=_measure(lines), xticks=range(len(columns)), xticklabels=columns)
    _legend(figure, above)
    return figure


def _figure3a(scale: Scale, folder: Path, lines: pd.DataFrame) -> Figure:
    del scale, folder
    figure, (above, below) = _panels(2)
    _by_size(above, lines, "average of ")
    _by_size(below, lines, "spread of ")
    above.set_ylabel(f"average {_measure(lines)}")
    below.set(ylabel=f"spread in a cohort,\n{_measure(lines)}")
    _legend(figure, above)
    return figure


def _figure3b(scale: Scale, folder: Path, lines: pd.DataFrame) -> Figure:
    del scale, folder
    figure, (axis,) = _panels(1)
    _by_size(axis, lines, "ensemble of ")
    axis.set_ylabel(f"ensemble's {_measure(lines)}")
    _legend(figure, axis)
    return figure


def _figure6(scale: Scale, folder: Path, lines: pd.DataFrame) -> Figure:
    del scale, folder
    figure, (axis,) = _panels(1)
    parts = list(lines.index.unique("row"))
    for k, strategy in enumerate(lines.index.unique("column")):
        series = lines.xs(strategy, level="column")
        _points(axis, [parts.index(part) for part in series.index], series, strategy, k)
    reid = lines.data.isin(REID_DATASETS).any()
    labelled = "identities with labels, of the paper's 751" if reid else "images with labels"
    axis.set(xticks=range(len(parts)), xticklabels=parts, xlabel=labelled, ylabel=_measure(lines))
    _legend(figure, axis)
    return figure


# Item -> its figure. One that shows more than numbers takes it from `tables.found`.
DRAWINGS: Mapping[str, Drawing] = {
    "figure2a": Drawing(_figure2a, "Bands are one standard deviation over seeds."),
    "figure2b": Drawing(
        _figure2b, f"Above: convergence of the average network. Below: on test images; {_BARS}."
    ),
    "figure3a": Drawing(
        _figure3a,
        "Above: a cohort's mean over its networks. Below: their standard deviation in a cohort; "
        f"{_BARS}.",
    ),
    "figure3b": Drawing(_figure3b, f"Means over seeds; {_BARS}."),
    "figure6a": Drawing(_figure6, f"Means over seeds, by the part of images with labels; {_BARS}."),
    "figure6b": Drawing(
        _figure6, f"Means over seeds, by the number of identities with labels; {_BARS}."
    ),
}


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    """A figure with panels one above the other."""
    figure = Figure((_WIDTH, _PANEL_HEIGHT * count + 0.4), dpi=_DPI, layout="constrained")
    axes = figure.subplots(count, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(figure: Figure, axis: Axes):
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9)


def _by_size(axis: Axes, lines: pd.DataFrame, title: str):
    """A series for each method, over the cohort's size, which columns end in."""
    chosen = lines[lines.index.get_level_values("column").str.startswith(title)]
    methods = list(lines.index.unique("row"))  # a colour each, the same in every panel
    for method in chosen.index.unique("row"):
        series, k = chosen.xs(method, level="row"), methods.index(method)
        _points(axis, [int(c.removeprefix(title)) for c in series.index], series, method, k)
    axis.set(xlabel="networks in the cohort", xticks=experiments.COHORT_SIZES, xlim=(0.7, 5.4))


def _points(
    axis: Axes, x: Sequence[int], series: pd.DataFrame, label: str, k: int, dashes: str = "-"
):
    """Means and their spread, of one seed none; series stand a little beside each other."""
    colour, marker = STYLES[k]
    axis.errorbar(
        np.array(x) + 0.06 * (k - 1), series.measured, yerr=series["std"].fillna(0), label=label,
        color=colour, marker=marker, markersize=5, linestyle=dashes, linewidth=1.4, capsize=2.5,
    )  # fmt: skip


def _curve(axis: Axes, curve: pd.DataFrame, label: str, k: int, dashes: str = "-"):
    colour = STYLES[k][0]
    axis.plot(curve.step, curve.measured, dashes, label=label, color=colour, linewidth=1.4)
    low, high = curve.measured - curve["std"], curve.measured + curve["std"]
    axis.fill_between(curve.step, low, high, color=colour, alpha=0.18, linewidth=0)


def _measure(lines: pd.DataFrame) -> str:
    return "mAP, %" if lines.data.isin(REID_DATASETS).any() else "accuracy, %"
