"""Writes what `benchmarks/accelerator.sh` needs on a borrowed machine. TensorFlow must be here."""

import dataclasses
import json
import lzma
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator.inputs import PHOTOGRAPHS, PLAN, RUNS, TIMES, Inputs
from benchmarks.accelerator.planning import METHODS, PRECISIONS, SMOKE, Plan
from dml_tf.errors import FlagError, RunFailed
from dml_tf.export.__main__ import main as export
from dml_tf.export.folder import IMAGES, STATE

# Bytes in all. 64 MiB travel at once: the repository, 13 MB, this, and what OUT holds.
_MOST = 50_000_000
_SMALL = 5000  # images


def prepare(folder: Path, data_dir: Path | None, photographs: Path | None, smoke: bool = False):
    """Writes the programs to be timed, the runs to be trained, and the photographs.

    Args:
        folder: Where to write.
        data_dir: Folder with CIFAR-10 in its official layout.
        photographs: The JPEG copy's archive, which travels.
        smoke: Tiny networks on digits, with their images in the runs' folders.

    Raises:
        FlagError: A place is missing.
        RuntimeError: An export failed, or all is larger than 50 MB.
    """
    plan = SMOKE if smoke else Plan()
    if not smoke and not (data_dir and photographs):
        raise FlagError("--prepare needs --data_dir and --photographs.")
    flags = [f"--data_dir={data_dir}", "--dataset=cifar10"]
    if smoke:
        flags = "--dataset=digits --image_size=8 --batch_size=16 --train_images=64 --epochs=2"
        flags = flags.split()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _times(plan, flags, Path(scratch), folder / TIMES)
        _runs(plan, flags, Path(scratch), folder, smoke)
    if photographs:
        shutil.copyfile(photographs, folder / PHOTOGRAPHS)
    (folder / PLAN).write_text(json.dumps(dataclasses.asdict(plan)) + "\n")
    size = Inputs(folder).size
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > _MOST:
        raise RunFailed(f"{folder} is larger than {_MOST / 1e6:.0f} MB.")


def _times(plan: Plan, flags: Sequence[str], scratch: Path, archive: Path):
    place = scratch / "times"
    for name, step in {step.name: step for step in plan.steps}.items():
        _write(
            *flags, f"--net={step.net}", f"--cohort={step.peers}", f"--method={step.method}",
            f"--precision={PRECISIONS[step.precision][0]}", place / name,
        )  # fmt: skip
        (place / name / IMAGES).unlink()
        (place / name / STATE).unlink()
    _pack(scratch, sorted(place.rglob("*")), archive)
    shutil.rmtree(place)


def _runs(plan: Plan, flags: Sequence[str], scratch: Path, folder: Path, smoke: bool):
    """The runs of a seed share their initial weights, which the seed's archive has once.

    The programs are in an archive of their own: a run whose state is in OUT needs nothing else.
    """
    sets = {"full": [], "small": ["--train_images=48" if smoke else f"--train_images={_SMALL}"]}
    for name, own in sets.items():
        for method in METHODS:
            seeds = ",".join(map(str, range(plan.seeds[name])))
            made = scratch / f"{name}-{method}"
            _write(
                *flags, *own, f"--net={plan.nets[0]}", "--cohort=2", f"--method={method}",
                f"--seeds={seeds}", made,
            )  # fmt: skip
            for run in made.iterdir():
                place = scratch / run.name / made.name
                place.parent.mkdir(exist_ok=True)
                run.rename(place)
                if not smoke:
                    (place / IMAGES).unlink()
            made.rmdir()
    files = sorted(scratch.glob("seed*/*/*"))
    _pack(scratch, [file for file in files if file.name != STATE], folder / RUNS)
    for seed in range(max(plan.seeds.values())):
        states = sorted(scratch.glob(f"seed{seed}/*/{STATE}"))
        _pack(scratch, states, Inputs(folder).states(seed))


def _write(*arguments):
    """Exports, in this process: TensorFlow starts once."""
    if export(["write", "--overwrite", *map(str, arguments)]):
        raise RunFailed("the export failed")


def _pack(root: Path, files: Sequence[Path], archive: Path):
    """One archive, whose window reaches from a file to the next, so that equal parts count once."""
    window = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}
    with lzma.open(archive, "wb", filters=[window]) as stream:
        with tarfile.open(fileobj=stream, mode="w") as packed:
            for file in files:
                if file.is_file() and file.name != ".lock":
                    packed.add(file, file.relative_to(root).as_posix())
