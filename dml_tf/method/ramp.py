"""How the weight of the mimicry loss changes with the steps: a start without it, then a ramp."""

from collections.abc import Callable
from typing import Self

import keras
import tensorflow as tf

Weight = float | Callable[[tf.Tensor], tf.Tensor]


@keras.saving.register_keras_serializable(package="dml_tf")
class Ramp:
    """A weight of the mimicry loss that rises with the steps; a `mimicry_weight` of `Cohort`.

    0 in the first `burn_in` steps (codistillation, Anil et al., ICLR 2018, arXiv 1804.03235), then
    `weight` x exp(-5 (1 - t)^2), where t rises from 0 to 1 within `steps` steps (Laine and Aila,
    ICLR 2017, arXiv 1610.02242), then `weight`.

    Args:
        steps: Length of the ramp in training steps; 0: the weight is whole at once.
        weight: The final weight.
        burn_in: Steps before the ramp, without mimicry.

    Raises:
        ValueError: A number is negative.

    Examples:
        >>> ramp = Ramp(steps=10, burn_in=5)
        >>> [round(float(ramp(step)), 3) for step in (4, 5, 10, 15)]
        [0.0, 0.007, 0.287, 1.0]
    """

    def __init__(self, steps: int, weight: float = 1.0, burn_in: int = 0):
        if min(steps, weight, burn_in) < 0:
            raise ValueError(f"A ramp has no negative numbers; got {steps}, {weight}, {burn_in}.")
        self.steps, self.weight, self.burn_in = steps, weight, burn_in

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The weight at a step, counted from 0: a scalar, float32."""
        since = tf.cast(step, tf.float32) - self.burn_in
        short = 1 - tf.minimum(since / self.steps, 1.0) if self.steps else tf.zeros_like(since)
        return tf.where(since < 0, 0.0, self.weight * tf.exp(-5 * tf.square(short)))

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {"steps": self.steps, "weight": self.weight, "burn_in": self.burn_in}

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Makes the ramp from `get_config`'s result."""
        return cls(**config)


def at(weight: Weight, step: tf.Tensor) -> float | tf.Tensor:
    """A weight at a step; a number is the same at all steps."""
    return weight(step) if callable(weight) else weight
