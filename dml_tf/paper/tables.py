"""The tables: what was measured beside the paper's numbers, as data frames and CSV files."""

import enum
import functools
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dml_tf import home
from dml_tf.atomic import write_whole
from dml_tf.paper import items as paper_items
from dml_tf.paper import verdicts
from dml_tf.paper.cells import KEYS, Cell, Claim, Contrast, Line, in_nats
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.runs import records

PAPER = home.shipped("results/paper.csv")
PARAMETERS = "parameters.json"  # in a results folder: Table 1's measurements
_NUMBERS = ("paper", "measured", "std", "seeds", "difference", "low", "high")


class Status(enum.StrEnum):
    """How far a cell's number can be compared with the paper's."""

    NOT_RUN = "not run"
    PUBLISHED = "published"
    STAND_IN = "stand-in"
    NOT_PRINTED = "not printed"
    ONE_SEED = "one seed"
    REPRODUCED = "reproduced"
    DIFFERS = "differs"


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(ITEMS)) -> list[Path]:
    """Writes `<folder>/<item>.csv` for each item from the records in `<folder>/runs`.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder.
        items: Names of tables and figures.

    Returns:
        The files written. An item's own lines come first, then the other contrasts of its claims.
    """
    written = []
    for item in items:
        file = folder / f"{item}.csv"
        lines = dict.fromkeys([*ITEMS[item].lines, *_claimed(item)])
        frame = table(scale, folder, item, tuple(lines)).drop(columns="verdict")
        with write_whole(file) as part:
            frame.round(6).to_csv(part, index=False, float_format="%.4g")
        written.append(file)
    return written


def table(scale: Scale, folder: Path, item: str, lines: Sequence[Line] = ()) -> pd.DataFrame:
    """One table: the paper's number, what was measured, and how the two compare.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder with `runs/`.
        item: Name of the table.
        lines: What to list; by default the item's lines.

    Returns:
        One row for each line: `KEYS`, then percent, nats or millions. A contrast has the mean over
        seeds of the difference of runs that share a seed, from three seeds on its 95% interval,
        and what the paper claims of it. `status` is for readers, `verdict` for programs: a
        `Status` of a cell, a `verdicts.Verdict` of a contrast.
    """
    lines = lines or ITEMS[item].lines
    paper, claimed = _paper(), _claimed(item)
    values = {line: _values(line, scale, folder) for line in lines if isinstance(line, Cell)}
    rows = [
        _cell_row(line, scale, values[line], paper)
        if isinstance(line, Cell)
        else _contrast_row(line, scale, values, paper, claimed.get(line, []))
        for line in lines
    ]
    columns = [*KEYS, *_NUMBERS, "status", "data", "claim", "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns)


def comparisons(scale: Scale, folder: Path, items: Sequence[str]) -> pd.DataFrame:
    """The paper's claims and what was measured of them.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`.
        items: Names of tables and figures.

    Returns:
        One row for each contrast of each claim: `item`, `section`, `claim`, `row`, `column`,
        `metric`, `constant`, `measured`, `std`, `seeds`, `low`, `high`, `verdict` and `data`.
    """
    rows = []
    for item, claim in paper_items.claims(items):
        for compared in claim.contrasts:
            measured = measure(compared, scale, folder)
            rows.append(
                {
                    "item": item.name,
                    "section": claim.section,
                    "claim": claim.text,
                    "row": compared.row,
                    "column": compared.column,
                    "metric": compared.first.metric,
                    "constant": compared.constant,
                    **measured,
                    "verdict": verdicts.verdict(measured, claim.equal),
                    "data": _data(compared.first, scale),
                }
            )
    return pd.DataFrame(rows)


def measure(line: Line, scale: Scale, folder: Path) -> dict[str, float]:
    """What was measured of a cell or a contrast; see `verdicts.contrast`."""
    terms = [(_values(cell, scale, folder), weight) for cell, weight in line.terms]
    return verdicts.contrast(terms, line.constant)


def found(cell: Cell, scale: Scale, folder: Path) -> dict[int, dict]:
    """Seed -> record, of the finished runs that fill a cell."""
    runs = {seed: cell.run(scale, seed, str(folder)) for seed in _seeds(scale, folder)}
    kept = {seed: records.find(run) for seed, run in runs.items() if run}
    return {seed: record for seed, record in kept.items() if record}


def _claimed(item: str) -> dict[Contrast, list[Claim]]:
    """What the paper says of an item's contrasts."""
    claimed: dict[Contrast, list[Claim]] = {}
    for claim in ITEMS[item].claims:
        for compared in claim.contrasts:
            claimed.setdefault(compared, []).append(claim)
    return claimed


def _paper() -> dict[tuple, float]:
    """A cell's key -> the number that the paper prints."""
    return pd.read_csv(PAPER).set_index(list(KEYS))["value"].to_dict()


def _values(cell: Cell, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> the cell's number in percent, nats or millions."""
    if cell.metric == "millions":
        file = folder / PARAMETERS
        counts = records.read(file) if file.exists() else {}
        return {0: counts[cell.row] / 1e6} if cell.row in counts else {}
    factor, here = 1 if in_nats(cell.metric) else 100, cell.at(scale)
    measured = {
        seed: _measured(record, here) for seed, record in found(cell, scale, folder).items()
    }
    return {seed: factor * value for seed, value in measured.items() if value is not None}


def _measured(record: dict, cell: Cell) -> float | None:
    """The cell's measure of its peer, of all peers, or of their ensemble; None if it has none."""
    name, _, argument = cell.metric.partition(".")
    if name in _ANALYSED:
        values = _ANALYSED[name](record["analysis"], argument)
    else:
        part, metric = ("train", argument) if name == "train" else ("test", cell.metric)
        peers = list(record[part]["peers"].values())
        if cell.of == "ensemble":
            return _measure(record[part].get("ensemble", peers[0]), metric)
        values = [_measure(peer, metric) for peer in peers]
    if not values:
        return None
    if cell.of == "std":
        return float(np.std(values, ddof=1))
    return float(np.mean(values)) if cell.of == "mean" else values[cell.of]


def _noise(analysis: dict, sigma: str) -> list[float]:
    return _at(analysis["weight_noise"], "sigma", sigma)


def _filter_noise(analysis: dict, ratio: str) -> list[float]:
    return _at(analysis.get("filter_noise", {"ratio": ()}), "ratio", ratio)


def _at(noise: dict, name: str, size: str) -> list[float]:
    """Each peer's loss at one size of the noise; nothing in a record from before that size."""
    if float(size) not in noise[name]:
        return []
    at = noise[name].index(float(size))
    return [float(np.mean(losses[at])) for losses in noise["loss"].values()]


def _mass(analysis: dict, rank: str) -> list[float]:
    return [masses[int(rank) - 1] for masses in analysis["ranked_mass"].values()]


def _same_peer(analysis: dict, _: str) -> list[float]:
    return [analysis["tsne"]["same_peer"]]


# What a cell asks of a record's `analysis`, and how it is read: a value for each peer.
_ANALYSED = {
    "noise": _noise,
    "filter_noise": _filter_noise,
    "mass": _mass,
    "same_peer": _same_peer,
}


def _measure(measures: dict, metric: str) -> float:
    if metric == "main":
        metric = "mAP" if "mAP" in measures else "accuracy"
    return functools.reduce(operator.getitem, metric.split("."), measures)


def _seeds(scale: Scale, folder: Path) -> list[int]:
    """The seeds of the folder's records that the scale may use, by their file names."""
    seeds = {
        int(part.removeprefix("seed"))
        for file in (folder / "runs").glob("*.json")
        for part in file.stem.split("-")
        if part.startswith("seed") and part.removeprefix("seed").isdigit()
    }
    return sorted(seeds.intersection(scale.seed_range))


def _cell_row(
    cell: Cell, scale: Scale, values: Mapping[int, float], paper: Mapping[tuple, float]
) -> dict:
    row = {
        **dict(zip(KEYS, cell.key, strict=True)),
        **verdicts.spread(list(values.values())),
        "paper": paper.get(cell.key, math.nan),
        "data": _data(cell, scale),
    }
    if scale.is_paper or cell.metric == "millions":
        row["difference"] = row["measured"] - row["paper"]
    status = _status(cell, scale, row)
    return row | {"status": status, "verdict": status}


def _status(cell: Cell, scale: Scale, row: Mapping) -> Status:
    is_size = cell.metric == "millions"
    if cell.printed and not cell.method and not is_size:
        return Status.PUBLISHED
    if not row["seeds"]:
        return Status.NOT_RUN
    if not (scale.is_paper or is_size):
        return Status.STAND_IN
    if math.isnan(row["paper"]):
        return Status.NOT_PRINTED
    if not is_size and row["seeds"] < 2:
        return Status.ONE_SEED
    allowed = 0.05 if is_size else 2 * row["std"]  # the paper prints sizes with one decimal
    return Status.REPRODUCED if abs(row["difference"]) <= allowed else Status.DIFFERS


def _contrast_row(
    line: Contrast,
    scale: Scale,
    values: Mapping[Cell, Mapping[int, float]],
    paper: Mapping[tuple, float],
    claimed: Sequence[Claim],
) -> dict:
    """A computed row; the paper's number is computed from those that it prints."""
    printed = line.constant + sum(
        weight * paper.get(cell.key, math.nan) for cell, weight in line.terms
    )
    measured = verdicts.contrast(
        [(values[cell], weight) for cell, weight in line.terms], line.constant
    )
    verdict = verdicts.verdict(measured, any(claim.equal for claim in claimed))
    return {
        **dict(zip(KEYS, line.first.key, strict=True)),
        "row": line.row,
        "column": line.column,
        **measured,
        "paper": round(printed, 4),
        "difference": measured["measured"] - printed if scale.is_paper else math.nan,
        "status": verdict if scale.is_paper else f"{Status.STAND_IN}: {verdict}",
        "verdict": verdict,
        "claim": "; ".join(claim.text for claim in claimed),
        "data": _data(line.first, scale),
    }


def _data(cell: Cell, scale: Scale) -> str:
    data = scale.place(cell.item, cell.dataset)
    return data.dataset if data else ""
