"""The progress of a run: a line that is written over, or a few lines in a log."""

import shutil
import sys
import time

import keras

from dml_tf.runs.config import Schedule
from dml_tf.runs.words import duration

_LIVE_S = 0.2  # seconds between two versions of the line on a terminal
_LOG_S = 30  # seconds between two epochs that a log mentions
_LOG_IN_EPOCH_S = 600  # seconds between two lines of a log within an epoch


class Progress(keras.callbacks.Callback):
    """Shows the peers' accuracies, the mean mimicry loss, images a second and the time left.

    A log gets a line for the first and the last epoch, and at most two a minute between them.
    TensorBoard and the record have the rest.

    Args:
        schedule: Length of the run.
        batch_size: Images in a step.
        live: Whether the line is written over, as on a terminal.
    """

    def __init__(self, schedule: Schedule, batch_size: int, live: bool):
        super().__init__()
        self._schedule, self._batch_size, self._live = schedule, batch_size, live
        self._start: tuple[float, int] | None = None  # after the first call, which traces
        self._done = self._before = self._width = 0
        self._epoch = self._first_epoch = 0
        self._printed = time.monotonic()
        self._validation: dict[str, float] = {}
        self._measured: dict[str, float] = {}  # in the last epoch
        self._is_shown = False

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the steps of the epochs before; one that was interrupted counts from its end."""
        if self._start is None:
            self._first_epoch = epoch
        self._epoch = epoch
        steps = min(self._schedule.steps_per_epoch, self._schedule.steps)
        skipped = steps - self.params["steps"]
        self._before = epoch * self._schedule.steps_per_epoch + max(skipped, 0)

    def on_train_batch_end(self, batch, logs=None):
        """Renews the line."""
        self._done = min(self._before + batch + 1, self._schedule.steps)
        if self._start is None:
            self._start = time.monotonic(), self._done
        if self._is_due_after(_LIVE_S if self._live else _LOG_IN_EPOCH_S):
            self._print(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Renews the line, with the accuracies on the images that are watched."""
        self._validation = {name[4:]: v for name, v in logs.items() if name.startswith("val_")}
        self._measured = logs
        is_due = self._is_due_after(_LIVE_S if self._live else _LOG_S)
        self._is_shown = is_due or epoch == self._first_epoch
        if self._is_shown:
            self._print(logs)

    def on_train_end(self, logs=None):
        """Shows the last epoch, which early stopping may choose, and ends the line."""
        if self._measured and (self._live or not self._is_shown):
            self._print(self._measured, is_over=True)
        if self._live:
            print(flush=True)
            self._width = 0

    def _is_due_after(self, seconds: float) -> bool:
        return time.monotonic() - self._printed >= seconds

    def _print(self, logs: dict, is_over: bool = False):
        self._printed = time.monotonic()
        line = self._line(logs, is_over)
        if not self._live:
            print(line, flush=True)
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        sys.stdout.write(f"\r{line:{self._width}}")
        sys.stdout.flush()
        self._width = len(line)

    def _line(self, logs: dict, is_over: bool) -> str:
        parts = [f"epoch {self._epoch + 1}/{self._schedule.epochs}"]
        for peer in (*self.model.peer_names, "ensemble"):
            if f"{peer}_accuracy" in logs:
                parts.append(f"{peer} {self._accuracy(peer, logs)}")
        mimicry = [v for n, v in logs.items() if _is_mimicry(n)]
        if any(mimicry):
            parts.append(f"mimicry {sum(mimicry) / len(mimicry):.3f}")
        return "  ".join([*parts, *self._speed(is_over)])

    def _accuracy(self, peer: str, logs: dict) -> str:
        name = f"{peer}_accuracy"
        watched = self._validation.get(name)
        more = "" if watched is None else f" (val {100 * watched:.1f}%)"
        return f"{100 * logs[name]:.1f}%{more}"

    def _speed(self, is_over: bool) -> list[str]:
        """Images a second since the first call, all else included, and the time that is left."""
        begun, before = self._start or (self._printed, self._done)
        steps, seconds = self._done - before, self._printed - begun
        if not steps or not seconds:
            return []
        left = 0 if is_over else (self._schedule.steps - self._done) * seconds / steps
        rate = f"{self._batch_size * steps / seconds:,.0f} images/s"
        return [rate, f"{duration(left)} left" if left else f"{duration(seconds)} in all"]


def _is_mimicry(name: str) -> bool:
    return name.endswith("_mimicry_loss") and not name.startswith("val_")
