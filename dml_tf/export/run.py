"""Trains with an exported step, on any device of JAX, without TensorFlow.

    python -m dml_tf.run_step OUT_DIR

goes on from OUT_DIR/state.npz to the end of the run's schedule, with the order and augmentation
of its seed, and saves the state there as it goes: the same command again goes on. At the end
`python -m dml_tf.import_weights OUT_DIR`, where TensorFlow is, makes the record. Needs NumPy, JAX
and, for the JPEG copy's photographs, Pillow.
"""

import argparse
import collections
import datetime
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dml_tf.export import folder as exported
from dml_tf.export import jax_step as portable
from dml_tf.runs import files

DONE, FAILED, CUT = 0, 1, 3  # 2: bad flags
_DISPATCH_S = 2.0  # a dispatch takes about so long, and the progress line is as old at most
_SAVE_S = 30.0


class RunFailed(RuntimeError):
    """A run that cannot go on; the message says what to do."""


def main(argv: Sequence[str]) -> int:
    """Trains as the command line asks.

    Args:
        argv: Arguments.

    Returns:
        Exit status: 0 done; 1 the run failed, or data are missing or refused; 2 bad flags; 3 cut
        by --max_seconds, and the same command goes on.
    """
    parser = argparse.ArgumentParser(
        "run_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    exported.add_arguments(parser)
    parser.add_argument(
        "--max_seconds",
        type=float,
        default=math.inf,
        help="save and stop, with exit status 3, before so many seconds have passed, if the "
        "first dispatch has: it compiles",
    )
    parser.add_argument(
        "--precision",
        choices=("default", "highest"),
        default="default",
        help="of products: the device's own, as TF32 on a GPU, or float32",
    )
    asked = parser.parse_args(argv)
    try:
        return train(asked.folder, asked.data_dir, asked.max_seconds, asked.precision)
    except KeyboardInterrupt:
        print("run_step: interrupted; the same command goes on.", file=sys.stderr)
    except (OSError, ValueError, RunFailed, jax.errors.JaxRuntimeError) as error:
        print(f"run_step: {error}", file=sys.stderr)
    return FAILED


def train(
    folder: Path,
    data_dir: Path | None = None,
    max_seconds: float = math.inf,
    precision: str = "default",
) -> int:
    """Does the steps of a run that are still to be done.

    Args:
        folder: What `dml_tf.export_step` wrote.
        data_dir: Where the images are; None for the folder's own.
        max_seconds: Stops, with the state saved, before so many seconds have passed.
        precision: As for `portable.load_step`.

    Returns:
        Exit status: 0 all steps are done, 3 cut.

    Raises:
        FileNotFoundError: The step or its images are missing.
        ValueError: The images are not those of the run, or a file is damaged.
        BlockingIOError: Another process is at this run.
        RunFailed: The loss is not a number.
    """
    exported.read_manifest(folder)  # before a lock file is made in a wrong folder
    with exported.hold(folder):
        return _train(Run(folder, data_dir, precision), max_seconds)


def _train(run: "Run", max_seconds: float) -> int:
    saved = time.perf_counter()
    if run.step < run.steps:
        print(f"{run.run_id}: {run.step} of {run.steps} steps are done; compiling ...", flush=True)
    while run.step < run.steps:
        run.dispatch()
        now = time.perf_counter()
        cut = now + max(_DISPATCH_S, run.step_s) - run.started > max_seconds
        if cut or run.step == run.steps or now - saved > _SAVE_S:
            run.save()
            saved = now
        if cut:
            break
    print(f"{run.run_id}: {run.step} of {run.steps} steps are done.")
    return DONE if run.step == run.steps else CUT


class Run:
    """An exported run on its way through its schedule.

    Args:
        folder: What `dml_tf.export_step` wrote.
        data_dir: Where the images are; None for the folder's own.
        precision: As for `portable.load_step`.

    Attributes:
        run_id: The run's name.
        started: When this process began with it, by `time.perf_counter`.
        step: Steps that are done.
        steps: Steps of the whole run.
        step_s: Seconds that a step takes, on average; 0 until that is known.
    """

    def __init__(self, folder: Path, data_dir: Path | None, precision: str):
        self.started = time.perf_counter()
        self._clocks = self.started, time.process_time()
        self._file = folder / exported.STATE
        self._manifest = exported.read_manifest(folder)
        self._progress, self._variables = exported.read_state(folder, self._manifest)
        images, labels = exported.training_set(folder, self._manifest, data_dir)
        device = jax.devices()[0]
        self._trained_on = runtime(device, precision, self._pixels(images, labels))
        self._trainer = portable.Trainer(folder, self._manifest, images, labels, device, precision)
        self._per_epoch = self._manifest["steps_per_epoch"]
        self._recent: collections.deque = collections.deque(maxlen=10)
        self._compiled = False
        self.run_id, self.steps = self._manifest["run_id"], self._manifest["steps"]
        self.step, self.step_s = self._progress["step"], 0.0

    def _pixels(self, images: np.ndarray, labels: np.ndarray) -> str:
        """Says whether the pixels are those of the export, too; the labels are."""
        sums = exported.describe(images, labels)
        if sums["pixels_sha256"] == self._manifest["images"]["pixels_sha256"]:
            return "the export's"
        print("The pixels are not the export's; another JPEG decoder makes a difference like that.")
        return "not the export's, as by another JPEG decoder"

    def dispatch(self):
        """Does as many steps as take about two seconds, or to the end of the epoch.

        Raises:
            RunFailed: A peer's loss is not finite.
        """
        started = time.perf_counter()
        epoch, first = divmod(self.step, self._per_epoch)
        count = round(_DISPATCH_S / self.step_s) if self.step_s else 1
        last = min(first + max(1, count), self._per_epoch, first + self.steps - self.step)
        self._variables = self._trainer.advance(self._variables, epoch, first, last)
        values = portable.metrics(self._variables, self._manifest)
        self._refuse_nan(values, self.step + last - first)
        self.step += last - first
        self._time(time.perf_counter() - started, last - first)
        ended = last == self._per_epoch or self.step == self.steps
        if ended:
            self._progress["epoch"] = epoch + 1
            for name, value in values.items():
                self._progress["history"].setdefault(name, []).append(value)
        self._show(epoch, last, values, ended)

    def save(self):
        """Writes how far the run came, whole or not at all.

        Raises:
            RunFailed: There is no room, or no permission.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        self._progress["wall_clock_s"] += wall - self._clocks[0]
        self._progress["cpu_s"] += cpu - self._clocks[1]
        self._clocks = wall, cpu
        self._progress["step"] = self.step
        if self._trained_on not in self._progress["trained_on"]:
            self._progress["trained_on"].append(self._trained_on)
        try:
            files.save_state(self._file, self._progress, jax.device_get(self._variables))
        except OSError as error:
            raise RunFailed(
                f"{self._file} cannot be written ({error}) and keeps an earlier state. Make room, "
                "and the same command goes on from there."
            ) from error

    def _refuse_nan(self, values: dict[str, float], last: int):
        for name, value in values.items():
            peer, is_loss, _ = name.partition("_supervised_loss")
            if is_loss and not math.isfinite(value):
                raise RunFailed(
                    f"The loss of peer {peer} is {value} after steps {self.step + 1} to {last}. "
                    f"{self._file} keeps an earlier state. Export the step with a smaller "
                    "--learning_rate."
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
        parts = [f"epoch {epoch + 1}/{math.ceil(self.steps / self._per_epoch)}"]
        parts += [f"step {last}/{self._per_epoch}"]
        parts += [f"{n} {v:.4f}" for n, v in values.items() if n.endswith("_accuracy")]
        if self.step_s:
            left = datetime.timedelta(seconds=round((self.steps - self.step) * self.step_s))
            rate = self._manifest["config"]["batch_size"] / self.step_s
            parts += [f"{rate:.0f} images/s", f"{left} left"]
        end = "\n" if ended else ""
        print(("\r\033[K" if terminal else "") + "  ".join(parts), end=end, flush=True)


def runtime(device: jax.Device, precision: str, pixels: str) -> dict[str, str]:
    """What a run is trained with, for its record.

    Args:
        device: Where.
        precision: That of products.
        pixels: Whose the images are.

    Returns:
        `machine`, `python`, `numpy`, `jax`, `precision` and `pixels`.
    """
    return {
        "machine": f"{device.device_kind}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "jax": jax.__version__,
        "precision": precision,
        "pixels": pixels,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
