"""The figures: PNG files, and the curves and points in them as CSV files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dml_tf.atomic import write_whole
from dml_tf.paper import marks, over_seeds, tables
from dml_tf.paper.cells import Cell
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale

# A cell's metric -> the metric of its curve in a record's history.
_OVER_TRAINING = {
    "accuracy": "accuracy",
    "mAP": "supervised_loss",
    "train.accuracy": "accuracy",
    "train.cross_entropy": "supervised_loss",
}


def write(scale: Scale, folder: Path, items: Iterable[str] = tuple(ITEMS)) -> list[Path]:
    """Writes `<folder>/<item>.png` of each figure that has records, and its series as CSV.

    The files of a figure without records are deleted.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        items: Names of tables and figures; tables are skipped.

    Returns:
        The files written.
    """
    written = []
    for item in items:
        if item not in DRAWINGS:
            continue
        series = DRAWINGS[item].series
        files = [folder / f"{item}.png"]
        if series:
            files.append(folder / f"{item}_{series}.csv")
        figure = draw(scale, folder, item)
        if figure is None:
            for file in files:
                file.unlink(missing_ok=True)
            continue
        # Without matplotlib's version in it, the same records give the same file.
        with write_whole(files[0]) as part:
            figure.savefig(part, metadata={"Software": None})
        if series:
            with write_whole(files[1]) as part:
                SERIES[series](scale, folder, item).to_csv(part, index=False, float_format="%.4g")
        written += files
    return written


def draw(scale: Scale, folder: Path, item: str) -> Figure | None:
    """One figure; None if the item is not drawn, or nothing of it has been measured."""
    lines = measured(scale, folder, item)
    if item not in DRAWINGS or lines.empty:
        return None
    drawing = DRAWINGS[item]
    series = SERIES[drawing.series](scale, folder, item) if drawing.series else None
    figure = drawing.draw(lines, series)
    found = [over_seeds.found(cell, scale, folder) for cell in ITEMS[item].cells]
    names = ", ".join(sorted({record["data"] for seeds in found for record in seeds.values()}))
    least, most = lines.seeds.min(), lines.seeds.max()
    seeds = f"{least}" if least == most else f"{least}-{most}"
    title = f"{names}; scale {scale.name}; seeds: {seeds}"
    if least == 1 < most:
        title += "; faint or hollow: one"
    figure.axes[0].set_title(title, loc="left", fontsize=8, color=marks.QUIET)
    return figure


def measured(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """The rows of `tables.table` of the measured cells, and their `x` and `of`.

    The index is `row` and `column`.
    """
    cells = ITEMS[item].cells
    lines = tables.table(scale, folder, item, cells)
    lines = lines.assign(x=[cell.x for cell in cells], of=[cell.of for cell in cells])
    return lines[lines.seeds > 0].set_index(["row", "column"])


def describe(scale: Scale, folder: Path, item: str) -> str:
    """What a figure shows, in words and numbers, for readers who cannot see it."""
    rows = measured(scale, folder, item).measured.groupby(level="row", sort=False)
    return "; ".join(
        f"{row}: " + ", ".join(f"{column} {value:.3g}" for (_, column), value in values.items())
        for row, values in rows
    )


def curves(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """An item's measures over training.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: Name of a figure that has records.

    Returns:
        For each cell and epoch: `row`, `column`, `images` (training, validation or test), `step`
        (the epoch's last), `measured` (mean over seeds; percent, or nats), `std` and `seeds`.
    """
    parts = []
    for cell in ITEMS[item].cells:
        records = list(over_seeds.found(cell, scale, folder).values())
        if cell.of == "std" or not records:
            continue
        images, values = _history(records, cell)
        epochs = values.shape[1]
        curve = {
            "row": cell.row,
            "column": cell.column,
            "images": images,
            "step": np.arange(1, epochs + 1) * records[0]["steps"] // epochs,
            "measured": values.mean(axis=0),
            "std": values.std(axis=0, ddof=1) if len(records) > 1 else np.nan,
            "seeds": len(records),
        }
        parts.append(pd.DataFrame(curve))
    return pd.concat(parts)


def points(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """Where t-SNE puts the features of two networks, of the first seed that has a record.

    Args:
        scale: Which runs it shows.
        folder: Results folder with `runs/`.
        item: Name of a figure that has records, of runs that were analysed.

    Returns:
        For each cell, network and image: `row`, `seed`, `network`, `label` (class or identity),
        `x` and `y`.
    """
    parts = []
    for cell in ITEMS[item].cells:
        records = over_seeds.found(cell, scale, folder)
        if not records:
            continue
        seed = min(records)
        shown = records[seed]["analysis"]["tsne"]
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


# What figures show beside their cells' numbers: `Drawing.series` -> its table.
SERIES: Mapping[str, Callable[[Scale, Path, str], pd.DataFrame]] = {
    "curves": curves,
    "points": points,
}


def _history(records: Sequence[dict], cell: Cell) -> tuple[str, np.ndarray]:
    """Which images were measured over training, and the cell's measure, `(seeds, epochs)`.

    Held-out images are preferred if every seed has measured them, except for a cell of the
    training images.
    """
    metric = _OVER_TRAINING[cell.metric]
    of_training = [_curve_names(record, cell, metric) for record in records]
    held_out = [[f"val_{name}" for name in names] for names in of_training]
    is_held_out = not cell.metric.startswith("train.") and all(
        set(names) <= set(record["history"])
        for names, record in zip(held_out, records, strict=True)
    )
    values = [
        np.mean([record["history"][name] for name in names], axis=0)
        for names, record in zip(held_out if is_held_out else of_training, records, strict=True)
    ]
    factor = 100 if metric == "accuracy" else 1
    return _images(records, is_held_out), factor * np.array(values)


def _curve_names(record: dict, cell: Cell, metric: str) -> list[str]:
    """The curves in a record's history that a cell averages: of all peers, or of one."""
    peers = list(record["test"]["peers"])
    chosen = peers if cell.of == "mean" else [peers[cell.of]]
    return [f"{peer}_{metric}" for peer in chosen]


def _images(records: Sequence[dict], is_held_out: bool) -> str:
    if not is_held_out:
        return "training"
    watched = all(record["config"].get("watch_test") for record in records)
    return "test" if watched else "validation"
