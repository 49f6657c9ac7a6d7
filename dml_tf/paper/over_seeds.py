"""What was measured of a cell or a contrast in each seed, from the records of one folder."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from dml_tf import home
from dml_tf.paper import readings, statistics
from dml_tf.paper.cells import KEYS, Cell, Line, unit
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.runs import records
from dml_tf.runs.config import Config

PAPER = home.shipped("results/paper.csv")
PARAMETERS = "parameters.json"  # in a results folder: Table 1's measurements


class Measured(NamedTuple):
    """One run's number for a cell."""

    run_id: str
    networks: str
    seed: int
    value: float | None


def measure(line: Line, scale: Scale, folder: Path) -> dict[str, float]:
    """What was measured of a cell or a contrast; see `statistics.summary`."""
    return statistics.summary(differences(line, scale, folder))


def differences(line: Line, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> value of a cell or a contrast, of the seeds that all its terms have.

    A term without a run is a number that the paper prints. It is the same in every seed, and
    stands beside results at paper scale only.
    """
    constant, terms, paper = line.constant, [], printed()
    for cell, weight in line.terms:
        if cell.method or cell.metric == "millions":
            terms.append((values(cell, scale, folder), weight))
        elif scale.is_paper:
            constant += weight * float(paper[cell.key])
        else:
            return {}
    seeds = set.intersection(*(set(term) for term, _ in terms)) if terms else set()
    return {
        seed: constant + sum(weight * term[seed] for term, weight in terms)
        for seed in sorted(seeds)
    }


def found(cell: Cell, scale: Scale, folder: Path) -> dict[int, dict]:
    """Seed -> record, of the finished runs that fill a cell."""
    usable = scale.used(cell.item, cell.dataset)
    seeds = [seed for seed in _seeds(folder) if seed in usable]
    runs = {seed: _run(cell, scale, seed, str(folder)) for seed in seeds}
    kept = {seed: records.find(run) for seed, run in runs.items() if run}
    return {seed: record for seed, record in kept.items() if record}


def finished(item: str, scale: Scale, folder: Path) -> set[int]:
    """The planned seeds of which all runs of an item have finished."""
    runs = [
        (scale.planned(item, cell.dataset), runs_of(cell, scale, folder))
        for cell in ITEMS[item].cells
        if cell.method
    ]
    every = {seed for planned, _ in runs for seed in planned}
    return {seed for seed in every if all(seed in run for planned, run in runs if seed in planned)}


def runs_of(cell: Cell, scale: Scale, folder: Path) -> Mapping[int, Measured]:
    """Seed -> what each run measured for a cell; read again only if a record has changed."""
    runs = folder / "runs"
    files = os.scandir(runs) if runs.is_dir() else ()
    stats = [(file.name, file.stat()) for file in files if not file.name.startswith(".")]
    state = frozenset((name, at.st_ino, at.st_mtime_ns, at.st_size) for name, at in stats)
    return _read(cell, scale, folder, state)


@functools.lru_cache(maxsize=2**14)  # every table asks again, and the flag files are read each time
def _run(cell: Cell, scale: Scale, seed: int, folder: str) -> Config | None:
    return cell.run(scale, seed, folder)


@functools.lru_cache(maxsize=4096)
def _read(cell: Cell, scale: Scale, folder: Path, _: frozenset) -> dict[int, Measured]:
    here = cell.at(scale)
    return {
        seed: Measured(
            _run(cell, scale, seed, str(folder)).run_id,
            "+".join(record["config"]["net"]),
            seed,
            readings.read(record, here),
        )
        for seed, record in found(cell, scale, folder).items()
    }


def values(cell: Cell, scale: Scale, folder: Path) -> dict[int, float]:
    """Seed -> the cell's number in percent, nats, times or millions."""
    if cell.metric == "millions":
        file = folder / PARAMETERS
        counts = records.read(file) if file.exists() else {}
        return {0: counts[cell.row] / 1e6} if cell.row in counts else {}
    factor = 100 if unit(cell.metric) == "points" else 1
    runs = runs_of(cell, scale, folder)
    return {seed: factor * run.value for seed, run in runs.items() if run.value is not None}


def _seeds(folder: Path) -> list[int]:
    """The seeds of the folder's records, by their file names."""
    seeds = {
        int(part.removeprefix("seed"))
        for file in (folder / "runs").glob("[!.]*.json")
        for part in file.stem.split("-")
        if part.startswith("seed") and part.removeprefix("seed").isdigit()
    }
    return sorted(seeds)


@functools.cache
def printed() -> dict[tuple, str]:
    """A cell's key -> the number that the paper prints, with its digits."""
    return pd.read_csv(PAPER, dtype=str).set_index(list(KEYS))["value"].to_dict()
