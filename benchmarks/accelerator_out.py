"""The folder that comes back from a borrowed machine: at most 8 files of 16 MB."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

from benchmarks import accelerator_plan
from benchmarks.accelerator_plan import METHODS, Inputs
from dml_tf.atomic import write_text, write_whole
from dml_tf.errors import RunFailed
from dml_tf.export.folder import STATE

_MOST_FILE, _MOST_PACKS = 15_900_000, 6  # record.json and log.txt are two more
_ATTEMPTS = 2  # of a piece that a whole call is too short for


class Out:
    """The record, the log and the states of runs.

    Args:
        folder: OUT of the command; it is made.

    Attributes:
        record: What was measured and what is done; `save` writes it.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "log.txt"
        file = folder / "record.json"
        self.record: dict = json.loads(file.read_text()) if file.exists() else {}

    def save(self):
        """Writes the record."""
        write_text(self.folder / "record.json", json.dumps(self.record, indent=1) + "\n")

    def say(self, text: str):
        """Prints, and writes to the log."""
        print(text, flush=True)
        with self.log.open("a") as log:
            log.write(text + "\n")

    def count_attempt(self, table: str, piece: dict) -> bool:
        """Counts a piece that the time was too short for; whether to give it up."""
        attempts = self.record.setdefault("attempts", {})
        key = f"{table} {sorted(piece.items())}"
        attempts[key] = attempts.get(key, 0) + 1
        return attempts[key] >= _ATTEMPTS

    def note(self, name: str, method: str, seed: int, state: str):
        """Keeps what became of a run: `trained`, `failed` or `collected`."""
        self.record.setdefault("runs", {})[f"seed{seed}/{name}-{method}"] = state

    def is_done(self, name: str, method: str, seed: int) -> bool:
        """Whether a run needs no more training."""
        return f"seed{seed}/{name}-{method}" in self.record.get("runs", {})

    def pack(self, inputs: Inputs):
        """Writes the states of the runs that have begun and are not collected, a few to a file."""
        collected = [n for n, state in self.record.get("runs", {}).items() if state == "collected"]
        packs: list[list[tuple[str, bytes]]] = [[]]
        for run in sorted(inputs.work.glob("seed*/*-*")):
            name = run.relative_to(inputs.work).as_posix()
            if name in collected or accelerator_plan.steps_done(run) < 1:
                continue
            content = (run / STATE).read_bytes()
            if packs[-1] and sum(len(c) + 2048 for _, c in packs[-1]) + len(content) > _MOST_FILE:
                packs.append([])
            packs[-1].append((f"{name}/{STATE}", content))
        if len(packs) > _MOST_PACKS or any(len(c) > _MOST_FILE for p in packs for _, c in p):
            self.say(f"OUT is full: take trained runs out with --collect. {inputs.work} has all.")
            return
        for i, files in enumerate(packs):
            with write_whole(self.folder / f"states-{i}.tar") as part:
                _write_tar(part, files)
        for stale in set(self.folder.glob("states-*.tar")) - {
            self.folder / f"states-{i}.tar" for i in range(len(packs))
        }:
            stale.unlink()

    def unpack(self, inputs: Inputs):
        """Takes over the states that are further than those on this machine."""
        for pack in sorted(self.folder.glob("states-*.tar")):
            with tarfile.open(pack) as packed:
                for member in packed.getmembers():
                    run = inputs.work / Path(member.name).parent
                    fresh = run / ("fresh-" + STATE)
                    if not run.is_dir() or ".." in member.name:
                        raise RunFailed(f"{pack} has a run that {inputs.folder} has not: {run}.")
                    fresh.write_bytes(packed.extractfile(member).read())
                    before = accelerator_plan.steps_done(run)
                    older = run / STATE
                    saved = older.read_bytes() if before >= 0 else b""
                    os.replace(fresh, older)
                    if accelerator_plan.steps_done(run) < before:
                        older.write_bytes(saved)


def _write_tar(file: Path, files: list[tuple[str, bytes]]):
    with tarfile.open(file, "w") as packed:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


def collect(inputs: Inputs, out: Out, folder: Path):
    """Takes the trained runs out of OUT, which then has place for others.

    Args:
        inputs: What `--prepare` wrote.
        out: What came back.
        folder: Where each run gets a folder that `python -m dml_tf.export import` reads.
    """
    inputs.unpack(out)
    for seed in range(max(inputs.plan.seeds.values())):
        for name in inputs.plan.seeds:
            for method in METHODS:
                run, place = inputs.run(name, method, seed), folder / f"seed{seed}-{name}-{method}"
                if accelerator_plan.steps_done(run) > 0 and accelerator_plan.is_finished(run):
                    shutil.copytree(run, place, dirs_exist_ok=True)
                    out.note(name, method, seed, "collected")
                    print(f"python -m dml_tf.export import {place}")
    out.pack(inputs)
    out.save()
