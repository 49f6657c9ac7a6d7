"""Lists runs: what is done, what is being trained or was interrupted, accuracy, time left."""

import argparse
import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dml_tf.data.arrays import read_npz
from dml_tf.errors import DONE, FlagError, RecordMismatch, exit_status
from dml_tf.runs import records
from dml_tf.runs.files import PREVIOUS, STATE, RunFiles
from dml_tf.runs.words import duration
from dml_tf.tools import trained


class Row(NamedTuple):
    """One run; `when` is text to sort by: the newest is the greatest."""

    folder: Path  # of results
    run: str
    state: str
    accuracy: str
    left: str
    when: str


def main(argv: Sequence[str]) -> int:
    """The command `dml_tf runs`; returns its exit status."""
    parser = argparse.ArgumentParser("dml_tf runs", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "name", nargs="?", default="", help="only runs with this in their names or folders"
    )
    parser.add_argument("--results_dir", default="", help="default: every folder in results/")
    parser.add_argument("--all", action="store_true", help="more than the 20 newest")
    return exit_status(parser.prog, partial(_list, parser.parse_args(argv)))


def _list(options: argparse.Namespace) -> int:
    name, place = options.name, trained.place_of(options.results_dir)
    listed = list(rows(options.results_dir))
    found = [r for r in listed if trained.is_named(name, r.folder, r.run, options.results_dir)]
    if not found:
        of = f"{len(listed)} runs in {place} has {name} in its name"
        raise FlagError(f"none of the {of}." if listed else f"no runs in {place}.")
    found.sort(key=lambda row: row.when, reverse=True)
    shown = found if options.all else found[:20]
    width = max(len(row.run) for row in shown)
    print(f"{'run':{width}}  {'state':22}  {'accuracy':>16}  {'left':8}  folder")
    for row in shown:
        line = f"{row.run:{width}}  {row.state:22}  {row.accuracy:>16}  {row.left:8}"
        print(f"{line}  {row.folder.relative_to(place)}")
    if len(shown) < len(found):
        print(f"{len(found) - len(shown)} older runs: add --all.")
    return DONE


def rows(results_dir: str = "") -> Iterator[Row]:
    """The runs of a results folder, or of every one under `results/`."""
    for file in trained.record_files(results_dir):
        try:
            yield _finished(file.parents[1], records.read(file))
        except (RecordMismatch, KeyError, TypeError):
            yield Row(file.parents[1], file.stem, "record is damaged", "", "", "")
    pattern = "checkpoints/*/" if results_dir else "**/checkpoints/*/"
    for folder in sorted(trained.place_of(results_dir).glob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # the run has just finished, or has none yet
            yield _unfinished(folder)


def _finished(folder: Path, record: dict) -> Row:
    test = record["test"]
    best = test.get("ensemble") or next(iter(test["peers"].values()))
    percent = best.get("accuracy", best.get("mAP"))
    name = "mAP" if "mAP" in best else "test"
    accuracy = f"{name} {100 * percent:.2f}%"
    return Row(folder, record["run_id"], "done", accuracy, "", record["finished"])


def _unfinished(folder: Path) -> Row:
    run = RunFiles(folder.parents[1], folder.name)
    try:
        progress, file = _state(folder)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return Row(run.folder, run.run_id, "checkpoint is damaged", "", "", "")
    done, epochs = progress["epoch"], progress.get("epochs", 0)
    state = "training" if _is_held(run.lock()) else "interrupted"
    left = duration(progress["wall_clock_s"] / done * (epochs - done)) if epochs and done else ""
    of = f"/{epochs}" if epochs else ""
    when = str(np.datetime64(int(file.stat().st_mtime), "s"))
    watched = "test" if progress["config"].get("watch_test") else "validation"
    accuracy = _accuracy(progress["history"], watched)
    return Row(run.folder, run.run_id, f"{state}, epoch {done}{of}", accuracy, left, when)


def _state(folder: Path) -> tuple[dict, Path]:
    """The newest state of a checkpoint, and its file; while that is written, the one before."""
    for name in (STATE, PREVIOUS, STATE):
        with contextlib.suppress(FileNotFoundError):
            return json.loads(str(read_npz(folder / name, ("state",))["state"])), folder / name
    raise FileNotFoundError(folder)


def _accuracy(history: dict[str, list[float]], watched: str) -> str:
    """The latest accuracy of the best network, on the images that are measured each epoch."""
    for part, prefix in ((watched, "val_"), ("train", "")):
        latest = [
            values[-1]
            for name, values in history.items()
            if name.startswith(prefix) and name.endswith("_accuracy")
        ]
        if latest:
            return f"{part} {100 * max(latest):.2f}%"
    return ""


def _is_held(lock: Path) -> bool:
    """Whether a process trains the run."""
    if not lock.exists():
        return False
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
