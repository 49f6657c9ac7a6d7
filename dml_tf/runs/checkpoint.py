"""Checkpoints of an unfinished run: at every moment one whole file on disk.

Keras's BackupAndRestore writes weights and then the epoch's number in place, and leaves out the
seed generators: a run killed between the two files repeats an epoch, one killed during the first
cannot go on at all, and dropout goes on with other masks.
"""

import shutil
import time
from pathlib import Path

import keras

from dml_tf.runs import records
from dml_tf.runs.config import Config
from dml_tf.runs.errors import RecordMismatch
from dml_tf.runs.files import load_state, save_state
from dml_tf.runs.parallel.cluster import Cluster


class Checkpoint(keras.callbacks.Callback):
    """Saves a cohort and its history after every epoch, and restores them.

    One file holds all: weights, optimizers, seed generators, history and times. It is written
    under another name and renamed when whole.

    Args:
        folder: Where the checkpoint of this run goes; nothing else may be there.
        config: The run's settings; a checkpoint made with others is refused.
        cluster: The processes of the run, each with a checkpoint of its own. They resume after
            the last epoch that all have finished, so each keeps its last two.

    Attributes:
        history: Metric name -> one value for each finished epoch.
        wall_clock_s: Seconds spent in training, interrupted runs included.
        cpu_s: CPU seconds of this process spent in training, likewise.
    """

    def __init__(self, folder: Path, config: Config, cluster: Cluster | None = None):
        super().__init__()
        self._file = folder / "state.npz"
        self._previous = folder / "previous.npz"
        self._cluster = cluster or Cluster()
        self._config = config
        self._epoch = 0
        self.history: dict[str, list[float]] = {}
        self.wall_clock_s = 0.0
        self.cpu_s = 0.0

    def restore(self, model: keras.Model) -> int:
        """Loads the newest checkpoint, if there is one.

        Args:
            model: A compiled, built cohort like the one that was saved.

        Returns:
            How many epochs are finished.

        Raises:
            RecordMismatch: The checkpoint belongs to other settings, or is damaged.
        """
        found = [self._load(file) for file in (self._file, self._previous) if file.exists()]
        newest = found[0][0]["epoch"] if found else 0
        epoch = self._cluster.least(newest)
        if epoch < newest:
            print(
                f"{self._file.parent} has epoch {newest}, another process of the run epoch {epoch} "
                "only: going back to that.",
                flush=True,
            )
        if not epoch:
            return 0
        try:
            progress, arrays = next(each for each in found if each[0]["epoch"] == epoch)
        except StopIteration:
            raise RecordMismatch(
                f"{self._file.parent} has epoch {newest}, another process of the run epoch {epoch} "
                "only: they are of different runs. Move the checkpoints of all processes away."
            ) from None
        if epoch != newest:  # the newest was not agreed on: this is now the one to fall back to
            self._previous.replace(self._file)
        # The state of an exported step has its metrics' variables behind the cohort's.
        for variable, array in zip(variables(model), arrays, strict=False):
            variable.assign(array)
        self._epoch, self.history = progress["epoch"], progress["history"]
        self.wall_clock_s, self.cpu_s = progress["wall_clock_s"], progress["cpu_s"]
        return self._epoch

    def _load(self, file: Path) -> tuple[dict, list]:
        try:
            progress, arrays = load_state(file)
        except ValueError as error:
            raise RecordMismatch(str(error)) from error
        records.refuse_mismatch(progress["config"], self._config, file)
        return progress, arrays

    def on_train_begin(self, logs=None):
        """Starts the clocks."""
        self._started = time.perf_counter() - self.wall_clock_s
        self._cpu_started = time.process_time() - self.cpu_s

    def on_epoch_end(self, epoch, logs=None):
        """Saves the state after an epoch.

        Args:
            epoch: Its index, from 0.
            logs: Its metrics.
        """
        self._epoch = epoch + 1
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        self.wall_clock_s = time.perf_counter() - self._started
        self.cpu_s = time.process_time() - self._cpu_started
        self._save()

    def delete(self):
        """Removes the run's checkpoint."""
        shutil.rmtree(self._file.parent, ignore_errors=True)

    def _save(self):
        progress = {
            "config": self._config.comparable(),
            "epoch": self._epoch,
            "history": self.history,
            "wall_clock_s": self.wall_clock_s,
            "cpu_s": self.cpu_s,
        }
        if self._cluster.size > 1 and self._file.exists():
            self._file.replace(self._previous)
        save_state(self._file, progress, [v.numpy() for v in variables(self.model)])


def variables(model: keras.Model) -> list:
    """Everything that a training step reads and writes and that outlives an epoch.

    Args:
        model: A compiled, built cohort.

    Returns:
        Its weights, seed generators' states and optimizers' variables, in a fixed order.
    """
    return [*model.variables, *(v for optimizer in model.optimizers for v in optimizer.variables)]


def peer_variables(cohort: keras.Model, k: int) -> list:
    """What training changes of one student.

    Args:
        cohort: A compiled, built cohort.
        k: Index of a peer that this process trains.

    Returns:
        Variables of its network, seed generators' included, and of its optimizer.
    """
    optimizer = cohort.optimizers[cohort.trained.index(k)]
    return [*cohort.networks[k].variables, *optimizer.variables]
