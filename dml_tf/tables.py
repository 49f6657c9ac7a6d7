"""The paper's tables: measured rows beside `results/paper.csv`, as CSV. Imports no TensorFlow."""

import functools
import math
import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from dml_tf import config, experiments, records
from dml_tf.experiments import Cell, Gain, Scale

PAPER = config.ROOT / "results" / "paper.csv"
PARAMETERS = "parameters.json"
_KEYS = ["item", "dataset", "row", "column", "metric"]


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(experiments.ITEMS)) -> list:
    """Writes `<folder>/<item>.csv` for each item from the records in `<folder>/runs`.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder.
        items: Names of tables.

    Returns:
        The files written.
    """
    written = []
    for item in items:
        file = folder / f"{item}.csv"
        table(scale, folder, item).round(6).to_csv(file, index=False, float_format="%.4g")
        written.append(file)
    return written


def table(scale: Scale, folder: Path, item: str) -> pd.DataFrame:
    """One table: the paper's number, what was measured, and how far the two may be compared.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder with `runs/`.
        item: Name of the table.

    Returns:
        One line a cell, percent and millions. For gains, the mean over seeds of the difference
        of runs that share a seed, with its 95% interval from three seeds on.
    """
    lines = experiments.ITEMS[item]()
    values = {line: _values(line, scale, folder) for line in lines if isinstance(line, Cell)}
    frame = pd.DataFrame([_line(cell, scale, seeds) for cell, seeds in values.items()])
    frame = frame.merge(_paper(), on=_KEYS, how="left", validate="one_to_one")
    gains = [_gain(line, values, scale, frame) for line in lines if isinstance(line, Gain)]
    frame = pd.concat([frame, pd.DataFrame(gains)], ignore_index=True)
    frame["difference"] = (frame["measured"] - frame["paper"]).where(
        scale.is_paper | (frame["metric"] == "millions")
    )
    frame["status"] = frame.apply(_status, axis=1, scale=scale)
    order = ["paper", "measured", "std", "seeds", "difference", "low", "high", "status", "data"]
    return frame.reindex(columns=_KEYS + order)


def paired(first: dict[int, float], second: dict[int, float]) -> dict[str, float]:
    """Mean difference of two settings over the seeds that both have.

    Args:
        first: Seed -> value.
        second: Seed -> value that is subtracted.

    Returns:
        `measured`, the mean; `std`; `seeds`; and `low` and `high`, its 95% interval by Student's
        t, from three seeds on.

    Example:
        >>> line = paired({0: 3.0, 1: 5.0, 2: 4.0}, {0: 1.0, 1: 2.0, 2: 3.0})
        >>> [round(float(line[name]), 2) for name in ("measured", "std", "low", "high")]
        [2.0, 1.0, -0.48, 4.48]
    """
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    line = _spread(differences)
    line["low"] = line["high"] = math.nan
    if line["seeds"] >= 3:
        half = stats.t.ppf(0.975, line["seeds"] - 1) * line["std"] / math.sqrt(line["seeds"])
        line["low"], line["high"] = line["measured"] - half, line["measured"] + half
    return line


def _paper() -> pd.DataFrame:
    return pd.read_csv(PAPER).rename(columns={"value": "paper"})


def _values(cell: Cell, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> the cell's number, percent or millions, of the runs that are there."""
    if cell.metric == "millions":
        file = folder / PARAMETERS
        counts = records.read(file) if file.exists() else {}
        return {0: counts[cell.row] / 1e6} if cell.row in counts else {}
    values = {}
    for seed in range(_most_seeds(folder)):
        run = cell.run(scale, seed, str(folder))
        if run and (record := records.find(run)):
            values[seed] = 100 * _measured(record, cell)
    return values


def _measured(record: dict, cell: Cell) -> float:
    """The cell's measure of its peer, or the mean over all."""
    peers = list(record["test"]["peers"].values())
    chosen = peers if cell.peer is None else [peers[cell.peer]]
    path = cell.metric.split(".")
    return float(np.mean([functools.reduce(operator.getitem, path, peer) for peer in chosen]))


def _most_seeds(folder: Path) -> int:
    """One more than the greatest seed of the folder's records, which their names end in."""
    seeds = [
        int(part.removeprefix("seed"))
        for file in (folder / "runs").glob("*.json")
        for part in file.stem.split("-")
        if part.startswith("seed") and part.removeprefix("seed").isdigit()
    ]
    return max(seeds, default=-1) + 1


def _line(cell: Cell, scale: Scale, values: dict[int, float]) -> dict:
    keys = {key: getattr(cell, key) for key in _KEYS}
    return keys | _spread(list(values.values())) | {"data": _data(cell, scale)}


def _data(cell: Cell, scale: Scale) -> str:
    return scale.data[cell.dataset].dataset if cell.dataset in scale.data else ""


def _spread(values: Sequence[float]) -> dict:
    return {
        "measured": np.mean(values) if len(values) else math.nan,
        "std": np.std(values, ddof=1) if len(values) > 1 else math.nan,
        "seeds": len(values),
    }


def _gain(
    gain: Gain, values: dict[Cell, dict[int, float]], scale: Scale, frame: pd.DataFrame
) -> dict:
    """A computed line; the paper's number is the difference of the two that it prints."""
    paper = frame.set_index(_KEYS)["paper"]
    printed = [paper[tuple(getattr(c, key) for key in _KEYS)] for c in (gain.cell, gain.baseline)]
    return {
        **{key: getattr(gain.cell, key) for key in _KEYS},
        "row": gain.row,
        "column": gain.column,
        **paired(values[gain.cell], values[gain.baseline]),
        "data": _data(gain.cell, scale),
        "paper": round(printed[0] - printed[1], 2),
    }


def _status(line: pd.Series, scale: Scale) -> str:
    """What may be said: numbers are compared at paper scale only, elsewhere the claim is."""
    if line["row"] in experiments.REID_PUBLISHED:
        return "published"
    if not line["seeds"]:
        return "not run"
    if line["metric"] == "millions":
        digits_of_the_paper = 0.05
        return "reproduced" if abs(line["difference"]) <= digits_of_the_paper else "differs"
    if scale.is_paper:
        if line["seeds"] < 2:
            return "one seed"
        return "reproduced" if abs(line["difference"]) <= 2 * line["std"] else "differs"
    if "DML-Ind" not in line["row"] + line["column"]:
        return "stand-in"
    if line["seeds"] < 3:
        return "stand-in: too few seeds to say"
    if line["low"] > 0:
        return "stand-in: gain"
    return "stand-in: loss" if line["high"] < 0 else "stand-in: no clear gain"
