"""Keras callbacks of a run."""

import math

import keras

from dml_tf.errors import RunFailed


class StopAtNaN(keras.callbacks.Callback):
    """Ends a run whose loss is not a finite number, before its weights are saved."""

    def on_train_batch_end(self, batch, logs=None):
        """Raises `RunFailed` if a peer's loss is not finite."""
        for name, value in logs.items():
            peer, is_loss, _ = name.partition("_supervised_loss")
            if is_loss and not math.isfinite(value):
                step = int(self.model.optimizers[0].iterations.numpy())
                raise RunFailed(
                    f"The loss of peer {peer} is {value} at step {step}. The weights of the last "
                    "finished epoch are kept. Try a smaller --learning_rate."
                )


class StopAfter(keras.callbacks.Callback):
    """Ends training after a number of steps, in the middle of an epoch if need be."""

    def __init__(self, steps: int, per_epoch: int):
        super().__init__()
        self._steps, self._per_epoch, self._before = steps, per_epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the steps of the epochs before."""
        self._before = epoch * self._per_epoch

    def on_train_batch_end(self, batch, logs=None):
        """Counts every step, also one that a loss scale skipped, so that processes agree."""
        if self._before + batch + 1 >= self._steps:
            self.model.stop_training = True


class Progress(keras.callbacks.ProgbarLogger):
    """Keras's progress bar with the accuracies only; TensorBoard and the record have the rest."""

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        super().on_train_batch_end(batch, _accuracies(logs))

    def on_epoch_end(self, epoch, logs=None):
        """Ends the bar."""
        super().on_epoch_end(epoch, _accuracies(logs))


def _accuracies(logs: dict) -> dict:
    return {name: value for name, value in logs.items() if name.endswith("_accuracy")}
