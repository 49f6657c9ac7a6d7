"""How long runs take, estimated from measured steps."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from dml_tf import home
from dml_tf.data import TRAIN_IMAGES
from dml_tf.runs import records
from dml_tf.runs.config import Config

# CPU time of one thread, and the machine, as `python -m benchmarks.step_times` measured them.
MEASURED = home.shipped("results/benchmarks/step_times.json")
_START_S = 5.0  # reading data, building and tracing the networks, testing them
_FORWARD = 1 / 3  # of a step: a backward pass counts as two forward passes
CPU = ""  # the kind of machine without a GPU; other kinds are names of GPUs


class Estimate:
    """Wall-clock seconds of runs, on one thread or one GPU each.

    The measured steps give the proportions between runs. Finished and rehearsed runs, if there are
    any, give the speed of the kind of machine that they ran on: a processor, or a GPU of one name.

    Args:
        finished: Finished runs and their records.
        rehearsed: Rehearsed runs and what was measured.
        kind: The kind of machine that runs are estimated for: `CPU`, or a GPU's name.
    """

    def __init__(
        self,
        finished: Sequence[tuple[Config, dict]] = (),
        rehearsed: Sequence[tuple[Config, dict]] = (),
        kind: str = CPU,
    ):
        measured = records.read(MEASURED)
        self.machine: str = measured["machine"]
        self._step_s: Mapping[str, float] = measured["seconds"]
        took = [(run, record, record["wall_clock_s"]) for run, record in finished]
        took += [(run, record, rehearsed_seconds(record)) for run, record in rehearsed]
        ratios = defaultdict(list)
        for run, record, seconds in took:
            if expected := self._uncorrected(run):
                ratios[kind_of(record)].append(seconds / expected)
        self._corrections = {kind: statistics.median(found) for kind, found in ratios.items()}
        self.kind = kind

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of machine on which a run was measured."""
        return tuple(self._corrections)

    @property
    def measured_here(self) -> bool:
        """Whether a run was measured on the kind of machine that is estimated for."""
        return self.kind in self._corrections

    def seconds(self, run: Config, kind: str | None = None) -> float | None:
        """Seconds of one run; None if a step of one of its networks was not measured.

        Of a kind of machine on which nothing was measured, these are a processor's.
        """
        expected = self._uncorrected(run)
        asked = self.kind if kind is None else kind
        correction = self._corrections.get(asked) or self._corrections.get(CPU, 1.0)
        return expected and correction * expected

    def total(self, runs: Sequence[Config], jobs: int) -> float | None:
        """Seconds of several runs, `jobs` at a time; None if none of them can be estimated.

        A run that cannot be estimated counts as the mean of the others.
        """
        known = [seconds for seconds in map(self.seconds, runs) if seconds]
        return len(runs) * statistics.fmean(known) / jobs if known else None

    def step_s(self, run: Config) -> float | None:
        """Seconds of a step on the machine of the measured steps."""
        step_s = [self._step_s.get(key(run, net)) for net in run.net]
        return None if None in step_s else float(np.dot(step_s, _work(run)))

    def _uncorrected(self, run: Config) -> float | None:
        """Seconds of a run on the machine of the measured steps."""
        step_s = self.step_s(run)
        return step_s and _START_S + run.schedule(train_images(run)).steps * step_s


def kind_of(record: dict) -> str:
    """The kind of machine that a run's record, or a rehearsal, was measured on."""
    return next(iter(record.get("gpus", [])), CPU)


def rehearsed_seconds(rehearsal: dict) -> float:
    """Seconds of a whole run, by the steps that were rehearsed."""
    return _START_S + rehearsal["steps"] * rehearsal["step_s"]


def train_images(run: Config) -> int:
    """Training images of a run, as its data set was published."""
    images = run.train_images or TRAIN_IMAGES.get(run.dataset, run.batch_size)
    images *= 1 - run.validation_fraction
    if run.unlabelled == "drop":
        images *= run.labelled_fraction
    return max(round(images), run.batch_size)


def key(run: Config, net: str) -> str:
    """What decides the time of a step of one network: data set, size, network, batch."""
    size = "x".join(map(str, np.atleast_1d(run.image_size or "own size")))
    return f"{run.dataset}, {size}, {net}, batch {run.batch_size}"


def _work(run: Config) -> list[float]:
    """Each peer's work in a step, as a multiple of an independent step."""
    teachers = len(run.teachers)
    students, twice = run.cohort - teachers, 0  # students with a second forward pass
    if run.stale_steps:
        twice = students  # by its copy
    elif run.method in ("dml", "dml_e") and run.update == "sequential":
        twice = students - 1  # the last one needs no refresh
    return [_FORWARD] * teachers + [1 + _FORWARD] * twice + [1.0] * (students - twice)
