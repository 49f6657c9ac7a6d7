"""Runs that train together on one device: their progress, their saving, and what is shown."""

import collections
import dataclasses
import datetime
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from dml_tf.data import Split
from dml_tf.errors import FlagError, RunFailed
from dml_tf.export.folder import NOT_FINITE, STATE, Export, describe
from dml_tf.export.jax_step import (
    FORMS,
    Trainer,
    advance_together,
    find_device,
    metrics_of,
)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How to train.

    Attributes:
        data_dir: Where the images are. Default: in the export's folder.
        precision: As for `jax_step.Trainer`.
        dispatch_s: Seconds of steps in one dispatch, and between two updates of the progress line.
        form: How several runs are one program; one of `jax_step.FORMS`. By default `calls` on a
            CPU, where the same bits come out as alone, and `batched` on an accelerator.
        loader: One of `load.LOADERS`; by default the first that works.
    """

    data_dir: Path | None = None
    precision: str = "default"
    dispatch_s: float = 2.0
    form: str | None = None
    loader: str | None = None


class Run:
    """An exported run on its way through its schedule.

    Args:
        export: The exported run.
        trainer: Its program and data.
        trained_on: What it is trained with, for its record.

    Attributes:
        step: Steps that are done.
        variables: The state after them.
    """

    def __init__(self, export: Export, trainer: Trainer, trained_on: dict):
        self.export, self.trainer = export, trainer
        self._trained_on = trained_on
        self._progress, self.variables = export.read_state()
        self.step = self._progress["step"]

    @property
    def is_done(self) -> bool:
        """Whether the schedule is at its end."""
        return self.step == self.export.schedule.steps

    @property
    def place(self) -> tuple[int, int]:
        """The epoch, and the next step in it."""
        return divmod(self.step, self.export.schedule.steps_per_epoch)

    @property
    def left(self) -> int:
        """Steps to the end of the epoch or of the run."""
        steps, _, per_epoch = self.export.schedule
        return min(per_epoch - self.place[1], steps - self.step)

    def take(self, values: dict[str, float], steps: int):
        """Counts steps that were done, and keeps an epoch's metrics."""
        self._refuse_nan(values, self.step + steps)
        epoch, ended = self.place[0], steps == self.left
        self.step += steps
        if ended:
            self._progress["epoch"] = epoch + 1
            for name, value in values.items():
                self._progress["history"].setdefault(name, []).append(value)

    def save(self, wall_s: float, cpu_s: float):
        """Writes the state, whole or not at all, with the time that it took."""
        self._progress["wall_clock_s"] += wall_s
        self._progress["cpu_s"] += cpu_s
        self._progress["step"] = self.step
        if self._trained_on not in self._progress["trained_on"]:
            self._progress["trained_on"].append(self._trained_on)
        try:
            self.export.save_state(self._progress, jax.device_get(self.variables))
        except OSError as error:
            raise RunFailed(
                f"{self.export.folder / STATE} cannot be written ({error}) and keeps an earlier "
                "state. Make room. To resume from that state, repeat the command."
            ) from error

    def _refuse_nan(self, values: dict[str, float], last: int):
        for name, value in values.items():
            peer, is_loss, _ = name.partition("_supervised_loss")
            if is_loss and not math.isfinite(value):
                raise RunFailed(
                    f"The loss of peer {peer} is {value} after steps {self.step + 1} to {last}. "
                    f"{self.export.folder / STATE} keeps an earlier state. Export the step with a "
                    "smaller --learning_rate."
                )


class Group:
    """Runs that train together, as one program on one device; a single run is a group of one.

    Args:
        exports: The exported runs, of the same step.
        manner: How to train.

    Attributes:
        started: When this process began with the runs, by `time.perf_counter`.
        training: The runs that are neither done nor failed.
        step_s: Mean seconds of a step of all of them; 0 until that is known.
        dispatch_s: As in `Manner`.
    """

    def __init__(self, exports: Sequence[Export], manner: Manner):
        self.started = time.perf_counter()
        self._clocks = self.started, time.process_time()
        self.dispatch_s, self.step_s = manner.dispatch_s, 0.0
        self._recent: collections.deque = collections.deque(maxlen=10)
        self._compiled = 0  # for how many runs
        self._failed: list[RunFailed] = []
        self._runs = list(_load(exports, manner))
        self.training = [run for run in self._runs if not run.is_done]
        self._unsaved = list(self.training)

    @property
    def summary(self) -> str:
        """How far the runs are, in words."""
        return "\n".join(
            f"{run.export.run_id}: {run.step} of {run.export.schedule.steps} steps are done"
            for run in self._runs
        )

    def dispatch(self) -> bool:
        """Does as many steps as take about `dispatch_s`, or to the end of an epoch.

        Returns:
            Whether a run is at its end, or has failed.
        """
        started, runs = time.perf_counter(), self.training
        count = max(1, round(self.dispatch_s / self.step_s)) if self.step_s else 1
        count = min([count, *(run.left for run in runs)])
        places = [(run.trainer, run.variables, *run.place) for run in runs]
        states = advance_together(places, count)
        for run in runs:
            if count == run.left:
                run.trainer.prepare_epoch(run.place[0] + 1)
        pairs = [(run.trainer, state) for run, state in zip(runs, states, strict=True)]
        values = metrics_of(pairs)
        place = runs[0].place[0], runs[0].place[1] + count, count == runs[0].left
        for run, state, of_run in zip(runs, states, values, strict=True):
            self._take(run, state, of_run, count)
        self._time(time.perf_counter() - started, count)
        self._show(*place, runs[0], values)
        self.training = [run for run in self._unsaved if not run.is_done]
        return len(self.training) < len(runs)

    def save(self):
        """Writes the state of every run that has not failed.

        The runs share the CPU time. Each takes the whole wall-clock time.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        for run in self._unsaved:
            run.save(wall - self._clocks[0], (cpu - self._clocks[1]) / len(self._unsaved))
        self._clocks = wall, cpu
        self._unsaved = [run for run in self._unsaved if not run.is_done]

    def raise_failures(self):
        """Raises what made runs fail, if any did."""
        if self._failed:
            raise RunFailed("\n".join(map(str, self._failed)))

    def _take(self, run: Run, state: tuple, values: dict[str, float], count: int):
        """A run that fails leaves the others alone."""
        try:
            run.take(values, count)
            run.variables = state
        except RunFailed as error:
            (run.export.folder / NOT_FINITE).write_text(f"{error}\n", encoding="utf-8")
            self._failed.append(error)
            self._unsaved.remove(run)

    def _time(self, seconds: float, steps: int):
        """Keeps the mean time of a step over the last dispatches; each new program compiles."""
        if self._compiled == len(self.training):
            self._recent.append((seconds, steps))
            seconds, steps = map(sum, zip(*self._recent, strict=True))
            self.step_s = seconds / steps
        else:
            self._compiled = len(self.training)
            self._recent.clear()

    def _show(self, epoch: int, last: int, ended: bool, run: Run, values: list[dict[str, float]]):
        """The progress line, of means: in place in a terminal, else one an epoch."""
        terminal = sys.stdout.isatty()
        if not (terminal or ended):
            return
        steps, epochs, per_epoch = run.export.schedule
        parts = [f"{len(values)} runs"] if len(values) > 1 else []
        parts += [f"epoch {epoch + 1}/{epochs}", f"step {last}/{per_epoch}"]
        for name in [name for name in values[0] if name.endswith("_accuracy")]:
            parts.append(f"{name} {np.mean([of_run[name] for of_run in values]):.4f}")
        if self.step_s:
            left = datetime.timedelta(seconds=round((steps - run.step) * self.step_s))
            rate = len(values) * run.export.config.batch_size / self.step_s
            parts += [f"{rate:.0f} images/s", f"{left} left"]
        end = "\n" if ended else ""
        print(("\r\033[K" if terminal else "") + "  ".join(parts), end=end, flush=True)


def _load(exports: Sequence[Export], manner: Manner) -> Iterator[Run]:
    """The runs, with one program for all, and one copy of the images that are the same."""
    device, sets, first = find_device(), {}, None
    form = manner.form or ("calls" if device.platform == "cpu" else "batched")
    if form not in FORMS:
        raise FlagError(f"--program={form}: choose from {', '.join(FORMS)}.")
    form = form if len(exports) > 1 else "calls"
    for export in exports:
        described = export.manifest["images"]
        key = described["labels_sha256"], described["pixels_sha256"]
        if key not in sets or not manner.data_dir:
            sets[key] = export.training_set(manner.data_dir)
        trained_on = runtime(device, manner.precision, _pixels(sets[key], export))
        if len(exports) > 1:
            trained_on["together"] = f"{len(exports)} runs in one program, {form}"
        trainer = Trainer(
            export, sets[key], device, manner.precision, form=FORMS[form], loader=manner.loader,
            beside=first,
        )  # fmt: skip
        first = first or trainer
        (export.folder / NOT_FINITE).unlink(missing_ok=True)
        yield Run(export, trainer, trained_on)


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
