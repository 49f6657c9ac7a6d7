"""Keras callbacks of a run."""

import math
import warnings

import keras
import numpy as np

from dml_tf.data import Split
from dml_tf.errors import RunFailed
from dml_tf.runs.checkpoint import Checkpoint, peer_variables, values
from dml_tf.runs.config import Config

_LOSSES = {"_supervised_loss": "loss", "_mimicry_loss": "mimicry loss"}
_KEPT = "The last checkpoint is kept. Try a smaller --learning_rate."
EPOCHS_AT_CHANCE = 10  # after so many a peer is named


class StopAtNaN(keras.callbacks.Callback):
    """Ends a run with a loss or weight that is not a finite number, before weights are saved.

    Args:
        checkpoint: Saves the weights; it must follow in the list of callbacks. Without one,
            weights are examined after every epoch.
    """

    def __init__(self, checkpoint: Checkpoint | None = None):
        super().__init__()
        self._checkpoint = checkpoint

    def on_train_batch_end(self, batch, logs=None):
        """Raises `RunFailed` if a peer's loss is not finite, or a weight that will be saved."""
        self._refuse(logs, "")
        if self._checkpoint and self._checkpoint.is_due_in_epoch:
            self._refuse_weights()

    def on_epoch_end(self, epoch, logs=None):
        """Raises `RunFailed` if a measure is not finite, or a weight that will be saved."""
        if self._checkpoint is None or self._checkpoint.is_due:
            self._refuse_weights()
        self._refuse(logs, "val_")

    def on_train_end(self, logs=None):
        """Raises `RunFailed` if a weight of the last step, which will be saved, is not finite."""
        self._refuse_weights()

    def _refuse_weights(self):
        for k in self.model.trained:
            refuse_not_finite(
                peer_variables(self.model, k),
                f"A weight of peer {self.model.peer_names[k]} is not finite at step {self._step}. "
                f"{_KEPT}",
            )

    @property
    def _step(self) -> int:
        return int(self.model.optimizers[0].iterations.numpy())

    def _refuse(self, logs: dict, prefix: str):
        images = " on the images measured after an epoch" if prefix else ""
        for peer in self.model.peer_names:
            for suffix, loss in _LOSSES.items():
                value = logs.get(f"{prefix}{peer}{suffix}", 0.0)
                if not math.isfinite(value):
                    at = f"at step {self._step}{images}"
                    raise RunFailed(f"The {loss} of peer {peer} is {value} {at}. {_KEPT}")


def refuse_not_finite(variables: list, message: str):
    """Raises `RunFailed` with the message if one of the variables holds a NaN or an infinity."""
    floats = [variable for variable in variables if "float" in str(variable.dtype)]
    if not all(np.isfinite(array).all() for array in values(floats)):
        raise RunFailed(message)


class Warn(keras.callbacks.Callback):
    """Warns, once, of a run that trains but does not learn. The record keeps the warnings.

    Args:
        config: The run's settings.
        train: Its training images.
        checkpoint: Keeps the warnings; it must follow in the list of callbacks.
    """

    def __init__(self, config: Config, train: Split, checkpoint: Checkpoint):
        super().__init__()
        self._rate, self._checkpoint = config.learning_rate, checkpoint
        self._chance = accuracy_at_chance(train.labels)
        self._before: dict[int, np.ndarray] = {}
        self._epoch, self._compared = 0, False

    def on_train_begin(self, logs=None):
        """Warns of a learning rate of 0, and notes the weights."""
        if self._rate == 0:
            self._say("learning rate", "--learning_rate=0: no weight will move.")
        self._before = {k: self._weights(k) for k in self.model.trained}

    def on_epoch_end(self, epoch, logs=None):
        """Warns of a peer that did not move, or has been at chance for ten epochs."""
        self._epoch = epoch + 1
        if self._checkpoint.is_due:  # reading all weights costs as much as a checkpoint
            self._warn_of_standing_still()
        for k in self.model.trained:
            name = self.model.peer_names[k]
            if self._is_at_chance(name, logs):
                self._say(
                    f"{name} at chance",
                    f"Peer {name} has been at chance for {EPOCHS_AT_CHANCE} epochs, to epoch "
                    f"{epoch + 1}: its accuracy on the training images never passed "
                    f"{100 * self._chance:.1f}%. Try another --learning_rate.",
                )

    def on_train_end(self, logs=None):
        """Warns of a peer that did not move in a run of a few seconds."""
        if not self._compared and self._epoch:
            self._warn_of_standing_still()

    def _warn_of_standing_still(self):
        self._compared = True
        for k in self.model.trained:
            name, before = self.model.peer_names[k], self._before[k]
            self._before[k] = self._weights(k)
            if self._rate and _is_rounding(self._before[k] - before, before):
                self._say(
                    f"{name} stands still",
                    f"Peer {name}: the optimizer moved no weight by more than rounding in the "
                    f"epochs to {self._epoch}. Its learning rate or its gradient is too small.",
                )

    def _is_at_chance(self, name: str, logs: dict) -> bool:
        metric = f"{name}_accuracy"
        values = [*self._checkpoint.history.get(metric, []), logs.get(metric, math.inf)]
        last = values[-EPOCHS_AT_CHANCE:]
        return len(last) == EPOCHS_AT_CHANCE and max(last) <= self._chance

    def _weights(self, k: int) -> np.ndarray:
        weights = self.model.networks[k].trainable_variables
        return np.concatenate([array.ravel() for array in values(weights)])

    def _say(self, key: str, message: str):
        if key not in self._checkpoint.warnings:
            self._checkpoint.warnings[key] = message
            warnings.warn(message, stacklevel=2)


def _is_rounding(moved: np.ndarray, weights: np.ndarray) -> bool:
    """Whether all movements are smaller than the rounding of the largest weight."""
    return bool(np.abs(moved).max() <= np.finfo(np.float32).eps * np.abs(weights).max())


def accuracy_at_chance(labels: np.ndarray) -> float:
    """The highest accuracy that naming the largest class gives, with two deviations of an epoch."""
    labelled = labels[labels >= 0]
    share = np.bincount(labelled).max() / len(labelled)
    return float(share + 2 * math.sqrt(share * (1 - share) / len(labelled)))


class StopAfter(keras.callbacks.Callback):
    """Ends training after a number of steps, in the middle of an epoch if need be.

    Args:
        steps: Steps of the run.
        per_epoch: Steps of an epoch.
        checkpoint: Counts the steps of the present epoch; it must precede in the callbacks.
    """

    def __init__(self, steps: int, per_epoch: int, checkpoint: Checkpoint):
        super().__init__()
        self._steps, self._per_epoch, self._checkpoint = steps, per_epoch, checkpoint
        self._before = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the steps of the epochs before."""
        self._before = epoch * self._per_epoch

    def on_train_batch_end(self, batch, logs=None):
        """Counts every step, also one that a loss scale skipped, so that processes agree."""
        if self._before + self._checkpoint.step >= self._steps:
            self.model.stop_training = True
