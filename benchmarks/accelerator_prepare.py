"""Writes what `benchmarks/accelerator.sh` needs on a borrowed machine. TensorFlow must be here."""

import dataclasses
import json
import lzma
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator_plan import (
    METHODS,
    PHOTOGRAPHS,
    PLAN,
    PRECISIONS,
    SMOKE,
    TIMES,
    Plan,
)
from dml_tf.errors import FlagError
from dml_tf.export.__main__ import main as export
from dml_tf.export.folder import IMAGES, STATE

_MOST = 60_000_000  # bytes in all
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
        RuntimeError: An export failed, or all is larger than 60 MB.
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
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > _MOST:
        raise RuntimeError(f"{folder} is larger than {_MOST / 1e6:.0f} MB.")


def _times(plan: Plan, flags: Sequence[str], scratch: Path, archive: Path):
    place = scratch / "times"
    for net in plan.nets:
        for peers in plan.cohorts:
            for precision in sorted({PRECISIONS[name][0] for name in plan.precisions}):
                step = place / f"{net}-k{peers}-{precision}"
                _write(
                    *flags, f"--net={net}", f"--cohort={peers}", f"--precision={precision}", step
                )
                (step / IMAGES).unlink()
                (step / STATE).unlink()
    _pack(scratch, [place], archive)
    shutil.rmtree(place)


def _runs(plan: Plan, flags: Sequence[str], scratch: Path, folder: Path, smoke: bool):
    """The runs of a seed share their initial weights, which an archive has once."""
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
    for seed in sorted(scratch.glob("seed*")):
        _pack(scratch, [seed], folder / f"{seed.name}.tar.xz")


def _write(*arguments):
    """Exports, in this process: TensorFlow starts once."""
    if export(["write", "--overwrite", *map(str, arguments)]):
        raise RuntimeError("The export failed.")


def _pack(root: Path, places: Sequence[Path], archive: Path):
    """One archive, whose window reaches from a run to the next, so that equal parts count once."""
    window = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}
    with lzma.open(archive, "wb", filters=[window]) as stream:
        with tarfile.open(fileobj=stream, mode="w") as packed:
            for place in places:
                for file in sorted(place.rglob("*")):
                    if file.is_file() and file.name != ".lock":
                        packed.add(file, file.relative_to(root).as_posix())
