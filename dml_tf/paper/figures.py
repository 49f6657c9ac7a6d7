"""The paper's figures, from the lines of their tables and from records. Imports no TensorFlow."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dml_tf.paper import items as experiments
from dml_tf.paper import tables
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.items import Cell
from dml_tf.paper.scales import Scale

# A cell's metric -> what of it the history has.
_OVER_TRAINING = {
    "accuracy": "accuracy",
    "mAP": "supervised_loss",
    "train.accuracy": "accuracy",
    "train.cross_entropy": "supervised_loss",
}


def write(scale: Scale, folder: Path, items: Iterable[str] = tuple(experiments.ITEMS)) -> list:
    """Writes `<folder>/<item>.png` of each figure that has records, and its `SERIES` as CSV.

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
        files = [folder / f"{item}.png"]
        if item in SERIES:
            files.append(folder / f"{item}_{SERIES[item].__name__}.csv")
        figure = draw(scale, folder, item)
        if figure is None:
            for file in files:
                file.unlink(missing_ok=True)
            continue
        # Without matplotlib's version in it, the same records give the same file.
        figure.savefig(files[0], metadata={"Software": None})
        if item in SERIES:
            series = SERIES[item](scale, folder, item)
            series.to_csv(files[1], index=False, float_format="%.4g")
        written += files
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
    series = SERIES[item](scale, folder, item) if item in SERIES else None
    figure = DRAWINGS[item].draw(lines, series)
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
        f"{row}: " + ", ".join(f"{column} {value:.3g}" for (_, column), value in values.items())
        for row, values in rows
    )


def curves(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """What an item shows over training.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: Name of a figure that has records.

    Returns:
        For each cell and epoch: `row`, `column`, `images` (training, validation or test), `step`
        (the epoch's last), `measured` (mean over seeds; percent, or nats), `std` and `seeds`.
    """
    parts = []
    for cell in experiments.cells([item]):
        there = list(tables.found(cell, scale, folder).values())
        if cell.of == "std" or not there:
            continue
        images, values = _history(there, cell)
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


def _history(there: Sequence[dict], cell: Cell) -> tuple[str, np.ndarray]:
    """Which images were looked at, and the cell's measure of them, `(seeds, epochs)`.

    Images that were held out are preferred, but for a cell that is about the training images.
    """
    metric, values = _OVER_TRAINING[cell.metric], []
    for record in there:
        peers = list(record["test"]["peers"])
        chosen = peers if cell.of == "mean" else [peers[cell.of]]
        history = record["history"]
        held_out = not cell.metric.startswith("train.") and f"val_{peers[0]}_{metric}" in history
        values.append(
            np.mean([history["val_" * held_out + f"{peer}_{metric}"] for peer in chosen], axis=0)
        )
    seen = "test" if there[0]["config"].get("watch_test") else "validation"
    factor = 100 if metric == "accuracy" else 1
    return seen if held_out else "training", factor * np.array(values)


def points(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """Where t-SNE puts the features of two networks, of the first seed that there is.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: Name of a figure that has records, of runs that were analysed.

    Returns:
        For each cell, network and image: `row`, `seed`, `network`, `label` (class or identity),
        `x` and `y`.
    """
    parts = []
    for cell in experiments.cells([item]):
        there = tables.found(cell, scale, folder)
        if not there:
            continue
        seed = min(there)
        shown = there[seed]["analysis"]["tsne"]
        for k, places in enumerate(shown["points"].values()):
            x, y = np.transpose(places)
            part = {
                "row": cell.row,
                "seed": seed,
                "network": f"Net {k + 1}",
                "label": shown["labels"],
                "x": x,
                "y": y,
            }
            parts.append(pd.DataFrame(part))
    return pd.concat(parts)


# Item -> what it shows beside its cells' numbers.
SERIES: Mapping[str, Callable[[Scale, Path, str], pd.DataFrame]] = {
    "figure2a": curves,
    "figure2b": curves,
    "figure4a": curves,
    "figure5": points,
}
