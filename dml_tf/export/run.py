"""Trains with an exported step, on any device of JAX, without TensorFlow.

A run continues from `state.npz` to the end of its schedule, with the order and augmentation of its
seed, and saves its state there on the way.
"""

import collections
import contextlib
import datetime
import math
import os
import platform
import sys
import time
from pathlib import Path

import jax
import numpy as np

from dml_tf.data import Split
from dml_tf.errors import CUT, DONE, RunFailed, uninterrupted
from dml_tf.export.folder import STATE, Export, describe
from dml_tf.export.jax_step import Trainer, device_errors, find_device

_DISPATCH_S = 2.0  # seconds of steps in one dispatch, and between two updates of the progress line
_SAVE_S = 30.0


@device_errors()
def train(
    folder: Path,
    data_dir: Path | None = None,
    max_seconds: float = math.inf,
    precision: str = "default",
) -> int:
    """Trains to the end of the run, or until `max_seconds`; returns `DONE` or `CUT`."""
    export = Export.read(folder)  # before a lock file is made in a wrong folder
    with export.hold():
        return _train(Run(export, data_dir, precision), max_seconds)


def _train(run: "Run", max_seconds: float) -> int:
    if not run.is_done:
        print(f"{run.summary}; compiling ...", flush=True)
    try:
        _advance(run, max_seconds)
    except KeyboardInterrupt:
        if run.step_s:  # it was not the first dispatch, which a signal may cut in two
            run.save()
        raise
    print(f"{run.summary}.")
    return DONE if run.is_done else CUT


def _advance(run: "Run", max_seconds: float):
    """Trains to the end of the run or of the time, and saves now and then."""
    saved = time.perf_counter()
    while not run.is_done:
        # Compiling takes long: only then a signal does not wait.
        with uninterrupted() if run.step_s else contextlib.nullcontext():
            run.dispatch()
        now = time.perf_counter()
        cut = now + max(_DISPATCH_S, run.step_s) - run.started > max_seconds
        if cut or run.is_done or now - saved > _SAVE_S:
            run.save()
            saved = now
        if cut:
            break


class Run:
    """An exported run on its way through its schedule.

    Args:
        export: The exported run.
        data_dir: Where the images are. Default: in the export's folder.
        precision: As for `jax_step.Trainer`.

    Attributes:
        started: When this process began with the run, by `time.perf_counter`.
        step: Steps that are done.
        step_s: Mean seconds of a step; 0 until that is known.
    """

    def __init__(self, export: Export, data_dir: Path | None = None, precision: str = "default"):
        self.started = time.perf_counter()
        self._clocks = self.started, time.process_time()
        self._export = export
        self._progress, self._variables = export.read_state()
        images = export.training_set(data_dir)
        device = find_device()
        self._trained_on = runtime(device, precision, _pixels(images, export))
        self._trainer = Trainer(export, images, device, precision)
        self._recent: collections.deque = collections.deque(maxlen=10)
        self._compiled = False
        self.step, self.step_s = self._progress["step"], 0.0

    @property
    def is_done(self) -> bool:
        """Whether the schedule is at its end."""
        return self.step == self._export.schedule.steps

    @property
    def summary(self) -> str:
        """How far the run is, in words."""
        return f"{self._export.run_id}: {self.step} of {self._export.schedule.steps} steps are done"

    def dispatch(self):
        """Does as many steps as take about two seconds, or to the end of the epoch."""
        started = time.perf_counter()
        steps, _, per_epoch = self._export.schedule
        epoch, first = divmod(self.step, per_epoch)
        count = round(_DISPATCH_S / self.step_s) if self.step_s else 1
        last = min(first + max(1, count), per_epoch, first + steps - self.step)
        self._variables = self._trainer.advance(self._variables, epoch, first, last)
        values = self._trainer.metrics(self._variables)
        self._refuse_nan(values, self.step + last - first)
        self.step += last - first
        self._time(time.perf_counter() - started, last - first)
        ended = last == per_epoch or self.is_done
        if ended:
            self._progress["epoch"] = epoch + 1
            for name, value in values.items():
                self._progress["history"].setdefault(name, []).append(value)
        self._show(epoch, last, values, ended)

    def save(self):
        """Writes the state, whole or not at all."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._progress["wall_clock_s"] += wall - self._clocks[0]
        self._progress["cpu_s"] += cpu - self._clocks[1]
        self._clocks = wall, cpu
        self._progress["step"] = self.step
        if self._trained_on not in self._progress["trained_on"]:
            self._progress["trained_on"].append(self._trained_on)
        try:
            self._export.save_state(self._progress, jax.device_get(self._variables))
        except OSError as error:
            raise RunFailed(
                f"{self._export.folder / STATE} cannot be written ({error}) and keeps an earlier "
                "state. Make room. To resume from that state, repeat the command."
            ) from error

    def _refuse_nan(self, values: dict[str, float], last: int):
        for name, value in values.items():
            peer, is_loss, _ = name.partition("_supervised_loss")
            if is_loss and not math.isfinite(value):
                raise RunFailed(
                    f"The loss of peer {peer} is {value} after steps {self.step + 1} to {last}. "
                    f"{self._export.folder / STATE} keeps an earlier state. Export the step with a "
                    "smaller --learning_rate."
                )

    def _time(self, seconds: float, steps: int):
        """Keeps the mean time of a step over the last dispatches; the first one compiles."""
        if self._compiled:
            self._recent.append((seconds, steps))
            seconds, steps = map(sum, zip(*self._recent, strict=True))
            self.step_s = seconds / steps
        self._compiled = True

    def _show(self, epoch: int, last: int, values: dict[str, float], ended: bool):
        """The progress line: in place in a terminal, else one an epoch."""
        terminal = sys.stdout.isatty()
        if not (terminal or ended):
            return
        steps, epochs, per_epoch = self._export.schedule
        parts = [f"epoch {epoch + 1}/{epochs}", f"step {last}/{per_epoch}"]
        parts += [f"{n} {v:.4f}" for n, v in values.items() if n.endswith("_accuracy")]
        if self.step_s:
            left = datetime.timedelta(seconds=round((steps - self.step) * self.step_s))
            rate = self._export.config.batch_size / self.step_s
            parts += [f"{rate:.0f} images/s", f"{left} left"]
        end = "\n" if ended else ""
        print(("\r\033[K" if terminal else "") + "  ".join(parts), end=end, flush=True)


def runtime(device: jax.Device, precision: str, pixels: str) -> dict[str, str]:
    """What a run is trained with, for its record."""
    return {
        "machine": f"{device.device_kind}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "jax": jax.__version__,
        "precision": precision,
        "pixels": pixels,
    }


def _pixels(images: Split, export: Export) -> str:
    """Whether the pixels, too, are those of the export; the labels are."""
    if describe(images)["pixels_sha256"] == export.manifest["images"]["pixels_sha256"]:
        return "the export's"
    print("The pixels are not the export's: another JPEG decoder makes such a difference.")
    return "not the export's, as by another JPEG decoder"
