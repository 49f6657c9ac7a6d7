"""What `run_all` prints while its tasks run: a bar, what is running, how long the rest takes."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from tqdm import tqdm

from dml_tf.paper.workers import Event, Task
from dml_tf.runs.words import duration


def follow(events: Iterable[Event], clock: "Clock") -> list[tuple[Task, str]]:
    """Shows the progress of all tasks; returns those that failed, with the reasons."""
    failures, running = [], {}
    line = partial(tqdm, disable=not sys.stdout.isatty(), dynamic_ncols=True)
    with (
        line(total=clock.total, bar_format="{percentage:3.0f}%|{bar}| {desc}") as bar,
        line(bar_format="{desc}", leave=False) as below,
    ):
        bar.set_description_str(str(clock))
        for kind, task, text in events:
            if kind == "started":
                clock.start(task.name)
                running[task.name] = f"{task}: starting"
            elif kind == "progress":
                running[task.name] = f"{task}: {text}"
            else:
                del running[task.name]
                took = clock.end(task.name)
                bar.update(clock.expected[task.name])
                bar.set_description_str(str(clock))
                if kind == "failed":
                    failures.append((task, text))
                tqdm.write(f"{clock}  {kind:6} {took:5.0f} s  {task}")
            below.set_description_str("; ".join(running.values()))
    return failures


class Clock:
    """Counts finished tasks and estimates how long the others will take.

    Args:
        names: The tasks.
        estimates: Seconds expected of some tasks; the others count as the mean of these.
        jobs: How many tasks run at a time.
    """

    def __init__(self, names: Sequence[str], estimates: Mapping[str, float], jobs: int):
        mean = sum(estimates.values()) / len(estimates) if estimates else 1.0
        self.expected = {name: estimates.get(name, mean) for name in names}
        self._has_estimates, self._jobs = bool(estimates), jobs
        self._started: dict[str, float] = {}
        self._took: dict[str, float] = {}

    @property
    def total(self) -> float:
        """Seconds expected of all tasks."""
        return sum(self.expected.values())

    def start(self, name: str):
        """Notes that a task has started."""
        self._started[name] = time.monotonic()

    def end(self, name: str) -> float:
        """Notes that a task has ended, and returns the seconds that it took."""
        self._took[name] = time.monotonic() - self._started.pop(name)
        return self._took[name]

    def __str__(self) -> str:
        count = f"{len(self._took)}/{len(self.expected)}"
        done = sum(self.expected[name] for name in self._took)
        if not (done or self._has_estimates):
            return count
        slower = sum(self._took.values()) / done if done else 1.0
        return f"{count}, {duration(slower * (self.total - done) / self._jobs)} left"
