"""What `benchmarks/accelerator.sh` measures and trains, in which order, and its inputs."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dml_tf.errors import CUT, DONE
from dml_tf.export.folder import STATE, Export

INPUTS = Path("exported/accelerator")
PHOTOGRAPHS = "cifar10_jpeg.tar.xz"
PLAN, TIMES = "plan.json", "times.tar.xz"
WAYS = ("batched", "calls", "processes")
# Name in the tables -> what the run's flags are, and the precision of products.
PRECISIONS = {
    "tf32": ("float32", "default"),
    "bfloat16": ("mixed_bfloat16", "default"),
    "float32": ("float32", "highest"),
}
METHODS = ("dml", "independent")
ENOUGH = 3.0  # times the images/s of one run


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        nets: Networks whose steps are timed; the first one is trained.
        cohorts: Numbers of peers.
        together: Numbers of runs at once.
        precisions: Of `PRECISIONS`.
        seeds: Set of runs -> its seeds. `full` is the whole schedule on all photographs, `small`
            the same on a part of them.
        seconds: Length of a measurement.
    """

    nets: tuple[str, ...] = ("resnet32", "mobilenet", "wrn-28-10")
    cohorts: tuple[int, ...] = (2, 1, 4)
    together: tuple[int, ...] = (1, 2, 4, 8, 16)
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    seeds: dict[str, int] = dataclasses.field(default_factory=lambda: {"full": 4, "small": 10})
    seconds: float = 4.0

    @property
    def first_run(self) -> tuple[str, str, int]:
        """The run that is checked."""
        return "full", METHODS[0], 0


SMOKE = Plan(("resnet8:4",), (2,), (1, 2), ("tf32",), {"full": 2, "small": 2}, 0.2)


class Inputs:
    """The folder that `--prepare` wrote, and a folder beside it where it is unpacked.

    Args:
        folder: With `plan.json`, `times.tar.xz`, `seed<k>.tar.xz` and the photographs' archive.
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

    def program(self, net: str, peers: int, precision: str) -> Path:
        """The exported step of a cohort, without images or state."""
        return self.work / "times" / f"{net}-k{peers}-{PRECISIONS[precision][0]}"

    def run(self, name: str, method: str, seed: int) -> Path:
        """The exported run of a set, a method and a seed."""
        return self.work / f"seed{seed}" / f"{name}-{method}"

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


def time_pieces(inputs: Inputs, rows: Sequence[dict]) -> Iterator[dict]:
    """Measurements that are missing, the most wanted first.

    The first network's pair is measured in all ways. The others, and the other precisions, are
    measured in the way that was fastest there.
    """
    plan = inputs.plan
    done = [{name: row[name] for name in ("net", "peers", "precision", "together", "way")}
            for row in rows]  # fmt: skip
    stopped = {(r["net"], r["peers"], r["precision"], r["way"]) for r in rows if "failed" in r}
    for net in plan.nets:
        for peers in plan.cohorts:
            for precision in plan.precisions:
                first = (net, peers, precision) == (plan.nets[0], plan.cohorts[0], "tf32")
                ways = WAYS if first else [_fastest_row(rows, plan)["way"]]
                for together in plan.together:
                    for way in ways if together > 1 else ["calls"]:
                        piece = {"net": net, "peers": peers, "precision": precision,
                                 "together": together, "way": way}  # fmt: skip
                        if piece not in done and (net, peers, precision, way) not in stopped:
                            yield piece


def torch_pieces(inputs: Inputs, rows: Sequence[dict]) -> Iterator[dict]:
    """Measurements in PyTorch that are missing."""
    done = [(row["net"], row["peers"], row["precision"]) for row in rows]
    for net in inputs.plan.nets:
        for peers in inputs.plan.cohorts:
            for precision in ("bfloat16", "tf32"):
                if (net, peers, precision) not in done:
                    yield {"net": net, "peers": peers, "precision": precision}


def result_of(ended: subprocess.CompletedProcess) -> dict:
    """The numbers that a measurement printed, or the last line of what went wrong."""
    lines = (ended.stdout if ended.returncode == DONE else ended.stderr).strip().splitlines()
    if ended.returncode == DONE:
        return json.loads(lines[-1])
    return {"failed": "out of time" if ended.returncode == CUT else (lines or ["no reason"])[-1]}


def _fastest_row(rows: Sequence[dict], plan: Plan) -> dict:
    """The most images/s of the first network's pair with several runs, or of the first way."""
    pair = [
        row for row in rows
        if (row["net"], row["peers"], row["precision"])
        == (plan.nets[0], plan.cohorts[0], "tf32")
        and row["together"] > 1 and "failed" not in row
    ]  # fmt: skip
    return max(pair, key=lambda row: row["images_per_s"], default={"way": WAYS[0], "together": 4})


def fastest(plan: Plan, record: dict) -> tuple[str, int]:
    """The way to train, and how many runs at once."""
    row = _fastest_row(record.get("times", []), plan)
    return row["way"], row["together"]


def gain(plan: Plan, record: dict, together: int = 4) -> float:
    """Images/s of several runs of the first pair at once, in units of one run's; 0 if unknown."""
    rows = [
        row for row in record.get("times", [])
        if (row["net"], row["peers"], row["precision"])
        == (plan.nets[0], plan.cohorts[0], "tf32") and "failed" not in row
    ]  # fmt: skip
    one = [row["images_per_s"] for row in rows if row["together"] == 1]
    many = [row["images_per_s"] for row in rows if row["together"] == together]
    return max(many) / one[0] if one and many else 0.0


def groups(plan: Plan, record: dict, together: int) -> Iterator[list[tuple[str, str, int]]]:
    """Runs in the order of their training, as (set, method, seed), those of a list at once.

    All seeds of the full schedule, if four runs at once are three times as fast as one; else first
    the smaller set, and then one seed of the full one.
    """
    if "sets" not in record:  # decided once
        fast = gain(plan, record) >= ENOUGH
        record["sets"] = [["full", plan.seeds["full"]]] if fast else [
            ["small", plan.seeds["small"]], ["full", 1],
        ]  # fmt: skip
    at_once = min(
        together, 6
    )  # whose unfinished states fit into OUT, and into a next call's inputs
    for name, seeds in record["sets"]:
        for first in range(0, seeds, at_once):
            for method in METHODS:
                yield [(name, method, seed) for seed in range(first, min(first + at_once, seeds))]


def machine() -> dict:
    """The machine and its packages, as JAX sees them in a process of its own."""
    code = "import jax; print(jax.devices()[0].device_kind, '|', jax.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    kind, _, version = found.stdout.strip().rpartition("|")
    return {
        "machine": f"{kind.strip()}, {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "jax": version.strip()},
    }  # fmt: skip


def table(record: dict) -> str:
    """What was measured, as Markdown."""
    columns = ("network", "K", "precision", "runs", "way", "step, ms", "images/s", "compiling, s")
    lines = [columns, ["---:"] * len(columns)]
    for name in ("times", "pytorch"):
        for row in record.get(name, []):
            head = [row["net"], row["peers"], row["precision"], row.get("together", 1)]
            way = row.get("way", "PyTorch")
            if "failed" in row:
                lines.append([*head, way, row["failed"][:60], "", ""])
            else:
                numbers = 1000 * row["step_s"], row["images_per_s"], row["compile_s"]
                lines.append([*head, way, *(f"{n:.1f}" for n in numbers)])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
