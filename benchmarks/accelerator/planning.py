"""What `benchmarks/accelerator.sh` measures and trains, and in which order."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.accelerator import processes
from dml_tf.errors import CUT, DONE

WAYS = ("batched", "calls", "processes")
# Name in the tables -> what the run's flags are, and the precision of products.
PRECISIONS = {
    "tf32": ("float32", "default"),
    "bfloat16": ("mixed_bfloat16", "default"),
    "float32": ("float32", "highest"),
}
METHODS = ("dml", "independent")
RUN = tuple[str, str, int]  # set, method, seed


class Step(NamedTuple):
    """A training step that is timed.

    Attributes:
        net: The network's name.
        peers: Their number.
        method: Of `METHODS`.
        precision: Of `PRECISIONS`.
    """

    net: str
    peers: int
    method: str
    precision: str

    @property
    def name(self) -> str:
        """Name of the folder of its program, which two precisions may share."""
        return f"{self.net}-k{self.peers}-{self.method}-{PRECISIONS[self.precision][0]}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        nets: Networks whose steps are timed; the first one is trained.
        cohorts: Numbers of peers.
        precisions: Of `PRECISIONS`.
        at_once: Runs that train at once. OUT has room for two such groups, one of each method.
        more: Further numbers of runs at once, in one batched program, whose steps are timed.
        seeds: Set of runs -> its seeds. `full` is the whole schedule on all photographs, `small`
            the same on a part of them.
        seconds: Length of a measurement.
        check_s: Seconds that a comparison may take.
        piece_s: Seconds that a measurement may take, with compiling.
        least_s: Seconds that must be left when training starts, which compiles first.
    """

    nets: tuple[str, ...] = ("resnet32", "mobilenet", "wrn-28-10")
    cohorts: tuple[int, ...] = (2, 1, 4)
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    at_once: int = 4
    more: tuple[int, ...] = (16, 2, 8)
    seeds: dict[str, int] = dataclasses.field(default_factory=lambda: {"full": 4, "small": 8})
    seconds: float = 4.0
    check_s: float = 240.0
    piece_s: float = 90.0
    least_s: float = 150.0

    @property
    def steps(self) -> list[Step]:
        """The pair that is trained, and steps that differ from it in little; wanted ones first."""
        pair = Step(self.nets[0], self.cohorts[0], METHODS[0], self.precisions[0])
        return [
            pair,
            pair._replace(method=METHODS[1]),
            *(pair._replace(precision=name) for name in self.precisions[1:]),
            *(
                pair._replace(peers=peers, method=METHODS[0] if peers > 1 else METHODS[1])
                for peers in self.cohorts[1:]
            ),
            *(
                pair._replace(net=net, precision=name)
                for net in self.nets[1:]
                for name in self.precisions[:2]
            ),
        ]


SMOKE = Plan(
    ("resnet8:4",), (2,), ("tf32",), 2, (), {"full": 2, "small": 2},
    seconds=0.2, check_s=900, piece_s=900, least_s=5,
)  # fmt: skip


class Way(NamedTuple):
    """How several runs train at once.

    Attributes:
        name: Of `WAYS`.
        step_s: Measured seconds of a step of all of them, None before it is measured.
        compile_s: Likewise, of compiling.
    """

    name: str
    step_s: float | None = None
    compile_s: float | None = None


def time_pieces(plan: Plan, rows: Sequence[dict]) -> Iterator[dict]:
    """Measurements that are missing, the most wanted first.

    What a failed one has more runs of is left out.
    """
    for step, together, way in _wanted(plan, rows):
        piece = step._asdict() | {"together": together, "way": way}
        if not any(_answers(row, piece) for row in rows):
            yield piece


def _wanted(plan: Plan, rows: Sequence[dict]) -> Iterator[tuple[Step, int, str]]:
    """The pair in all ways, then each other step in the way that was fastest."""
    pair, independent, *others = plan.steps
    yield pair, 1, "calls"
    for way in WAYS:
        yield pair, plan.at_once, way
    fastest = ways(plan, rows)[0].name
    yield independent, 1, "calls"
    yield independent, plan.at_once, fastest
    for together in plan.more:
        yield pair, together, "batched"
    for step in others:
        yield step, 1, "calls"
        yield step, plan.at_once, fastest


def _answers(row: dict, piece: dict) -> bool:
    """Whether a row is the piece's, or of a smaller one of its kind that failed."""
    kind = {name: value for name, value in piece.items() if name != "together"}
    same = kind.items() <= row.items()
    smaller = "failed" in row and row["together"] < piece["together"]
    return same and (row["together"] == piece["together"] or smaller)


def torch_pieces(plan: Plan, rows: Sequence[dict]) -> Iterator[dict]:
    """Measurements in PyTorch that are missing; without its compiler where that failed."""
    for net in plan.nets:
        for peers in [peers for peers in plan.cohorts if peers <= 2]:
            for precision in ("tf32", "bfloat16"):
                kind = {"net": net, "peers": peers, "precision": precision}
                found = {row["compiled"]: row for row in rows if kind.items() <= row.items()}
                if True not in found:
                    yield kind | {"compiled": True}
                elif "failed" in found[True] and False not in found:
                    yield kind | {"compiled": False}


def result_of(ended: subprocess.CompletedProcess) -> dict:
    """The numbers that a measurement printed, or the last line of what went wrong."""
    lines = (ended.stdout if ended.returncode == DONE else ended.stderr).strip().splitlines()
    if ended.returncode == DONE:
        return json.loads(lines[-1])
    return {"failed": "out of time" if ended.returncode == CUT else (lines or ["no reason"])[-1]}


def ways(plan: Plan, rows: Sequence[dict]) -> list[Way]:
    """The ways that the pair's runs can train at once, the fastest first; all if none is known."""
    wanted = plan.steps[0]._asdict() | {"together": plan.at_once}
    found = [
        Way(row["way"], row["step_s"], row["compile_s"])
        for row in rows
        if wanted.items() <= row.items() and "failed" not in row
    ]
    return sorted(found, key=lambda way: way.step_s) or [Way(name) for name in WAYS]


def set_in_time(plan: Plan, way: Way, steps: int, seconds: float) -> str:
    """The set of runs to train.

    Args:
        plan: What there is to do.
        way: How the runs train.
        steps: Of a run of the full schedule.
        seconds: Left in all calls.

    Returns:
        `full` if all its runs can end in that time, else `small`.
    """
    if way.step_s is None:
        return "small"
    needed = (steps * way.step_s + way.compile_s) * len(list(groups(plan, "full")))
    return "full" if needed <= seconds else "small"


def groups(plan: Plan, name: str) -> Iterator[list[RUN]]:
    """The runs of a set in the order of their training, those of a list at once."""
    for first in range(0, plan.seeds[name], plan.at_once):
        for method in METHODS:
            last = min(first + plan.at_once, plan.seeds[name])
            yield [(name, method, seed) for seed in range(first, last)]


def machine() -> dict:
    """The machine and its packages, as JAX sees them in a process of its own."""
    code = "import jax; print(jax.devices()[0].device_kind, '|', jax.__version__)"
    found = processes.run([sys.executable, "-c", code], 60)
    kind, _, version = found.stdout.strip().rpartition("|")
    return {
        "machine": f"{kind.strip()}, {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "jax": version.strip()},
    }  # fmt: skip


def table(record: dict) -> str:
    """What was measured, as Markdown."""
    columns = ("network", "K", "method", "precision", "runs", "way", "step, ms", "images/s",
               "compiling, s")  # fmt: skip
    lines = [columns, ["---:"] * len(columns)]
    for name in ("times", "pytorch"):
        for row in record.get(name, []):
            method = row.get("method", METHODS[int(row["peers"] == 1)])
            head = [row["net"], row["peers"], method, row["precision"]]
            head += [row.get("together", 1), row.get("way") or _pytorch(row)]
            if "failed" in row:
                lines.append([*head, row["failed"][:60], "", ""])
            else:
                numbers = 1000 * row["step_s"], row["images_per_s"], row["compile_s"]
                lines.append([*head, *(f"{n:.1f}" for n in numbers)])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _pytorch(row: dict) -> str:
    return "PyTorch, compiled" if row["compiled"] else "PyTorch"
