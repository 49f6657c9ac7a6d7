"""The folder that comes back from a borrowed machine: at most 8 files of 16 MB, 64 MiB in all."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator.inputs import Inputs, is_finished, steps_done
from benchmarks.accelerator.planning import METHODS, RUN
from dml_tf.atomic import write_text, write_whole
from dml_tf.errors import RunFailed
from dml_tf.export.folder import STATE

_MOST, _MOST_FILE, _MOST_PACKS = 64 << 20, 15_900_000, 4
_GROWS = 1_000_000  # bytes that the record and the log may still grow by
FULL = "OUT is full: collect first. Where TensorFlow is, --collect=FOLDER takes trained runs out."
_HEAD = 2048  # bytes of a member's header and end in a tar file
Pack = list[tuple[str, Path]]  # names in the archive, and files


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

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def save(self):
        """Writes the record."""
        write_text(self.folder / "record.json", json.dumps(self.record, indent=1) + "\n")

    def say(self, text: str):
        """Prints, and writes to the log."""
        print(text, flush=True)
        with self.log.open("a") as log:
            log.write(text + "\n")

    def note(self, run: RUN, state: str):
        """Keeps what became of a run: `trained`, `collected`, or `not finite`."""
        self.record.setdefault("runs", {})[_name(run)] = state

    def is_done(self, run: RUN) -> bool:
        """Whether a run needs no more training."""
        return _name(run) in self.record.get("runs", {})

    def has_room(self, inputs: Inputs, beside: Sequence[RUN]) -> bool:
        """Whether the states of all runs that have begun fit, and of some others beside them."""
        return self._fit(self._packs(inputs, [_name(run) for run in beside]))

    def pack(self, inputs: Inputs) -> bool:
        """Writes the states of the runs that have begun and are of use, a few to a file.

        Returns:
            Whether they fit. If not, OUT stays as it was.
        """
        packs = self._packs(inputs, [])
        if not self._fit(packs):
            self.say(f"{FULL} {inputs.work} has the states of all runs.")
            return False
        kept = {self.folder / f"states-{i}.tar" for i in range(len(packs))}
        for file, members in zip(sorted(kept), packs, strict=True):
            with write_whole(file) as part:
                _write_tar(part, members)
        for stale in set(self.folder.glob("states-*.tar")) - kept:
            stale.unlink()
        return True

    def _packs(self, inputs: Inputs, beside: Sequence[str]) -> list[Pack]:
        """What belongs into each file."""
        runs = self.record.get("runs", {})
        packs: list[Pack] = []
        for run in sorted(inputs.work.glob("seed*/*-*")):
            name = run.relative_to(inputs.work).as_posix()
            has_begun = steps_done(run) > 0 and runs.get(name) not in ("collected", "not finite")
            if has_begun or name in beside:
                member = (f"{name}/{STATE}", run / STATE)
                if packs and _size([*packs[-1], member]) <= _MOST_FILE:
                    packs[-1].append(member)
                else:
                    packs.append([member])
        return packs

    def _fit(self, packs: list[Pack]) -> bool:
        others = [file for file in self.folder.iterdir() if file.suffix != ".tar"]
        sizes = [_size(pack) for pack in packs]
        total = sum(sizes) + sum(file.stat().st_size for file in others) + _GROWS
        return len(packs) <= _MOST_PACKS and max(sizes, default=0) <= _MOST_FILE and total <= _MOST

    def unpack(self, inputs: Inputs):
        """Takes over the states that are further than those on this machine."""
        for pack in sorted(self.folder.glob("states-*.tar")):
            with tarfile.open(pack) as packed:
                for member in packed.getmembers():
                    run = inputs.work / Path(member.name).parent
                    if not run.is_dir() or ".." in member.name:
                        raise RunFailed(f"{pack} has a run that {inputs.folder} has not: {run}.")
                    _keep_further(run, packed.extractfile(member).read())


def _name(run: RUN) -> str:
    name, method, seed = run
    return f"seed{seed}/{name}-{method}"


def _size(pack: Pack) -> int:
    return sum(file.stat().st_size + _HEAD for _, file in pack)


def _keep_further(run: Path, content: bytes):
    """Gives a run a state, unless its own has done more steps."""
    before, state = steps_done(run), run / STATE
    saved = state.read_bytes() if before >= 0 else b""
    fresh = run / ("fresh-" + STATE)
    fresh.write_bytes(content)
    os.replace(fresh, state)
    if steps_done(run) < before:
        state.write_bytes(saved)


def _write_tar(file: Path, members: Pack):
    with tarfile.open(file, "w") as packed:
        for name, state in members:
            content = state.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


def collect(inputs: Inputs, out: Out, folder: Path):
    """Takes the trained runs out of OUT, which then has room for others.

    Args:
        inputs: What `--prepare` wrote.
        out: What came back.
        folder: Where each run gets a folder that `python -m dml_tf.export import` reads.
    """
    inputs.unpack(out)
    for run in _all_runs(inputs):
        name, method, seed = run
        place = folder / f"seed{seed}-{name}-{method}"
        if steps_done(inputs.run(*run)) > 0 and is_finished(inputs.run(*run)):
            shutil.copytree(inputs.run(*run), place, dirs_exist_ok=True)
            out.note(run, "collected")
            print(f"python -m dml_tf.export import {place}")
    out.pack(inputs)
    out.save()
    _say_what_travels(inputs, out)


def _all_runs(inputs: Inputs) -> list[RUN]:
    return [
        (name, method, seed)
        for name, seeds in inputs.plan.seeds.items()
        for seed in range(seeds)
        for method in METHODS
    ]


def _say_what_travels(inputs: Inputs, out: Out):
    """An archive has initial states only: a seed whose runs have all begun can do without it."""
    chosen = out.record.get("set", "small")
    idle = [
        inputs.states(seed).name
        for seed in range(max(inputs.plan.seeds.values()))
        if all(
            steps_done(inputs.run(*run)) > 0
            for run in _all_runs(inputs)
            if run[0] == chosen and run[2] == seed
        )
    ]
    print(f"{inputs.folder} has {inputs.size / 1e6:.1f} MB, {out.folder} {out.size / 1e6:.1f} MB.")
    print(f"Of {inputs.folder}, these need not travel again: {', '.join(idle) or 'none'}")
