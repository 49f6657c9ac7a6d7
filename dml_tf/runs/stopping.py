"""Early stopping on validation images; a function of the run's history, so that runs resume."""

from pathlib import Path

import keras
import numpy as np

from dml_tf.runs.checkpoint import Checkpoint, values, variables
from dml_tf.runs.files import load_state, save_state


class StopEarly(keras.callbacks.Callback):
    """Ends a run whose validation accuracy no longer rises, and restores the best epoch's weights.

    It comes before the checkpoint in the list of callbacks: the best weights are on disk before
    the checkpoint counts their epoch.

    Args:
        patience: Epochs without a better mean of the peers' accuracies.
        checkpoint: The run's checkpoint, whose folder keeps the best weights.
    """

    def __init__(self, patience: int, checkpoint: Checkpoint):
        super().__init__()
        self._patience, self._checkpoint = patience, checkpoint

    @property
    def is_over(self) -> bool:
        """Whether the finished epochs end the run."""
        return self._ends(_accuracies(self._checkpoint.history))

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the weights of the best epoch so far; may end the training."""
        now = _accuracies({name: [value] for name, value in logs.items()})
        accuracies = [*_accuracies(self._checkpoint.history), *now]
        if int(np.argmax(accuracies)) == len(accuracies) - 1:
            arrays = values(variables(self.model))
            save_state(self._best, {"epoch": epoch + 1}, arrays)
            self._checkpoint.is_wanted = True  # lest a resumed run has weights of a lost epoch
        if self._ends(accuracies):
            self.model.stop_training = True

    def restore(self, model: keras.Model) -> int:
        """Gives a trained cohort its best weights; the count of its steps stays.

        Returns:
            The best epoch, counted from 1.
        """
        progress, arrays = load_state(self._best)
        steps = [int(optimizer.iterations.numpy()) for optimizer in model.optimizers]
        for variable, array in zip(variables(model), arrays, strict=True):
            variable.assign(array)
        for optimizer, count in zip(model.optimizers, steps, strict=True):
            optimizer.iterations.assign(count)
        return progress["epoch"]

    @property
    def _best(self) -> Path:
        return self._checkpoint.folder / "best.npz"

    def _ends(self, accuracies: list[float]) -> bool:
        return bool(accuracies) and len(accuracies) - 1 - np.argmax(accuracies) >= self._patience


def best_epoch(history: dict[str, list[float]]) -> int:
    """The first epoch, counted from 1, with the best mean of the peers' validation accuracies."""
    return int(np.argmax(_accuracies(history))) + 1


def _accuracies(history: dict[str, list[float]]) -> list[float]:
    """Mean of the peers' validation accuracies after each epoch."""
    peers = [
        values
        for name, values in history.items()
        if name.startswith("val_")
        and name.endswith("_accuracy")
        and name != "val_ensemble_accuracy"
    ]
    return np.mean(peers, axis=0).tolist() if peers else []
