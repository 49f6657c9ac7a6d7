"""Processes killed in every phase: before each change of the disk, in half a write, at any time.

And disks that fail in the same phases, at each change or when they are full.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dml_tf.atomic import write_whole
from dml_tf.data.generated import pedestrians
from dml_tf.errors import exit_status
from dml_tf.runs import config, files, records
from tests.disk import FailingDisk, check_failure, small_disk

RUN = {"dataset": "digits", "net": "resnet8:2", "cohort": 2, "image_size": 8, "batch_size": 16,
       "train_images": 32, "dropout": 0.3, "epochs": 3, "analyse": True,
       "save_minutes": 0}  # fmt: skip
_TIMES = (
    "finished",
    "wall_clock_s",
    "cpu_s",
    "images_per_s",
    "weights_sha256",
)  # differ in each run


class KillingDisk(FailingDisk):
    """A disk whose n-th change, of which half is done, kills this process."""

    def fail(self, place: str):
        """Ends the process where it is."""
        os.kill(os.getpid(), signal.SIGKILL)


class Phase(NamedTuple):
    """What a process is killed in.

    Attributes:
        command: Changes a folder; a second call finishes what a killed one began.
        result: What must be the same in the end, of a folder.
        start: Fills the folder in which the command starts.
    """

    command: Callable[[Path], object]
    result: Callable[[Path], object]
    start: Callable[[Path], object] = lambda folder: None


def contents(folder: Path) -> dict[str, str]:
    """Name -> hash of the files that a folder shows."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def trained(folder: Path) -> dict:
    """Records without their times, and the models' weights, of a results folder."""
    found = {}
    for file in folder.glob("runs/*.json"):
        record = records.read(file)
        found[file.name] = {k: v for k, v in record.items() if k not in _TIMES}
    for file in folder.glob("models/*.keras"):
        with zipfile.ZipFile(file) as archive:
            found[file.name] = _arrays(archive)
    assert not list(folder.glob("checkpoints/*")), "a checkpoint is left"
    return found


def _arrays(archive: zipfile.ZipFile) -> dict[str, bytes]:
    import h5py

    found = {}
    with archive.open("model.weights.h5") as stream, h5py.File(stream, "r") as weights:
        weights.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def _train(folder: Path):
    from dml_tf.runs import train

    train.run(config.load(**RUN, results_dir=str(folder)), verbose=0)


def _draw(folder: Path):
    pedestrians.ensure(folder / "people", pedestrians.Sizes(0, 2, 1, distractors=1, junk=1))


def _record(folder: Path):
    records.write({"run_id": "a", "test": list(range(3000))}, folder / "runs" / "a.json")


def _old_record(folder: Path):
    records.write({"run_id": "a", "test": [0]}, folder / "runs" / "a.json")


def _report(folder: Path):
    from dml_tf.paper import page
    from dml_tf.paper.scales import BY_NAME

    page.write(BY_NAME["mini"], folder, ["table2", "table3"])


def _state(folder: Path):
    file = folder / "state.npz"
    done = files.load_state(file)[0]["epoch"] if file.exists() else 0
    for epoch in range(done, 4):
        files.save_state(file, {"epoch": epoch + 1}, [np.full(5000, epoch)])


def _read_state(folder: Path):
    progress, arrays = files.load_state(folder / "state.npz")
    return progress, [array.tolist() for array in arrays]


def _bring(folder: Path):
    for i in range(5):
        with write_whole(folder / "models" / f"{i}.keras") as part:
            part.write_bytes(b"%d" % i * 50_000)


def _sweep(folder: Path):
    from dml_tf.paper import run_all

    flags = ["--scale=smoke", "--only=section31", "--seeds=1", "--jobs=1"]
    assert run_all.main([*flags, f"--results_dir={folder}"]) == 0


def _export(folder: Path):
    flags = [f"--{name}={value}" for name, value in RUN.items() if name != "analyse"]
    command = [sys.executable, "-m", "dml_tf.export", "write", *flags, str(folder / "step")]
    subprocess.run(command, check=True, capture_output=True)


def _run_export(folder: Path):
    from dml_tf.export import __main__ as export
    from dml_tf.export import run

    run._SAVE_S = 0  # each step is saved
    assert export.main(["run", str(folder / "step"), "--dispatch=0"]) == 0


def _exported_state(folder: Path):
    progress, arrays = files.load_state(folder / "step" / "state.npz")
    return progress["step"], progress["history"], [array.tobytes() for array in arrays]


def _people(folder: Path):
    sizes = pedestrians.Sizes(0, 3, 2, distractors=1, junk=1)
    pedestrians.write(folder / "people", sizes)


def _evaluate(folder: Path):
    from dml_tf.runs import train

    asked = config.load(
        dataset="market1501", net="resnet8:2", image_size=(16, 8), batch_size=4, steps=1,
        data_dir=str(folder / "people"), results_dir=str(folder / "results"),
        features_out=str(folder / "features.npz"),
    )  # fmt: skip
    train.run(asked, verbose=0)


def _features(folder: Path):
    with np.load(folder / "features.npz") as found:
        return trained(folder / "results"), {name: found[name].tobytes() for name in found}


PHASES = {
    "checkpoint": Phase(_state, _read_state),
    "record": Phase(_record, contents, start=_old_record),
    "report": Phase(_report, contents),
    "stand-ins drawn": Phase(_draw, contents),
    "files brought": Phase(_bring, contents),
}
TRAINING = Phase(_train, trained)  # starts TensorFlow in each process
EVALUATION = Phase(_evaluate, _features, start=_people)
SWEEP = Phase(_sweep, trained)
EXPORTED = Phase(_run_export, _exported_state, start=_export)


def kill(count: int) -> Counter:
    """Kills processes that write files, before and in the middle of their changes.

    Args:
        count: How many, spread over the phases.

    Returns:
        How often each phase was killed; in the end its result was always the same.
    """
    import dml_tf.paper.page  # noqa: F401  once, before the forks

    ends = Counter()
    for i, (name, phase) in enumerate(PHASES.items()):
        share = count // len(PHASES) + (i < count % len(PHASES))
        with tempfile.TemporaryDirectory() as root:
            ends[f"in {name}"] += _at_changes(phase, Path(root), share, _kill_at)
    return ends


def kill_training(count: int) -> Counter:
    """Kills a run before its changes of the disk, and the rest at random times."""
    import dml_tf.runs.train  # noqa: F401  once, before the forks

    with tempfile.TemporaryDirectory() as root:
        at_changes = _at_changes(TRAINING, Path(root) / "changes", count, _kill_at)
        at_times = _at_times(TRAINING, Path(root) / "times", count - at_changes)
    return Counter({"at changes of the disk": at_changes, "at random times": at_times})


def kill_sweep(count: int) -> Counter:
    """Kills `run_all.sh` at random times; the same command does the rest."""
    with tempfile.TemporaryDirectory() as root:
        return Counter({"in a sweep": _at_times(SWEEP, Path(root), count)})


def kill_export(count: int) -> Counter:
    """Kills an exported run before its changes of the disk."""
    with tempfile.TemporaryDirectory() as root:
        return Counter({"in an exported run": _at_changes(EXPORTED, Path(root), count, _kill_at)})


def fail_disks(count: int) -> Counter:
    """Fails the n-th change of the disk, for many n, in a run; and fills small disks.

    Args:
        count: How many failures of each kind at most.

    Returns:
        How often each kind failed in words; the same command then had the same result.
    """
    import dml_tf.runs.train  # noqa: F401  once, before the forks

    ends = Counter()
    with tempfile.TemporaryDirectory() as root:
        for name, phase in {"training": TRAINING, "evaluation": EVALUATION}.items():
            ends[f"at changes in {name}"] = _at_changes(phase, Path(root) / name, count, _fail_at)
        with contextlib.suppress(PermissionError):
            ends["on small disks in training"] = _on_small_disks(
                TRAINING, Path(root), min(count, 12)
            )
    return ends


def _kill_at(phase: Phase, folder: Path, moment: int):
    status = _in_child(lambda: _on(KillingDisk(folder, moment), phase, folder))
    assert status == -signal.SIGKILL, (moment, status)


def _fail_at(phase: Phase, folder: Path, moment: int):
    assert _in_child(lambda: _fails(phase, folder, FailingDisk(folder, moment))) == 0, moment


def _fails(phase: Phase, folder: Path, disk: contextlib.AbstractContextManager):
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), disk:
        status = exit_status("command", lambda: phase.command(folder))
    _, found, rest = stderr.getvalue().rpartition("command: ")
    check_failure(folder, status, found + rest)


def _on_small_disks(phase: Phase, root: Path, count: int) -> int:
    """Fills disks of so many sizes; with more room the same command goes on."""
    expected, _, _ = _uninterrupted(phase, root / "roomy")
    used = sum(file.stat().st_size for file in (root / "roomy").rglob("*") if file.is_file())
    for number in range(count):
        kilobytes = 8 + number * (used // 1024) // count
        with small_disk(root / f"small{number}", f"{kilobytes}k") as resize:
            folder = root / f"small{number}"
            failed = _in_child(lambda f=folder: _fails(phase, f, contextlib.nullcontext()))
            assert failed == 0, kilobytes
            resize("50m")
            _finish(phase, folder, expected, kilobytes)
    return count


def _at_changes(
    phase: Phase, root: Path, most: int, fault: Callable[[Phase, Path, int], None]
) -> int:
    """Makes a phase meet a fault at up to `most` of its changes, each followed by a whole one."""
    expected, changes, _ = _uninterrupted(phase, root)
    moments = _moments(changes, most)
    for moment in moments:
        folder = _fresh(phase, root / "killed")
        fault(phase, folder, moment)
        _finish(phase, folder, expected, moment)
    return len(moments)


def _moments(changes: Sequence[str], most: int) -> Sequence[int]:
    """Up to `most` changes, counted from 1; of many in a row in one file a few, where not all."""
    moments = range(1, len(changes) + 1)
    if len(changes) > most:
        rows = [list(row) for _, row in itertools.groupby(moments, lambda n: changes[n - 1])]
        moments = [n for row in rows for n in {*row[:3], row[len(row) // 2], *row[-3:]}]
    if len(moments) > most:
        moments = random.Random(0).sample(moments, most)
    return sorted(moments)


def _at_times(phase: Phase, root: Path, count: int) -> int:
    """Kills up to three processes one after the other, then lets one end."""
    if not count:
        return 0
    expected, _, seconds = _uninterrupted(phase, root)
    draw, killed = random.Random(0), 0
    while killed < count:
        folder = _fresh(phase, root / "killed")
        for _ in range(3):
            status = _in_child(lambda f=folder: phase.command(f), draw.uniform(0, seconds))
            assert status in (0, -signal.SIGKILL), status
            killed += status != 0
        _finish(phase, folder, expected, killed)
    return killed


def _uninterrupted(phase: Phase, root: Path) -> tuple[object, list[str], float]:
    """The result of a phase that nobody kills, the file of each change, and its seconds."""
    folder, noted = _fresh(phase, root / "whole"), root / "changes.json"
    started = time.monotonic()
    disk = FailingDisk(folder, float("inf"))

    def whole():
        _on(disk, phase, folder)
        noted.write_text(json.dumps(disk.changes))

    assert _in_child(whole) == 0
    return phase.result(folder), json.loads(noted.read_text()), time.monotonic() - started


def _finish(phase: Phase, folder: Path, expected: object, moment: int):
    assert _in_child(lambda: phase.command(folder)) == 0, moment
    assert phase.result(folder) == expected, moment
    assert not list(folder.rglob(".part*")), (moment, list(folder.rglob(".part*")))


def _fresh(phase: Phase, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    phase.start(folder)
    return folder


def _on(disk: FailingDisk, phase: Phase, folder: Path):
    with disk:
        phase.command(folder)


def _in_child(call: Callable[[], object], seconds: float | None = None) -> int:
    """Status of a forked process that makes a call; it is killed after some seconds, if given."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            call()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
