"""Checkpoints of an unfinished run: at every moment there is one whole file on disk, mostly two.

Draws are functions of seed, epoch and image, so a run can also be resumed in the middle of an
epoch: the state then has the number of steps, and the metrics so far.

Keras's BackupAndRestore is not enough. It writes the weights and then the epoch's number, each in
place, and leaves out the seed generators. A run killed between the two files repeats an epoch, one
killed while the weights are written cannot resume, and dropout draws other masks.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dml_tf.data import Splits
from dml_tf.errors import RecordMismatch, uninterrupted
from dml_tf.runs import records
from dml_tf.runs.config import Config
from dml_tf.runs.files import PREVIOUS, STATE, load_state, save_state
from dml_tf.runs.parallel.cluster import Cluster

EVERY_S = 5.0  # seconds between the checkpoints of short epochs, at the least
SHARE = 0.02  # of a run's time that checkpoints may take


class Checkpoint(keras.callbacks.Callback):
    """Saves a cohort and its history while it trains, and restores them.

    It saves after epochs that end five seconds or more after the start or the last checkpoint, in
    the middle of an epoch every `--save_minutes`, after the last epoch, and after an epoch of which
    something else keeps more (`is_wanted`).

    One file holds weights, optimizers, seed generators, metrics, history and times. The one before
    it is kept: it is used if the newest is damaged, or if another process does not have the newest.

    Args:
        folder: Folder of this run's checkpoint, and of what it needs besides to resume.
        config: The run's settings; a checkpoint made with others is refused.
        cluster: The processes of the run, each with a checkpoint of its own. They resume after
            the last epoch that all have finished, so each saves after every epoch, and only then.
        splits: The run's data; a checkpoint of others is refused. Not compared if left out.

    Attributes:
        step: Steps made in the epoch that is not finished.
        is_wanted: Whether the present epoch must be saved at its end.
        history: Metric name -> one value for each finished epoch.
        wall_clock_s: Seconds spent in training, interrupted runs included.
        cpu_s: CPU seconds of this process spent in training, likewise.
        warnings: What was warned of -> the message.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        cluster: Cluster | None = None,
        splits: Splits | None = None,
    ):
        super().__init__()
        self._file = folder / STATE
        self._previous = folder / PREVIOUS
        self._cluster = cluster or Cluster()
        self._config, self._splits = config, splits
        self._epoch = self.step = self._resumed_at = 0
        self._iterations = 0  # before the epoch
        self._metrics: list = []
        self._saved = -math.inf
        self._took = 0.0
        self._saved_at = None
        self.is_wanted = False
        self._data, self._schedule = {}, None
        if splits:
            self._data = {"identity": splits.identity, "digest": splits.digests}
            self._schedule = config.schedule(len(splits.train))
        self.history: dict[str, list[float]] = {}
        self.wall_clock_s = 0.0
        self.cpu_s = 0.0
        self.warnings: dict[str, str] = {}

    @property
    def folder(self) -> Path:
        """Folder of this run's checkpoint."""
        return self._file.parent

    @property
    def exists(self) -> bool:
        """Whether there is something to resume from."""
        return self._file.exists() or self._previous.exists()

    def restore(self, model: keras.Model) -> int:
        """Loads the newest checkpoint, if there is one, into a compiled and built cohort.

        Returns:
            Number of finished epochs.

        Raises:
            RecordMismatch: The checkpoint belongs to other settings, or is damaged.
        """
        try:
            found = self._readable(model)
        except RecordMismatch as error:
            if not self._config.overwrite:
                raise
            print(f"{error}\nWith --overwrite this run starts from its first epoch.", flush=True)
            found = []
        newest = found[0][0]["epoch"] if found else 0
        epoch = self._cluster.least(newest)
        if epoch < newest:
            print(
                f"{self._file.parent} has epoch {newest}, another process of the run only epoch "
                f"{epoch}: this process resumes after epoch {epoch}, too.",
                flush=True,
            )
        if not found or not (epoch or found[0][0].get("step")):
            return 0
        try:
            progress, arrays = next(each for each in found if each[0]["epoch"] == epoch)
        except StopIteration:
            raise RecordMismatch(
                f"{self._file.parent} has epoch {newest}, another process of the run only epoch "
                f"{epoch}: they are of different runs. Move the checkpoints of all processes away."
            ) from None
        if epoch != newest:  # the newest is no use to the others
            self._previous.replace(self._file)
        own = variables(model)
        # The state of an exported step, too, has its metrics' variables after the cohort's.
        for variable, array in zip(own, arrays, strict=False):
            variable.assign(array)
        self._metrics = arrays[len(own) :]
        self._epoch, self.history = progress["epoch"], progress["history"]
        self.step = progress.get("step", 0)
        self.wall_clock_s, self.cpu_s = progress["wall_clock_s"], progress["cpu_s"]
        self.warnings = progress.get("warnings", {})
        return self._epoch

    def _readable(self, model: keras.Model) -> list[tuple[dict, list]]:
        """The checkpoints that are whole, the newest first; `RecordMismatch` if none of them is."""
        found, damaged = [], []
        for file in (self._file, self._previous):
            with contextlib.suppress(FileNotFoundError):
                try:
                    found.append(self._load(file, model))
                except (ValueError, KeyError) as error:
                    damaged.append((file, str(error)))
        if not damaged:
            return found
        file, reason = damaged[0]
        if not found:
            raise RecordMismatch(reason)
        if file == self._file:
            self._previous.replace(self._file)  # so that the next save does not lose it
        print(f"{reason}\nThe checkpoint after epoch {found[0][0]['epoch']} is used.", flush=True)
        return found

    def _load(self, file: Path, model: keras.Model) -> tuple[dict, list]:
        progress, arrays = load_state(file)
        records.refuse_mismatch(progress["config"], self._config, file)
        if self._splits:
            records.refuse_other_data(progress, self._config, file, self._splits)
        expected = [tuple(variable.shape) for variable in variables(model)]
        if [array.shape for array in arrays[: len(expected)]] != expected:
            raise ValueError(f"{file} is of other networks, or of another version; move it away.")
        return progress, arrays

    @property
    def is_due(self) -> bool:
        """Whether an epoch that ends now will be saved."""
        often = min(EVERY_S, 60 * self._config.save_minutes)
        return self._cluster.size > 1 or self._is_due_after(often)

    @property
    def is_due_in_epoch(self) -> bool:
        """Whether a step that ends now will be saved, in the middle of its epoch."""
        return self._saves_steps and self._is_due_after(60 * self._config.save_minutes)

    @property
    def _saves_steps(self) -> bool:
        return self._cluster.size == 1 and self._config.placement != "data"

    def _is_due_after(self, seconds: float) -> bool:
        return time.monotonic() - self._saved >= max(seconds, self._took / SHARE)

    def on_train_begin(self, logs=None):
        """Starts the clocks."""
        self._started = time.perf_counter() - self.wall_clock_s
        self._cpu_started = time.process_time() - self.cpu_s
        self._saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Puts the metrics of an epoch that was interrupted where they were."""
        self._resumed_at = self.step
        if self.step:
            for variable, array in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(array)
        self._iterations = self._count_iterations() - self.step

    def on_train_batch_end(self, batch, logs=None):
        """Saves the state in the middle of a long epoch."""
        self.step = self._resumed_at + batch + 1
        if self.is_due_in_epoch and not self._ends_epoch(self.step):
            self._save()

    def _ends_epoch(self, step: int) -> bool:
        """Whether a step is the last one of its epoch, which is saved as a whole, or of the run."""
        last = self._resumed_at + (self.params or {}).get("steps", math.inf)
        if self._schedule:
            before = self._epoch * self._schedule.steps_per_epoch
            last = min(last, self._schedule.steps - before)
        return step >= last

    def on_epoch_end(self, epoch, logs=None):
        """Saves the state after an epoch."""
        self._epoch, self.step = epoch + 1, 0
        for name, value in logs.items():
            if name.removeprefix("val_") != "loss":  # a mean of others
                self.history.setdefault(name, []).append(float(value))
        if self.is_due or self.is_wanted:
            self._save()
        self.is_wanted = False

    def on_train_end(self, logs=None):
        """Saves the state after the last epoch."""
        if self._saved_at != (self._epoch, self.step):
            self._save()

    @contextlib.contextmanager
    def saved_if_interrupted(self) -> Iterator[None]:
        """Context that an interruption by Ctrl-C leaves with the state saved."""
        try:
            yield
        except KeyboardInterrupt:
            self._save_interrupted()
            raise

    def _save_interrupted(self):
        """Saves the state of a run that was interrupted between two steps or during one.

        TensorFlow finishes a call before the interruption is seen, and the optimizer counts its
        steps. After the last step of an epoch the metrics are those of other images, so nothing is
        saved then.
        """
        if self.model is None or not self.params:  # before the first step
            return
        made = self._count_iterations() - self._iterations
        in_epoch = not self.model.stop_training and not self._ends_epoch(made)
        if self._saves_steps and in_epoch and made >= self.step:
            self.step = made
            self._save()

    def _count_iterations(self) -> int:
        return int(self.model.optimizers[0].iterations.numpy())

    def delete(self):
        """Removes the run's checkpoint."""
        shutil.rmtree(self._file.parent, ignore_errors=True)

    def _save(self):
        with uninterrupted():
            self._write()

    def _write(self):
        started = time.monotonic()
        self.wall_clock_s = time.perf_counter() - self._started
        self.cpu_s = time.process_time() - self._cpu_started
        progress = {
            "config": self._config.comparable(),
            **self._data,
            "epoch": self._epoch,
            "epochs": self._schedule.epochs if self._schedule else 0,
            "step": self.step,
            "history": self.history,
            "wall_clock_s": self.wall_clock_s,
            "cpu_s": self.cpu_s,
            "warnings": self.warnings,
        }
        with contextlib.suppress(FileNotFoundError):  # before the first one
            self._file.replace(self._previous)
        everything = variables(self.model) + (self.model.metrics_variables if self.step else [])
        save_state(self._file, progress, values(everything))
        self._saved_at, self._saved = (self._epoch, self.step), time.monotonic()
        self._took = self._saved - started


def variables(model: keras.Model) -> list:
    """A cohort's weights, seed generators and optimizers' variables, in a fixed order."""
    return [*model.variables, *(v for optimizer in model.optimizers for v in optimizer.variables)]


def values(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """The variables' values; `Variable.numpy` takes three times as long."""
    return [tf.convert_to_tensor(variable.value).numpy() for variable in variables]


def peer_variables(cohort: keras.Model, k: int) -> list:
    """The variables of peer k, which this process trains: its network's and its optimizer's."""
    optimizer = cohort.optimizers[cohort.trained.index(k)]
    return [*cohort.networks[k].variables, *optimizer.variables]


def remove_older(folder: Path, record: Path):
    """Removes the checkpoint of a run that was stopped after its record was written.

    A later checkpoint stays: the run is trained again, with `--overwrite`. So it does where the
    record is on another machine.
    """
    if not (folder.is_dir() and record.exists()):
        return
    finished = record.stat().st_mtime
    if all(file.stat().st_mtime <= finished for file in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
