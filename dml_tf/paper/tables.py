"""The tables: what was measured beside the paper's numbers, as data frames and CSV files."""

import enum
import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dml_tf import data, home
from dml_tf.atomic import write_whole
from dml_tf.paper import items as paper_items
from dml_tf.paper import readings, statistics, verdicts
from dml_tf.paper.cells import KEYS, Cell, Claim, Contrast, Line, unit
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.paper.verdicts import Judgement, Verdict
from dml_tf.runs import records

PAPER = home.shipped("results/paper.csv")
PARAMETERS = "parameters.json"  # in a results folder: Table 1's measurements
CLAIMS = "claims.csv"
_ABOUT = ("scale", "data", "networks", "runs", "seed_numbers")
_NUMBERS = ("measured", "std", "seeds", "low", "high", "p", "detectable")
_COMPARED = ("paper", "compared_with_paper", "difference", "gap_in_std", "status", "claim")


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
    """Writes `<folder>/<item>.csv` of each item, and `claims.csv`, from `<folder>/runs`.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder.
        items: Names of tables and figures.

    Returns:
        The files written. An item's own lines come first, then the other contrasts of its claims.
    """
    written = []
    for item in items:
        lines = dict.fromkeys([*ITEMS[item].lines, *_claimed(item)])
        frame = table(scale, folder, item, tuple(lines)).drop(columns="verdict")
        written.append(_write(frame, folder / f"{item}.csv"))
    return [*written, _write(conclusions(scale, folder), folder / CLAIMS)]


def _write(frame: pd.DataFrame, file: Path) -> Path:
    with write_whole(file) as part:
        frame.to_csv(part, index=False, float_format="%.6g")
    return file


def table(scale: Scale, folder: Path, item: str, lines: Sequence[Line] = ()) -> pd.DataFrame:
    """One table: the paper's number, what was measured, and how the two compare.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder with `runs/`.
        item: Name of the table.
        lines: What to list; by default the item's lines.

    Returns:
        One row for each line: `KEYS`, then what ran (`scale`, `data`, `networks`, ids of `runs`,
        `seed_numbers`), then percent, nats, times or millions. A contrast has the mean over seeds
        of the difference of runs that share a seed, and from three seeds on its 95% interval,
        simultaneous for several places of one claim; `p` by sign flips; and the smallest
        difference `detectable` with 80% power. `paper` is text, as printed. `status` is for
        readers, `verdict` for programs: a `Status` of a cell, a `Verdict` of a contrast.
    """
    lines, paper = lines or ITEMS[item].lines, _paper()
    judged = _judged_lines(scale, folder, item)
    rows = [
        {
            **dict(zip(KEYS, _key(line), strict=True)),
            **_about(line, scale, folder),
            **(
                _cell_row(line, scale, _values(line, scale, folder), paper)
                if isinstance(line, Cell)
                else _contrast_row(line, scale, folder, paper, judged)
            ),
        }
        for line in lines
    ]
    columns = [*KEYS, *_ABOUT, *_NUMBERS, *_COMPARED, "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns)


def judge(claim: Claim, scale: Scale, folder: Path) -> Judgement:
    """What the records of one scale say of a claim.

    Places on generated pictures count only if no other place was run.
    """
    places = [differences(line, scale, folder) for line in claim.contrasts]
    of_data = [_data(line.first, scale) for line in claim.contrasts]
    generated = [name in data.GENERATED_DATASETS for name in of_data]
    if any(values and not made for values, made in zip(places, generated, strict=True)):
        places = [{} if made else values for values, made in zip(places, generated, strict=True)]
    return verdicts.judge(claim, places, _planned(claim, places, scale))


def conclusions(scale: Scale, folder: Path, items: Sequence[str] = tuple(ITEMS)) -> pd.DataFrame:
    """The paper's claims and what was concluded of each.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`.
        items: Names of tables and figures.

    Returns:
        One row for each claim: where it stands, `conclusion`, the pooled difference with its
        `std`, `seeds`, `low`, `high`, `p` and `detectable`; `decisive_p`; `places` that were run,
        the claim's `margin`, and `unit`.
    """
    rows = []
    for item, claim in paper_items.claims(items):
        judgement = judge(claim, scale, folder)
        run = [
            line
            for line, place in zip(claim.contrasts, judgement.places, strict=True)
            if place["seeds"]
        ]
        rows.append(
            {
                "item": item.name,
                "section": claim.section,
                "claim": claim.text,
                "conclusion": judgement.words,
                **judgement.pooled,
                "decisive_p": judgement.decisive_p,
                "unit": unit(claim.contrasts[0].first.metric),
                "margin": claim.margin or math.nan,
                "places": len(run),
                "scale": scale.name,
                "data": "; ".join(dict.fromkeys(_data(line.first, scale) for line in run)),
            }
        )
    return pd.DataFrame(rows)


def measure(line: Line, scale: Scale, folder: Path) -> dict[str, float]:
    """What was measured of a cell or a contrast; see `statistics.summary`."""
    return statistics.summary(differences(line, scale, folder))


def differences(line: Line, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> value of a cell or a contrast, of the seeds that all its terms have.

    A term without a run is a number that the paper prints. It is the same in every seed, and
    stands beside results at paper scale only.
    """
    constant, terms, paper = line.constant, [], _paper()
    for cell, weight in line.terms:
        if cell.method or cell.metric == "millions":
            terms.append((_values(cell, scale, folder), weight))
        elif scale.is_paper:
            constant += weight * float(paper[cell.key])
        else:
            return {}
    seeds = set.intersection(*(set(values) for values, _ in terms)) if terms else set()
    return {
        seed: constant + sum(weight * values[seed] for values, weight in terms)
        for seed in sorted(seeds)
    }


def found(cell: Cell, scale: Scale, folder: Path) -> dict[int, dict]:
    """Seed -> record, of the finished runs that fill a cell."""
    usable = scale.used(cell.item, cell.dataset)
    seeds = [seed for seed in _seeds(folder) if seed in usable]
    runs = {seed: cell.run(scale, seed, str(folder)) for seed in seeds}
    kept = {seed: records.find(run) for seed, run in runs.items() if run}
    return {seed: record for seed, record in kept.items() if record}


def _claimed(item: str) -> dict[Contrast, list[Claim]]:
    """What the paper says of an item's contrasts."""
    claimed: dict[Contrast, list[Claim]] = {}
    for claim in ITEMS[item].claims:
        for compared in claim.contrasts:
            claimed.setdefault(compared, []).append(claim)
    return claimed


@functools.cache
def _paper() -> dict[tuple, str]:
    """A cell's key -> the number that the paper prints, with its digits."""
    return pd.read_csv(PAPER, dtype=str).set_index(list(KEYS))["value"].to_dict()


def _planned(claim: Claim, places: Sequence[Mapping], scale: Scale) -> int:
    """How many seeds must finish before a claim is judged, at a scale with a fixed number."""
    if not scale.is_fixed:
        return 0
    run = [line for line, values in zip(claim.contrasts, places, strict=True) if values]
    return max((len(scale.planned(x.first.item, x.first.dataset)) for x in run), default=0)


def _judged_lines(scale: Scale, folder: Path, item: str) -> dict[Contrast, dict]:
    """What was concluded of each contrast that an item's claims have; the first claim counts."""
    judged: dict[Contrast, dict] = {}
    for claim in ITEMS[item].claims:
        for line, place in zip(claim.contrasts, judge(claim, scale, folder).places, strict=True):
            judged.setdefault(line, place)
    return judged


def _key(line: Line) -> tuple[str, ...]:
    first = line.terms[0][0]
    return (first.item, first.dataset, line.row, line.column, first.metric)


def _about(line: Line, scale: Scale, folder: Path) -> dict[str, str]:
    """What ran for a line: scale, data, networks, ids of the runs and their seeds."""
    runs: dict[str, _Measured] = {}
    for cell, _ in line.terms:
        for found_run in _measured(cell, scale, folder).values():
            runs[found_run.run_id] = found_run
    return {
        "scale": scale.name,
        "data": _data(line.terms[0][0], scale),
        "networks": "; ".join(dict.fromkeys(run.networks for run in runs.values())),
        "runs": "; ".join(sorted(runs)),
        "seed_numbers": " ".join(map(str, sorted({run.seed for run in runs.values()}))),
    }


class _Measured(NamedTuple):
    """One run's number for a cell."""

    run_id: str
    networks: str
    seed: int
    value: float | None


def _measured(cell: Cell, scale: Scale, folder: Path) -> Mapping[int, _Measured]:
    """Seed -> what each run measured for a cell; read again only if a record has changed."""
    runs = folder / "runs"
    files = os.scandir(runs) if runs.is_dir() else ()
    stats = [(file.name, file.stat()) for file in files]
    state = frozenset((name, at.st_ino, at.st_mtime_ns, at.st_size) for name, at in stats)
    return _read_measured(cell, scale, folder, state)


@functools.lru_cache(maxsize=4096)
def _read_measured(cell: Cell, scale: Scale, folder: Path, _: frozenset) -> dict[int, _Measured]:
    here = cell.at(scale)
    return {
        seed: _Measured(
            cell.run(scale, seed, str(folder)).run_id,
            "+".join(record["config"]["net"]),
            seed,
            readings.read(record, here),
        )
        for seed, record in found(cell, scale, folder).items()
    }


def _values(cell: Cell, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> the cell's number in percent, nats, times or millions."""
    if cell.metric == "millions":
        file = folder / PARAMETERS
        counts = records.read(file) if file.exists() else {}
        return {0: counts[cell.row] / 1e6} if cell.row in counts else {}
    factor = 100 if unit(cell.metric) == "points" else 1
    runs = _measured(cell, scale, folder)
    return {seed: factor * run.value for seed, run in runs.items() if run.value is not None}


def _seeds(folder: Path) -> list[int]:
    """The seeds of the folder's records, by their file names."""
    seeds = {
        int(part.removeprefix("seed"))
        for file in (folder / "runs").glob("*.json")
        for part in file.stem.split("-")
        if part.startswith("seed") and part.removeprefix("seed").isdigit()
    }
    return sorted(seeds)


def _cell_row(
    cell: Cell, scale: Scale, values: Mapping[int, float], paper: Mapping[tuple, str]
) -> dict:
    row = {
        **verdicts.spread(list(values.values())),
        "paper": paper.get(cell.key, ""),
        "compared_with_paper": _compares(cell, scale),
    }
    if row["paper"] and (scale.is_paper or cell.metric == "millions"):
        row["difference"] = row["measured"] - float(row["paper"])
        if row["std"] > 0:
            row["gap_in_std"] = row["difference"] / row["std"]
    status = _status(cell, scale, row)
    return row | {"status": _with_gap(status, row), "verdict": status}


def _compares(cell: Cell, scale: Scale) -> str:
    """Whether the paper's number is of the same data and networks."""
    if scale.is_paper or cell.metric == "millions" or not cell.method:
        return "yes"
    place = scale.place(cell.item, cell.dataset)
    return f"no: the paper's is of {cell.dataset}" + (
        f", measured is of {place.dataset} with small networks" if place else ""
    )


def _with_gap(status: "Status", row: Mapping) -> str:
    """`reproduced, gap 0.4 standard deviations`."""
    if status not in (Status.REPRODUCED, Status.DIFFERS) or "gap_in_std" not in row:
        return str(status)
    return f"{status}, gap {abs(row['gap_in_std']):.1f} standard deviations"


def _status(cell: Cell, scale: Scale, row: Mapping) -> Status:
    is_size = cell.metric == "millions"
    if cell.printed and not cell.method and not is_size:
        return Status.PUBLISHED
    if not row["seeds"]:
        return Status.NOT_RUN
    if not (scale.is_paper or is_size):
        return Status.STAND_IN
    if not row["paper"]:
        return Status.NOT_PRINTED
    if not is_size and row["seeds"] < 2:
        return Status.ONE_SEED
    allowed = 0.05 if is_size else 2 * row["std"]  # the paper prints sizes with one decimal
    return Status.REPRODUCED if abs(row["difference"]) <= allowed else Status.DIFFERS


def _contrast_row(
    line: Contrast,
    scale: Scale,
    folder: Path,
    paper: Mapping[tuple, str],
    judged: Mapping[Contrast, Mapping],
) -> dict:
    """A computed row; the paper's number is computed from those that it prints."""
    measured = judged.get(line) or verdicts.single(differences(line, scale, folder))
    printed = _printed(line, paper)
    can_compare = scale.is_paper and printed
    claims = [claim.text for claim in _claimed(line.first.item).get(line, [])]
    verdict = _in_seeds(measured)
    return {
        **measured,
        "paper": printed,
        "compared_with_paper": _compares(line.first, scale),
        "difference": measured["measured"] - float(printed) if can_compare else math.nan,
        "status": verdict if scale.is_paper else f"{Status.STAND_IN}: {verdict}",
        "claim": "; ".join(claims),
    }


def _in_seeds(line: Mapping) -> str:
    """A place's verdict, or how many seeds are too few: `one seed: no verdict`."""
    if line["verdict"] != Verdict.NO_VERDICT:
        return str(line["verdict"])
    count = line["seeds"]
    return "one seed: no verdict" if count == 1 else f"{count} seeds: no verdict"


def _printed(line: Contrast, paper: Mapping[tuple, str]) -> str:
    """The contrast of the printed numbers, with the most digits that one of them has."""
    numbers = [paper.get(cell.key, "") for cell, _ in line.terms]
    if not all(numbers):
        return ""
    places = max(len(number.partition(".")[2]) for number in numbers)
    weights = [weight for _, weight in line.terms]
    total = sum(w * float(number) for w, number in zip(weights, numbers, strict=True))
    return f"{line.constant + total:.{places}f}"


def _data(cell: Cell, scale: Scale) -> str:
    place = scale.place(cell.item, cell.dataset)
    return place.dataset if place else ""
