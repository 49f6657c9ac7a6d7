"""The paper's optimizers and their schedules, Sec. 4.1, made from a Config."""

import keras
import numpy as np

from dml_tf.config import Config
from dml_tf.entropy_sgd import EntropySGD


@keras.saving.register_keras_serializable(package="dml_tf")
class RMSprop(keras.optimizers.RMSprop):
    """RMSProp whose mean square may start at a value other than Keras's 0.

    TensorFlow 1, in which the paper's experiments ran, starts it at 1: the first steps are then
    the learning rate times the gradient, not its sign.

    Args:
        mean_square_start: Initial value of the moving mean of squared gradients.
        **kwargs: Arguments of `keras.optimizers.RMSprop`.
    """

    def __init__(self, *args, mean_square_start: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.mean_square_start = mean_square_start

    def build(self, variables):
        """Makes the optimizer's variables.

        Args:
            variables: Variables that it will train.
        """
        if not self.built:
            super().build(variables)
            for mean_square in self._velocities:
                mean_square.assign(
                    keras.ops.full(mean_square.shape, self.mean_square_start, mean_square.dtype)
                )

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {**super().get_config(), "mean_square_start": self.mean_square_start}


def build(config: Config, steps_per_epoch: int, peer: int = 0) -> keras.optimizers.Optimizer:
    """The optimizer of one peer, with its learning-rate schedule.

    Args:
        config: The run's settings.
        steps_per_epoch: Training steps in an epoch, the unit of the schedule.
        peer: Which peer; each has its own noise.

    Returns:
        A new optimizer.

    Example:
        >>> from dml_tf.config import load
        >>> sgd = build(load(dataset="cifar10", net=("resnet32",)), steps_per_epoch=781)
        >>> sgd.nesterov, round(float(sgd.learning_rate), 3)
        (True, 0.1)
    """
    rate = learning_rate(config, steps_per_epoch)
    average = {"use_ema": True, "ema_momentum": config.ema} if config.ema else {}
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return keras.optimizers.SGD(rate, config.momentum, nesterov, **average)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(
            rate, config.beta_1, config.beta_2, epsilon=config.epsilon, **average
        )
    if config.optimizer == "entropy_sgd":
        return EntropySGD(
            rate,
            langevin_steps=config.langevin_steps,
            langevin_rate=config.langevin_rate,
            langevin_noise=config.langevin_noise,
            langevin_average=config.langevin_average,
            scope=config.scope,
            scope_growth=config.scope_growth,
            momentum=config.momentum,
            seed=int(np.random.SeedSequence([config.seed, peer]).generate_state(1)[0]),
            **average,
        )
    return RMSprop(
        rate,
        rho=config.rho,
        momentum=config.momentum,
        epsilon=config.epsilon,
        mean_square_start=config.mean_square_start,
        **average,
    )


def learning_rate(config: Config, steps_per_epoch: int):
    """A staircase: `learning_rate x decay_rate^floor(epoch / decay_epochs)`, or a constant.

    Args:
        config: The run's settings.
        steps_per_epoch: Training steps in an epoch.

    Returns:
        A Keras schedule over training steps, or a number.
    """
    if not config.decay_epochs:
        return config.learning_rate
    return keras.optimizers.schedules.ExponentialDecay(
        config.learning_rate,
        decay_steps=config.decay_epochs * steps_per_epoch,
        decay_rate=config.decay_rate,
        staircase=True,
    )
