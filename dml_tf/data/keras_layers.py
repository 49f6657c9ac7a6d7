"""RandAugment by Keras's own layer, as a function of the seed and the step.

Keras's layers draw from a generator whose state moves on; a resumed run would draw anew.
"""

from collections.abc import Callable

import keras
import tensorflow as tf


class Draws(keras.random.SeedGenerator):
    """Gives a layer seeds that follow from a key, the same ones whenever the key is the same."""

    def __init__(self):
        super().__init__(seed=0)
        self._key, self._count = None, 0

    def start(self, key: tf.Tensor):
        """Begins the seeds of a key, two integers of shape `(2,)`."""
        self._key, self._count = key, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """The next seed."""
        self._count += 1
        return tf.random.experimental.stateless_fold_in(self._key, self._count)


def rand_augment() -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function from pixels of 0 to 255, `(batch, height, width, 3)`, and a key to such pixels.

    Two of its operations, drawn for the batch, are applied with strengths drawn for each image
    (Cubuk et al., RandAugment, 2020).
    """
    layer, draws = keras.layers.RandAugment(value_range=(0, 255)), Draws()
    layer.generator = draws

    def augment(pixels: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        draws.start(key)
        return layer(tf.cast(pixels, tf.float32), training=True)

    return augment
