"""How long runs take, from steps that were measured. Imports no TensorFlow."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from dml_tf import home
from dml_tf.runs import records
from dml_tf.runs.config import Config

# What `python -m benchmarks.step_times` measured: one thread's CPU time, and on which machine.
MEASURED = home.HOME / "results" / "benchmarks" / "step_times.json"
_START_S = 5.0  # a run's own: reading data, building and tracing the networks, testing them
# Training images where --train_images does not say.
_IMAGES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "fashion_mnist": 60_000,
    "imagenet": 1_281_167,
    "imagenet_mini": 2000,
}
_FORWARD = 1 / 3  # of a step: a backward pass counts as two forward ones


class Estimate:
    """Seconds of runs, on one thread each.

    The measured times of a step give their proportions. What runs of the folder really took, if
    any have finished, gives this machine's speed.

    Args:
        finished: Finished runs and their records.
    """

    def __init__(self, finished: Sequence[tuple[Config, dict]] = ()):
        measured = records.read(MEASURED)
        self.machine: str = measured["machine"]
        self._step_s: Mapping[str, float] = measured["seconds"]
        known = [(record["wall_clock_s"], self._plain(run)) for run, record in finished]
        self._correction = statistics.median(
            [took / plain for took, plain in known if plain] or [1]
        )
        self.measured_here = any(plain for _, plain in known)

    def seconds(self, run: Config) -> float | None:
        """What a run takes.

        Args:
            run: Its settings.

        Returns:
            Seconds of wall-clock; None where a step of one of its networks was not measured.
        """
        plain = self._plain(run)
        return plain and self._correction * plain

    def total(self, runs: Sequence[Config], jobs: int) -> float | None:
        """What several runs take side by side.

        Args:
            runs: Their settings; those that cannot be estimated count as the mean of the others.
            jobs: How many run at a time.

        Returns:
            Seconds of wall-clock; None if none of them can be estimated.
        """
        known = [seconds for seconds in map(self.seconds, runs) if seconds]
        return len(runs) * statistics.fmean(known) / jobs if known else None

    def _plain(self, run: Config) -> float | None:
        """A run's seconds on the machine of the measured steps."""
        steps = [self._step_s.get(key(run, net)) for net in run.net]
        if None in steps:
            return None
        return _START_S + _steps(run) * sum(
            step * work for step, work in zip(steps, _work(run), strict=True)
        )


def key(run: Config, net: str) -> str:
    """What a step's time depends on.

    Args:
        run: A run's settings.
        net: One of its networks.

    Returns:
        A name for it.
    """
    size = "x".join(map(str, np.atleast_1d(run.image_size or "own size")))
    return f"{run.dataset}, {size}, {net}, batch {run.batch_size}"


def _steps(run: Config) -> int:
    images = run.train_images or _IMAGES.get(run.dataset, 0)
    images = int(images * (1 - run.validation_fraction))
    return run.steps or run.epochs * (images // run.batch_size)


def _work(run: Config) -> list[float]:
    """Each peer's work in a step, as part of a step of its own."""
    last = run.cohort - 1
    if run.method == "distill":
        return [_FORWARD, 1.0]
    refreshed = run.method != "independent" and run.update == "sequential"
    return [1 + _FORWARD * (refreshed and k < last) for k in range(run.cohort)]
