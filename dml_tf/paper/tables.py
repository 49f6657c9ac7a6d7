"""The paper's tables: measured rows beside `results/paper.csv`, as CSV. Imports no TensorFlow."""

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from dml_tf import home
from dml_tf.paper import claims
from dml_tf.paper import items as experiments
from dml_tf.paper.items import Cell, Contrast
from dml_tf.paper.scales import Scale
from dml_tf.runs import records

PAPER = home.HOME / "results" / "paper.csv"
PARAMETERS = "parameters.json"
NATS = ("train.cross_entropy", "train.entropy", "noise")
_KEYS = ["item", "dataset", "row", "column", "metric"]


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(experiments.ITEMS)) -> list:
    """Writes `<folder>/<item>.csv` for each item from the records in `<folder>/runs`.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder.
        items: Names of tables and figures.

    Returns:
        The files written. After a table's own lines come those that its claims compare beside.
    """
    written = []
    for item in items:
        file = folder / f"{item}.csv"
        lines = dict.fromkeys([*experiments.ITEMS[item](), *_claimed(item)])
        frame = table(scale, folder, item, tuple(lines))
        frame.round(6).to_csv(file, index=False, float_format="%.4g")
        written.append(file)
    return written


def table(
    scale: Scale, folder: Path, item: str, lines: Sequence[experiments.Line] = ()
) -> pd.DataFrame:
    """One table: the paper's number, what was measured, and how far the two may be compared.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder with `runs/`.
        item: Name of the table.
        lines: What to list; by default the item's lines.

    Returns:
        One line a cell, percent and millions. For gains, the mean over seeds of the difference
        of runs that share a seed, with its 95% interval from three seeds on, and what the paper
        claims of it.
    """
    lines = lines or experiments.ITEMS[item]()
    paper, claimed = _paper(), _claimed(item)
    values = {line: _values(line, scale, folder) for line in lines if isinstance(line, Cell)}
    rows = [
        _cell_line(line, scale, values[line], paper)
        if isinstance(line, Cell)
        else _contrast_line(line, scale, values, paper, claimed.get(line, []))
        for line in lines
    ]
    order = ["paper", "measured", "std", "seeds", "difference", "low", "high", "status", "data"]
    return pd.DataFrame(rows).reindex(columns=[*_KEYS, *order, "claim"])


def verdicts(scale: Scale, folder: Path, items: Sequence[str]) -> pd.DataFrame:
    """The paper's claims and what was measured of them.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`.
        items: Names of tables and figures.

    Returns:
        One line for each contrast of each claim: `item`, `section`, `claim`, `row`, `column`,
        `metric`, `constant`, `measured`, `std`, `seeds`, `low`, `high`, `verdict` and `data`.
    """
    lines = []
    for claim in claims.claims():
        if claim.item not in items:
            continue
        for compared in claim.contrasts:
            values = [(_values(cell, scale, folder), weight) for cell, weight in compared.terms]
            measured = contrast(values, compared.constant)
            lines.append(
                {
                    "item": claim.item,
                    "section": claim.section,
                    "claim": claim.text,
                    "row": compared.row,
                    "column": compared.column,
                    "metric": compared.terms[0][0].metric,
                    "constant": compared.constant,
                    **measured,
                    "verdict": _verdict(measured, [claim]),
                    "data": _data(compared.terms[0][0], scale),
                }
            )
    return pd.DataFrame(lines)


def contrast(
    seeds: Sequence[tuple[Mapping[int, float], float]], constant: float = 0.0
) -> dict[str, float]:
    """A weighted sum of settings, over the seeds that all of them have.

    Args:
        seeds: For each setting, seed -> value, and its weight.
        constant: Added to each sum.

    Returns:
        `measured`, the mean; `std`; `seeds`; and `low` and `high`, its 95% interval by Student's
        t, from three seeds on.

    Example:
        >>> line = contrast([({0: 3.0, 1: 5.0, 2: 4.0}, 1), ({0: 1.0, 1: 2.0, 2: 3.0}, -1)])
        >>> [round(float(line[name]), 2) for name in ("measured", "std", "low", "high")]
        [2.0, 1.0, -0.48, 4.48]
    """
    shared = set.intersection(*(set(values) for values, _ in seeds))
    line = _spread(
        [constant + sum(w * values[seed] for values, w in seeds) for seed in sorted(shared)]
    )
    line["low"] = line["high"] = math.nan
    if line["seeds"] >= 3:
        half = stats.t.ppf(0.975, line["seeds"] - 1) * line["std"] / math.sqrt(line["seeds"])
        line["low"], line["high"] = line["measured"] - half, line["measured"] + half
    return line


def found(cell: Cell, scale: Scale, folder: Path) -> dict[int, dict]:
    """The records that fill a cell.

    Args:
        cell: Any cell.
        scale: Which runs fill it.
        folder: Results folder with `runs/`.

    Returns:
        Seed -> record, of the runs that are there.

    Raises:
        RecordMismatch: One was made with other settings.
    """
    runs = {seed: cell.run(scale, seed, str(folder)) for seed in range(_most_seeds(folder))}
    there = {seed: records.find(run) for seed, run in runs.items() if run}
    return {seed: record for seed, record in there.items() if record}


def _claimed(item: str) -> dict[Contrast, list[claims.Claim]]:
    """What the paper says of an item's contrasts."""
    said: dict[Contrast, list[claims.Claim]] = {}
    for claim in claims.claims():
        for compared in claim.contrasts if claim.item == item else ():
            said.setdefault(compared, []).append(claim)
    return said


def _paper() -> dict[tuple, float]:
    """Item, data set, row, column and metric -> the number that the paper prints."""
    return pd.read_csv(PAPER).set_index(_KEYS)["value"].to_dict()


def _values(cell: Cell, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> the cell's number, percent or millions, of the runs that are there."""
    if cell.metric == "millions":
        file = folder / PARAMETERS
        counts = records.read(file) if file.exists() else {}
        return {0: counts[cell.row] / 1e6} if cell.row in counts else {}
    factor = 1 if in_nats(cell.metric) else 100
    there = found(cell, scale, folder).items()
    return {seed: factor * _measured(record, cell) for seed, record in there}


def in_nats(metric: str) -> bool:
    """Whether a measure is counted in nats, not in percent.

    Args:
        metric: A cell's.

    Returns:
        True or False.
    """
    return metric in NATS or metric.partition(".")[0] in NATS


def _measured(record: dict, cell: Cell) -> float:
    """The cell's measure of its peer, of all peers, or of their ensemble."""
    name, _, argument = cell.metric.partition(".")
    if name in _ANALYSED:
        values = _ANALYSED[name](record["analysis"], argument)
    else:
        part, metric = ("train", argument) if name == "train" else ("test", cell.metric)
        peers = list(record[part]["peers"].values())
        if cell.of == "ensemble":
            return _measure(record[part].get("ensemble", peers[0]), metric)
        values = [_measure(peer, metric) for peer in peers]
    if cell.of == "std":
        return float(np.std(values, ddof=1))
    return float(np.mean(values)) if cell.of == "mean" else values[cell.of]


def _noise(analysis: dict, sigma: str) -> list[float]:
    at = analysis["weight_noise"]["sigma"].index(float(sigma))
    return [float(np.mean(losses[at])) for losses in analysis["weight_noise"]["loss"].values()]


def _mass(analysis: dict, rank: str) -> list[float]:
    return [masses[int(rank) - 1] for masses in analysis["ranked_mass"].values()]


# What a cell asks of a record's `analysis`, and how it is read: a value for each peer.
_ANALYSED = {
    "noise": _noise,
    "mass": _mass,
    "same_peer": lambda analysis, _: [analysis["tsne"]["same_peer"]],
}


def _measure(measures: dict, metric: str) -> float:
    if metric == "main":
        metric = "mAP" if "mAP" in measures else "accuracy"
    return functools.reduce(operator.getitem, metric.split("."), measures)


def _most_seeds(folder: Path) -> int:
    """One more than the greatest seed of the folder's records, which their names end in."""
    seeds = [
        int(part.removeprefix("seed"))
        for file in (folder / "runs").glob("*.json")
        for part in file.stem.split("-")
        if part.startswith("seed") and part.removeprefix("seed").isdigit()
    ]
    return max(seeds, default=-1) + 1


def _cell_line(
    cell: Cell, scale: Scale, values: Mapping[int, float], paper: Mapping[tuple, float]
) -> dict:
    line = {
        **_keys(cell),
        **_spread(list(values.values())),
        "paper": paper.get(tuple(_keys(cell).values()), math.nan),
        "data": _data(cell, scale),
    }
    if not (scale.is_paper or cell.metric == "millions"):
        return line | {"status": _run_status(cell, line) or "stand-in"}
    line["difference"] = line["measured"] - line["paper"]
    return line | {"status": _run_status(cell, line) or _comparison(cell, line)}


def _contrast_line(
    line: Contrast,
    scale: Scale,
    values: Mapping[Cell, Mapping[int, float]],
    paper: Mapping[tuple, float],
    claimed: Sequence[claims.Claim],
) -> dict:
    """A computed line; the paper's number is computed from those that it prints."""
    first = line.terms[0][0]
    printed = line.constant + sum(
        weight * paper.get(tuple(_keys(cell).values()), math.nan) for cell, weight in line.terms
    )
    measured = contrast([(values[cell], weight) for cell, weight in line.terms], line.constant)
    return {
        **_keys(first),
        "row": line.row,
        "column": line.column,
        **measured,
        "paper": round(printed, 4),
        "difference": measured["measured"] - printed if scale.is_paper else math.nan,
        "status": ("" if scale.is_paper else "stand-in: ") + _verdict(measured, claimed),
        "claim": "; ".join(claim.text for claim in claimed),
        "data": _data(first, scale),
    }


def verdict(line: Mapping[str, float]) -> str:
    """What a contrast's interval says.

    Args:
        line: As `contrast` returns it.

    Returns:
        `gain` or `loss` where the interval is on one side of zero, else `no clear gain`; or why
        nothing can be said.
    """
    if not line["seeds"]:
        return "not run"
    if line["seeds"] < 3:
        return "too few seeds to say"
    if line["low"] > 0:
        return "gain"
    return "loss" if line["high"] < 0 else "no clear gain"


def _verdict(line: Mapping[str, float], claimed: Sequence[claims.Claim]) -> str:
    """A contrast's verdict in view of what is claimed of it: a gain, or no difference."""
    said = verdict(line)
    if not any(claim.equal for claim in claimed):
        return said
    of_equals = {"gain": "difference", "loss": "difference", "no clear gain": "no clear difference"}
    return of_equals.get(said, said)


def _run_status(cell: Cell, line: Mapping) -> str:
    """Why there is nothing to compare, if so."""
    if cell.printed and not cell.method and cell.metric != "millions":
        return "published"
    return "" if line["seeds"] else "not run"


def _comparison(cell: Cell, line: Mapping) -> str:
    """A number of the paper's own scale beside the paper's."""
    if math.isnan(line["paper"]):
        return "not printed"
    if cell.metric == "millions":
        digits_of_the_paper = 0.05
        return "reproduced" if abs(line["difference"]) <= digits_of_the_paper else "differs"
    if line["seeds"] < 2:
        return "one seed"
    return "reproduced" if abs(line["difference"]) <= 2 * line["std"] else "differs"


def _keys(cell: Cell) -> dict[str, str]:
    return {key: getattr(cell, key) for key in _KEYS}


def _data(cell: Cell, scale: Scale) -> str:
    data = scale.place(cell.item, cell.dataset)
    return data.dataset if data else ""


def _spread(values: Sequence[float]) -> dict:
    return {
        "measured": np.mean(values) if len(values) else math.nan,
        "std": np.std(values, ddof=1) if len(values) > 1 else math.nan,
        "seeds": len(values),
    }
