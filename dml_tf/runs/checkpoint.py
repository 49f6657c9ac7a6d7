"""Checkpoints of an unfinished run: at every moment there is one whole file on disk.

Keras's BackupAndRestore is not enough. It writes the weights and then the epoch's number, each in
place, and leaves out the seed generators. A run killed between the two files repeats an epoch, one
killed while the weights are written cannot resume, and dropout draws other masks.
"""

import shutil
import time
from pathlib import Path

import keras

from dml_tf.data import Splits
from dml_tf.errors import RecordMismatch
from dml_tf.runs import records
from dml_tf.runs.config import Config
from dml_tf.runs.files import load_state, save_state
from dml_tf.runs.parallel.cluster import Cluster


class Checkpoint(keras.callbacks.Callback):
    """Saves a cohort and its history after every epoch, and restores them.

    One file holds weights, optimizers, seed generators, history and times.

    Args:
        folder: Folder of this run's checkpoint; it holds nothing else.
        config: The run's settings; a checkpoint made with others is refused.
        cluster: The processes of the run, each with a checkpoint of its own. They resume after
            the last epoch that all have finished, so each keeps its last two.
        splits: The run's data; a checkpoint of others is refused. Not compared if left out.

    Attributes:
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
        self._file = folder / "state.npz"
        self._previous = folder / "previous.npz"
        self._cluster = cluster or Cluster()
        self._config, self._splits = config, splits
        self._epoch = 0
        self._data = {}
        if splits:
            self._data = {"identity": splits.identity, "digest": splits.digests}
        self.history: dict[str, list[float]] = {}
        self.wall_clock_s = 0.0
        self.cpu_s = 0.0
        self.warnings: dict[str, str] = {}

    def restore(self, model: keras.Model) -> int:
        """Loads the newest checkpoint, if there is one, into a compiled and built cohort.

        Returns:
            Number of finished epochs.

        Raises:
            RecordMismatch: The checkpoint belongs to other settings, or is damaged.
        """
        try:
            found = [self._load(file) for file in (self._file, self._previous) if file.exists()]
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
        if not epoch:
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
        # The state of an exported step has its metrics' variables after the cohort's.
        for variable, array in zip(variables(model), arrays, strict=False):
            variable.assign(array)
        self._epoch, self.history = progress["epoch"], progress["history"]
        self.wall_clock_s, self.cpu_s = progress["wall_clock_s"], progress["cpu_s"]
        self.warnings = progress.get("warnings", {})
        return self._epoch

    def _load(self, file: Path) -> tuple[dict, list]:
        try:
            progress, arrays = load_state(file)
        except ValueError as error:
            raise RecordMismatch(str(error)) from error
        records.refuse_mismatch(progress["config"], self._config, file)
        if self._splits:
            records.refuse_other_data(progress, self._config, file, self._splits)
        return progress, arrays

    def on_train_begin(self, logs=None):
        """Starts the clocks."""
        self._started = time.perf_counter() - self.wall_clock_s
        self._cpu_started = time.process_time() - self.cpu_s

    def on_epoch_end(self, epoch, logs=None):
        """Saves the state after an epoch."""
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
            **self._data,
            "epoch": self._epoch,
            "history": self.history,
            "wall_clock_s": self.wall_clock_s,
            "cpu_s": self.cpu_s,
            "warnings": self.warnings,
        }
        if self._cluster.size > 1 and self._file.exists():
            self._file.replace(self._previous)
        save_state(self._file, progress, [v.numpy() for v in variables(self.model)])


def variables(model: keras.Model) -> list:
    """A cohort's weights, seed generators and optimizers' variables, in a fixed order."""
    return [*model.variables, *(v for optimizer in model.optimizers for v in optimizer.variables)]


def peer_variables(cohort: keras.Model, k: int) -> list:
    """The variables of peer k, which this process trains: its network's and its optimizer's."""
    optimizer = cohort.optimizers[cohort.trained.index(k)]
    return [*cohort.networks[k].variables, *optimizer.variables]
