"""The paper's optimizers and their schedule, Sec. 4.1."""

import keras
from keras.optimizers.schedules import ExponentialDecay, LearningRateSchedule

from dml_tf.method.entropy_sgd import EntropySGD


@keras.saving.register_keras_serializable(package="dml_tf")
class RMSprop(keras.optimizers.RMSprop):
    """RMSProp whose mean square may start at a value other than Keras's 0.

    TensorFlow 1, in which the paper's experiments ran, starts it at 1. The first steps are then
    the learning rate times the gradient, not times the gradient's sign.

    Args:
        mean_square_start: Initial value of the moving mean of squared gradients.
        **kwargs: Arguments of `keras.optimizers.RMSprop`.
    """

    def __init__(self, *args, mean_square_start: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.mean_square_start = mean_square_start

    def build(self, variables):
        """Makes the optimizer's variables for those that it will train."""
        if not self.built:
            super().build(variables)
            for mean_square in self._velocities:
                mean_square.assign(
                    keras.ops.full(mean_square.shape, self.mean_square_start, mean_square.dtype)
                )

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {**super().get_config(), "mean_square_start": self.mean_square_start}


@keras.saving.register_keras_serializable(package="dml_tf")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW, whose decay leaves biases and BatchNorm alone, also when copied or loaded.

    Args:
        **kwargs: Arguments of `keras.optimizers.AdamW`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])


def build(
    name: str,
    learning_rate: float | LearningRateSchedule,
    *,
    momentum: float = 0.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    rho: float = 0.9,
    epsilon: float = 1e-7,
    mean_square_start: float = 0.0,
    weight_decay: float = 0.0,
    ema: float = 0.0,
    seed: int = 0,
    **langevin,
) -> keras.optimizers.Optimizer:
    """One of the paper's optimizers. Arguments of another optimizer have no effect.

    Args:
        name: `sgd` (Nesterov's if `momentum` is above 0), `adam`, `adamw`, `rmsprop` or
            `entropy_sgd`.
        learning_rate: A number, or a schedule over training steps, as `staircase` gives it.
        momentum: Of sgd, rmsprop and entropy_sgd.
        beta_1: Of adam and adamw: decay of the first moment.
        beta_2: Of adam and adamw: decay of the second moment.
        rho: Of rmsprop: decay of the mean square.
        epsilon: Of adam, adamw and rmsprop: added to the denominator.
        mean_square_start: Of rmsprop: initial mean square.
        weight_decay: Of adamw: decoupled decay of kernels, not of biases or BatchNorm.
        ema: Decay of the averaged weights; 0 for none.
        seed: Of entropy_sgd's noise; give each peer its own.
        **langevin: Further arguments of `EntropySGD`.

    Returns:
        A new optimizer.

    Raises:
        ValueError: For another name.

    Examples:
        >>> sgd = build("sgd", staircase(0.1, 0.1, steps=781 * 60), momentum=0.9)
        >>> sgd.nesterov, round(float(sgd.learning_rate), 3)
        (True, 0.1)
    """
    average = {"use_ema": True, "ema_momentum": ema} if ema else {}
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum, nesterov=momentum > 0, **average)
    if name == "adam":
        return keras.optimizers.Adam(learning_rate, beta_1, beta_2, epsilon, **average)
    if name == "adamw":
        return AdamW(learning_rate, weight_decay, beta_1, beta_2, epsilon, **average)
    if name == "rmsprop":
        return RMSprop(
            learning_rate,
            rho=rho,
            momentum=momentum,
            epsilon=epsilon,
            mean_square_start=mean_square_start,
            **average,
        )
    if name == "entropy_sgd":
        return EntropySGD(learning_rate, momentum=momentum, seed=seed, **langevin, **average)
    raise ValueError(
        f"There is no optimizer {name!r}: use sgd, adam, adamw, rmsprop or entropy_sgd."
    )


def staircase(learning_rate: float, decay_rate: float, steps: int) -> float | LearningRateSchedule:
    """The paper's schedule: `learning_rate x decay_rate^floor(step / steps)`.

    Args:
        learning_rate: Initial learning rate.
        decay_rate: Factor of each drop.
        steps: Training steps between drops; 0 for none.

    Returns:
        A Keras schedule over training steps, or the number if there are no drops.

    Examples:
        >>> schedule = staircase(0.1, 0.16, steps=20)
        >>> [round(float(schedule(step)), 4) for step in (0, 19, 20, 40)]
        [0.1, 0.1, 0.016, 0.0026]
    """
    if not steps:
        return learning_rate
    return ExponentialDecay(learning_rate, steps, decay_rate, staircase=True)
