"""Mimicry losses: how far a student is from who teaches it, Eqs. (7), (10) and (11).

A mimicry loss is a target (`targets`: who teaches) and a divergence (`divergences`: how the
student is compared with it), at a temperature. A cohort asks for the loss of one student at a time
and gives the logits of all its peers. The peers' logits are constants.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from dml_tf.method import checks, divergences, losses, targets
from dml_tf.method.divergences import Divergence, OfKerasLoss
from dml_tf.method.targets import Target

Reduction = Callable[[Sequence[tf.Tensor]], tf.Tensor]


@keras.saving.register_keras_serializable(package="dml_tf")
class Mimicry:
    """A mimicry loss: who teaches, and how the student is compared with it.

    Args:
        target: A name in `targets.BY_NAME`, or a function of that form.
        divergence: A name in `divergences.BY_NAME`, an object such as `dml_tf.DKD(beta=4)`, a loss
            of `keras.losses`, or a function of that form.
        temperature: Divisor of all logits, above 0. The loss is multiplied by its square, so that
            the gradient keeps its size.
        standardise: Whether each network's logits get mean 0 and deviation 1 over the classes
            before they are divided by the temperature (Sun et al., CVPR 2024, arXiv 2403.01427).
            Then only their order and distances count, not their size.

    Raises:
        ValueError: For an unknown name, or a temperature that is not above 0.

    Examples:
        >>> import dml_tf, keras
        >>> nets = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in "ab"]
        >>> softer = dml_tf.Mimicry("min_logit", dml_tf.DKD(beta=4), temperature=2)
        >>> cohort = dml_tf.Cohort(nets, mimicry=softer)
    """

    def __init__(
        self,
        target: str | Target = "each",
        divergence: str | Divergence = "kl",
        temperature: float = 1.0,
        standardise: bool = False,
    ):
        checks.check_temperature(temperature)
        self.target, self.divergence = target, divergence
        self.temperature, self.standardise = temperature, standardise
        self._target = _named("target", target, targets.BY_NAME)
        if isinstance(divergence, keras.losses.Loss):
            divergence = OfKerasLoss(divergence)
        self._divergence = _named("divergence", divergence, divergences.BY_NAME)

    def __call__(self, student, peer, labels=None, step=None) -> tf.Tensor:
        """The loss of one peer, shape `(batch,)`: the form of every callable mimicry."""
        return self.loss(student, [peer], tf.add_n, labels, step)

    def loss(
        self,
        student: tf.Tensor,
        peers: Sequence[tf.Tensor],
        reduction: Reduction,
        labels: tf.Tensor | None = None,
        step: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Loss of each example.

        Args:
            student: Logits of the student, shape `(batch, classes)`.
            peers: Logits of each peer, of the same shape.
            reduction: Mean or sum over teachers, of tensors of shape `(batch,)`. One teacher for
                all peers, such as their mean, is not reduced.
            labels: Class indices, or distributions over the classes, as the cohort reads them.
            step: Number of training steps made.

        Returns:
            Nats, float32, shape `(batch,)`.
        """
        own = self._softened(student)
        log_q = losses.log_posterior(own)
        teachers = self._teachers(tf.stop_gradient(own), peers, labels, step)
        if isinstance(teachers, (list, tuple)):
            loss = reduction([self._divergence(log_p, log_q, labels) for log_p in teachers])
        else:
            loss = self._divergence(teachers, log_q, labels)
        return self.temperature**2 * loss

    def _teachers(self, own, peers, labels, step) -> tf.Tensor | Sequence[tf.Tensor]:
        """What the target gives: one log-posterior, or one for each teacher."""
        return self._target(own, [self._softened(peer) for peer in peers], labels, step)

    def _softened(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits, standardised if that is asked for, divided by the temperature; float32."""
        logits = tf.cast(logits, tf.float32)
        if self.standardise:
            logits -= tf.reduce_mean(logits, axis=-1, keepdims=True)
            variance = tf.reduce_mean(tf.square(logits), axis=-1, keepdims=True)
            logits *= tf.math.rsqrt(variance + 1e-12)  # finite where all logits are equal
        return logits / self.temperature

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {
            "target": _written(self.target),
            "divergence": _written(self.divergence),
            "temperature": self.temperature,
            "standardise": self.standardise,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Mimicry":
        """Makes the loss from `get_config`'s result."""
        read = keras.saving.deserialize_keras_object
        return cls(**{k: read(v) if isinstance(v, dict) else v for k, v in config.items()})


@keras.saving.register_keras_serializable(package="dml_tf")
class KL(Mimicry):
    """D_KL(p_l || p_k) of each peer l, Eq. (10); the name `kl`.

    Args:
        temperature: Divisor of all logits, above 0.

    Examples:
        >>> import dml_tf, keras
        >>> nets = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in "ab"]
        >>> cohort = dml_tf.Cohort(nets, mimicry=dml_tf.KL(temperature=2))
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__("each", "kl", temperature)

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {"temperature": self.temperature}


@keras.saving.register_keras_serializable(package="dml_tf")
class JS(Mimicry):
    """Half the symmetric divergence of each peer, Eq. (7) as printed; the name `js`.

    Args:
        temperature: Divisor of all logits, above 0.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__("each", "js", temperature)

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {"temperature": self.temperature}


@keras.saving.register_keras_serializable(package="dml_tf")
class Ensemble(Mimicry):
    """D_KL(p_avg || p_k), the DML_e of Eq. (11); the name `ensemble`.

    Args:
        temperature: Divisor of all logits, above 0.
        average: `probability` (Eq. 11) or `logit`.
    """

    def __init__(self, temperature: float = 1.0, average: str = "probability"):
        checks.check_choice("average", average, checks.ENSEMBLE_AVERAGES)
        super().__init__("mean" if average == "probability" else "logit_mean", "kl", temperature)
        self.average = average

    def _teachers(self, own, peers, labels, step) -> tf.Tensor:
        """The target's; logits are averaged before they are divided, which rounds otherwise."""
        return losses.ensemble_log_posterior(peers, self.average, self.temperature)

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {"temperature": self.temperature, "average": self.average}


def resolve(
    chosen, temperature: float, ensemble_average: str
) -> Mimicry | Callable[..., tf.Tensor] | None:
    """The mimicry loss that a cohort's option stands for; None for `none`."""
    if chosen == "ensemble":
        return Ensemble(temperature, ensemble_average)
    if isinstance(chosen, keras.losses.Loss):
        return Mimicry(divergence=chosen, temperature=temperature)
    if isinstance(chosen, str):
        return Mimicry(divergence=chosen, temperature=temperature) if chosen != "none" else None
    return chosen


def of_student(
    chosen: Mimicry | Callable[..., tf.Tensor] | None,
    student: tf.Tensor,
    peers: Sequence[tf.Tensor],
    labels: tf.Tensor,
    step: tf.Tensor,
    reduction: Reduction,
) -> tf.Tensor:
    """Mimicry term of each example, shape `(batch,)`, from logits `(batch, classes)`."""
    if chosen is None or not peers:
        return tf.zeros(tf.shape(student)[:1])
    if isinstance(chosen, Mimicry):
        return chosen.loss(student, peers, reduction, labels, step)
    return reduction([chosen(student, peer, labels, step) for peer in peers])


def _named(option: str, chosen, by_name: Mapping[str, Any]):
    """What a name stands for; a function stands for itself."""
    if callable(chosen):
        return chosen
    checks.check_choice(option, chosen, tuple(by_name))
    return by_name[chosen]


def _written(chosen):
    """A name as it is, an object or a function as Keras writes it."""
    return chosen if isinstance(chosen, str) else keras.saving.serialize_keras_object(chosen)
