"""The folder that `benchmarks/accelerator.sh --prepare` writes, as it is on a borrowed machine."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np

from benchmarks.accelerator.planning import Plan, Step
from dml_tf.export.folder import NOT_FINITE, STATE, Export

INPUTS = Path("exported/accelerator")
PHOTOGRAPHS = "cifar10_jpeg.tar.xz"
PLAN, TIMES, RUNS = "plan.json", "times.tar.xz", "runs.tar.xz"


class Inputs:
    """The folder that `--prepare` wrote, and a folder beside it where it is unpacked.

    Args:
        folder: With `plan.json`, `times.tar.xz`, `runs.tar.xz`, the photographs' archive, and the
            initial states in `seed<k>.tar.xz`. Seeds may be missing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder.with_name(folder.name + ".work")

    @property
    def plan(self) -> Plan:
        """What there is to do."""
        file = self.folder / PLAN
        if not file.is_file():
            raise FileNotFoundError(f"There is no {file}: write it with --prepare={self.folder}.")
        return Plan(**json.loads(file.read_text()))

    @property
    def data_flags(self) -> list[str]:
        """Where a run finds its images."""
        file = self.folder / PHOTOGRAPHS
        return [f"--data_dir={file}"] if file.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes that measure and train: compiled programs are kept for the next one."""
        return {"JAX_COMPILATION_CACHE_DIR": str(self.work / "compiled")} | os.environ

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())

    def program(self, step: Step) -> Path:
        """The exported step of a cohort, without images or state."""
        return self.work / "times" / step.name

    def run(self, name: str, method: str, seed: int) -> Path:
        """The exported run of a set, a method and a seed; without a state if that is missing."""
        return self.work / f"seed{seed}" / f"{name}-{method}"

    def states(self, seed: int) -> Path:
        """The archive with the initial states of a seed's runs."""
        return self.folder / f"seed{seed}.tar.xz"

    def unpack(self, out=None):
        """Unpacks what is there; a run continues from the state in OUT if that is further."""
        self.work.mkdir(parents=True, exist_ok=True)
        for archive in sorted(self.folder.glob("*.tar.xz")):
            marker = self.work / f".{archive.name}"
            if archive.name != PHOTOGRAPHS and not marker.exists():
                with tarfile.open(archive) as packed:
                    # Before Python 3.11.4 there is no filter; the archives are our own.
                    packed.extraction_filter = getattr(tarfile, "data_filter", None)
                    packed.extractall(self.work)
                marker.touch()
        if out is not None:
            out.unpack(self)


def steps_done(run: Path) -> int:
    """Steps that the state of a run has done; -1 without a state."""
    if not (run / STATE).exists():
        return -1
    with np.load(run / STATE) as saved:
        return json.loads(str(saved["state"]))["step"]


def is_finished(run: Path) -> bool:
    """Whether a run is at its end."""
    return steps_done(run) == Export.read(run).schedule.steps


def is_not_finite(run: Path) -> bool:
    """Whether a run's loss was no number when it was last trained."""
    return (run / NOT_FINITE).exists()
