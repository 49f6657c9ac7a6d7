"""How long runs take, estimated from measured steps."""

import statistics
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


class Estimate:
    """Wall-clock seconds of runs, on one thread each.

    The measured steps give the proportions between runs. Finished runs, if there are any, give the
    speed of this machine.

    Args:
        finished: Finished runs and their records.
    """

    def __init__(self, finished: Sequence[tuple[Config, dict]] = ()):
        measured = records.read(MEASURED)
        self.machine: str = measured["machine"]
        self._step_s: Mapping[str, float] = measured["seconds"]
        known = [(record["wall_clock_s"], self._uncorrected(run)) for run, record in finished]
        self._correction = statistics.median(
            [took / expected for took, expected in known if expected] or [1]
        )
        self.measured_here = any(expected for _, expected in known)

    def seconds(self, run: Config) -> float | None:
        """Seconds of one run; None if a step of one of its networks was not measured."""
        expected = self._uncorrected(run)
        return expected and self._correction * expected

    def total(self, runs: Sequence[Config], jobs: int) -> float | None:
        """Seconds of several runs, `jobs` at a time; None if none of them can be estimated.

        A run that cannot be estimated counts as the mean of the others.
        """
        known = [seconds for seconds in map(self.seconds, runs) if seconds]
        return len(runs) * statistics.fmean(known) / jobs if known else None

    def _uncorrected(self, run: Config) -> float | None:
        """Seconds of a run on the machine of the measured steps."""
        step_s = [self._step_s.get(key(run, net)) for net in run.net]
        if None in step_s:
            return None
        images = run.train_images or TRAIN_IMAGES.get(run.dataset, run.batch_size)
        images *= 1 - run.validation_fraction
        if run.unlabelled == "drop":
            images *= run.labelled_fraction
        steps = run.schedule(max(int(images), run.batch_size)).steps
        return _START_S + steps * float(np.dot(step_s, _work(run)))


def key(run: Config, net: str) -> str:
    """What decides the time of a step of one network: data set, size, network, batch."""
    size = "x".join(map(str, np.atleast_1d(run.image_size or "own size")))
    return f"{run.dataset}, {size}, {net}, batch {run.batch_size}"


def _work(run: Config) -> list[float]:
    """Each peer's work in a step, as a multiple of an independent step."""
    if run.method == "distill":
        return [_FORWARD] * (run.cohort - 1) + [1.0]
    is_refreshed = run.method != "independent" and run.update == "sequential"
    if not is_refreshed:
        return [1.0] * run.cohort
    return [1 + _FORWARD] * (run.cohort - 1) + [1.0]  # the last peer needs no refresh
