"""Entropy-SGD, the optimizer that Table 5 compares with as 'Entropy'."""

from collections.abc import Sequence

import keras
import tensorflow as tf

# The largest langevin_rate x scope that the scope grows to. See the class.
LARGEST_PULL = 0.5

_OPTIONS = (
    "langevin_steps", "langevin_rate", "langevin_noise", "langevin_average",
    "scope", "scope_growth", "momentum", "seed",
)  # fmt: skip


@keras.saving.register_keras_serializable(package="dml_tf")
class EntropySGD(keras.optimizers.Optimizer):
    """Entropy-SGD (Chaudhari et al. 2017, arXiv 1611.01838, Algorithm 1; Table 5's 'Entropy').

    It descends the negative local entropy of the loss f at weights x. That gradient points away
    from the mean of x' ~ exp(-f(x') - scope/2 |x - x'|^2). L steps of Langevin dynamics estimate
    the mean. They start from x' = mu = x, and each mini-batch makes one step:

        x' <- x' - langevin_rate (grad f(x') - scope (x - x')) + sqrt(langevin_rate) noise N(0, I)
        mu <- (1 - langevin_average) mu + langevin_average x'

    After L steps the weights move: x <- x - learning_rate (x - mu). One call of the optimizer is
    one Langevin step, and every L-th call also moves x. So a training step is a gradient on one
    mini-batch, as with every other optimizer. A run of E epochs moves x
    E x steps_per_epoch / L times. (Chaudhari et al. call L of our epochs one epoch.)

    Between moves the network's variables hold x', because the gradient is taken there, and x waits
    in a slot. Metrics during training are therefore of x', also those of validation.
    `finalize_variable_values` puts x back and drops the Langevin steps since the last move: call it
    before the network is measured or saved. `Cohort.fit` does not. A loop starts from what the
    variables hold.

    The noise is a function of seed, step and variable, so that a run resumes exactly. Weight decay
    belongs in the loss, as a regularizer. With `use_ema` the average is over x'.

    Three choices follow the authors' released code. `learning_rate` is Algorithm 1's learning rate
    times scope: at 1, x becomes mu. (At their scopes of 1e-4 to 0.03 the printed form would hardly
    move x.) The scope grows as `scope (1 + scope_growth)^moves`. `momentum` is Nesterov's, of the
    loss's gradient, within one Langevin loop. With `langevin_steps=1` and no noise a call is one
    of SGD with rate `learning_rate x langevin_average x langevin_rate`.

    The growth ends where `langevin_rate x scope` is 1/2, which is ours. A Langevin step multiplies
    x' - x by 1 - langevin_rate x scope: above 1 it overshoots x, and above 2 the weights diverge.
    Chaudhari et al. (Sec. 4.3) want a growth at which the local entropy's gradient stays comparable
    to SGD's, and found a bounded scope as good. Under a gradient g, the samples settle at a
    distance of g / scope from x. At the bound these are two steps of SGD at `langevin_rate`, and
    half of each Langevin step is left to the loss's own curvature.

    Args:
        learning_rate: Part of the way from x to mu that a move goes; a number or a schedule.
        langevin_steps: L, Langevin steps for each move of the weights.
        langevin_rate: Step size of the Langevin dynamics; it follows no schedule.
        langevin_noise: Thermal noise epsilon.
        langevin_average: Weight alpha of the newest x' in mu.
        scope: Strength gamma_0 of the pull towards x; large values keep x' near.
        scope_growth: gamma_1, by which the scope grows with every move, up to its bound.
        momentum: Of the Langevin steps; it starts from rest in each loop.
        seed: Of the noise; give each peer its own.
        name: The optimizer's name.
        **kwargs: Other arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For `gradient_accumulation_steps`, which would hide steps from the loop, or a
            `langevin_rate x scope` of 1 or more.

    Examples:
        >>> optimizer = EntropySGD(langevin_steps=2, langevin_noise=0.0, langevin_average=1.0)
        >>> weight = keras.Variable([1.0])
        >>> for _ in range(2):
        ...     optimizer.apply([2 * weight], [weight])  # of weight^2
        >>> round(float(weight[0]), 4)  # 1, then 0.8, then 0.8 - 0.1 (1.6 - 0.03 x 0.2)
        0.6406
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1.0,
        *,
        langevin_steps: int = 20,
        langevin_rate: float = 0.1,
        langevin_noise: float = 1e-4,
        langevin_average: float = 0.75,
        scope: float = 0.03,
        scope_growth: float = 1e-3,
        momentum: float = 0.0,
        seed: int = 0,
        name: str = "entropy_sgd",
        **kwargs,
    ):
        super().__init__(learning_rate, name=name, **kwargs)
        if self.gradient_accumulation_steps:
            raise ValueError("EntropySGD takes no gradient_accumulation_steps: use larger batches.")
        if langevin_rate * scope >= 1:
            raise ValueError(
                f"langevin_rate x scope is {langevin_rate:g} x {scope:g} and must be below 1, or "
                "the Langevin steps overshoot the weights: lower one of them."
            )
        self.langevin_steps = langevin_steps
        self.langevin_rate = langevin_rate
        self.langevin_noise = langevin_noise
        self.langevin_average = langevin_average
        self.scope = scope
        self.scope_growth = scope_growth
        self.momentum = momentum
        self.seed = seed

    def build(self, variables: Sequence[keras.Variable]):
        """Makes the optimizer's variables for those that it will train."""
        if not self.built:
            super().build(variables)
            names = ["weights", "mean", "momentum"]
            self._slots = list(zip(*self.add_optimizer_variables(variables, names), strict=True))

    def update_step(self, gradient, variable, learning_rate):
        """One Langevin step of x', which `variable` holds; a loop's last step moves the weights."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        slots, count = self._slots[index], tf.cast(self.iterations, tf.int64)
        starts = count % self.langevin_steps == 0
        ends = (count + 1) % self.langevin_steps == 0
        at_start = variable, variable, tf.zeros_like(variable)
        weights, mean, velocity = (
            tf.where(starts, new, kept) for new, kept in zip(at_start, slots, strict=True)
        )
        gradient = tf.cast(gradient, dtype)
        velocity = self.momentum * velocity + gradient
        pull = tf.cast(self.scope_at(count), dtype) * (weights - variable)
        sample = variable - self.langevin_rate * (gradient + self.momentum * velocity - pull)
        sample += self._noise(count, index, variable)
        mean += self.langevin_average * (sample - mean)
        for slot, value in zip(slots, (weights, mean, velocity), strict=True):
            self.assign(slot, value)
        moved = weights - tf.cast(learning_rate, dtype) * (weights - mean)
        self.assign(variable, tf.where(ends, moved, sample))

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]):
        """Puts the weights x in the place of x' if a Langevin loop is not complete."""
        if int(self.iterations) % self.langevin_steps:
            for variable in var_list:
                variable.assign(self._slots[self._get_variable_index(variable)][0])
        super().finalize_variable_values(var_list)

    def scope_at(self, count: int | tf.Tensor) -> tf.Tensor:
        """Scope of a Langevin step, float32; steps count from 0, over the whole run."""
        moves = tf.cast(count // self.langevin_steps, tf.float32)
        grown = self.scope * (1.0 + self.scope_growth) ** moves
        return tf.minimum(grown, max(self.scope, LARGEST_PULL / (self.langevin_rate or 1.0)))

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {**super().get_config(), **{name: getattr(self, name) for name in _OPTIONS}}

    def _noise(self, count: tf.Tensor, index: int, variable: tf.Variable) -> tf.Tensor:
        draw = count * len(self._slots) + index  # different for every step and variable
        seed = tf.stack([tf.constant(self.seed, tf.int64), draw])
        normal = tf.random.stateless_normal(variable.shape, seed, dtype=variable.dtype)
        return self.langevin_rate**0.5 * self.langevin_noise * normal
