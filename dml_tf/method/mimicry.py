"""Mimicry losses: how far a student is from its peers, Eqs. (7), (10) and (11).

A cohort asks for the loss of one student at a time and gives the logits of all its peers. The
peers' logits are constants.
"""

import abc
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from dml_tf.method import checks, losses

Reduction = Callable[[Sequence[tf.Tensor]], tf.Tensor]


class Mimicry(abc.ABC):
    """A mimicry loss with options of its own; a subclass has the divergence.

    Args:
        temperature: Divisor of all logits, above 0. The loss is multiplied by its square, so that
            the gradient keeps its size.

    Raises:
        ValueError: For a temperature that is not above 0.
    """

    def __init__(self, temperature: float = 1.0):
        checks.check_temperature(temperature)
        self.temperature = temperature

    def __call__(self, student, peer, labels=None, step=None) -> tf.Tensor:
        """The loss of one peer, shape `(batch,)`: the form of every callable mimicry."""
        return self.loss(student, [peer], tf.add_n)

    def loss(
        self, student: tf.Tensor, peers: Sequence[tf.Tensor], reduction: Reduction
    ) -> tf.Tensor:
        """Loss of each example.

        Args:
            student: Logits of the student, shape `(batch, classes)`.
            peers: Logits of each peer, of the same shape.
            reduction: Mean or sum over peers, of tensors of shape `(batch,)`.

        Returns:
            Nats, float32, shape `(batch,)`.
        """
        log_q = losses.log_posterior(student, self.temperature)
        log_p = [losses.log_posterior(peer, self.temperature) for peer in peers]
        return self.temperature**2 * reduction([self.divergence(p, log_q) for p in log_p])

    @abc.abstractmethod
    def divergence(self, log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """How far the student q is from one peer p, shape `(batch,)`, from log-posteriors."""

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {"temperature": self.temperature}

    @classmethod
    def from_config(cls, config: dict) -> "Mimicry":
        """Makes the loss from `get_config`'s result."""
        return cls(**config)


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

    def divergence(self, log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """Eq. (4)."""
        return losses.kl_divergence(log_p, log_q)


@keras.saving.register_keras_serializable(package="dml_tf")
class JS(Mimicry):
    """Half the symmetric divergence of each peer, Eq. (7) as printed; the name `js`.

    Args:
        temperature: Divisor of all logits, above 0.
    """

    def divergence(self, log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """Eq. (7)."""
        return losses.js_divergence(log_p, log_q)


@keras.saving.register_keras_serializable(package="dml_tf")
class Ensemble(KL):
    """D_KL(p_avg || p_k), the DML_e of Eq. (11); the name `ensemble`.

    Args:
        temperature: Divisor of all logits, above 0.
        average: `probability` (Eq. 11) or `logit`.
    """

    def __init__(self, temperature: float = 1.0, average: str = "probability"):
        super().__init__(temperature)
        checks.check_choice("average", average, checks.ENSEMBLE_AVERAGES)
        self.average = average

    def loss(
        self, student: tf.Tensor, peers: Sequence[tf.Tensor], reduction: Reduction
    ) -> tf.Tensor:
        """As of every mimicry loss; an ensemble is one teacher, and nothing is reduced."""
        log_p = losses.ensemble_log_posterior(peers, self.average, self.temperature)
        log_q = losses.log_posterior(student, self.temperature)
        return self.temperature**2 * self.divergence(log_p, log_q)

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return {**super().get_config(), "average": self.average}


class KerasLoss(Mimicry):
    """A Keras loss between the posterior of a peer, as `y_true`, and that of the student.

    Args:
        loss: One of `keras.losses` that compares distributions. If it has `from_logits=True` it
            gets the student's logits.
        temperature: Divisor of all logits, above 0.

    Raises:
        ValueError: The loss takes class indices.
    """

    def __init__(self, loss: keras.losses.Loss, temperature: float = 1.0):
        super().__init__(temperature)
        checks.check_keras_loss(loss)
        self._loss = loss
        self._takes_logits = bool(loss.get_config().get("from_logits"))

    def divergence(self, log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """Keras's value for each example; a log-posterior serves as logits."""
        return self._loss.call(tf.exp(log_p), log_q if self._takes_logits else tf.exp(log_q))


def resolve(
    chosen, temperature: float, ensemble_average: str
) -> "Mimicry | Callable[..., tf.Tensor] | None":
    """The mimicry loss that a cohort's option stands for; None for `none`."""
    if chosen == "ensemble":
        return Ensemble(temperature, ensemble_average)
    if isinstance(chosen, keras.losses.Loss):
        return KerasLoss(chosen, temperature)
    if isinstance(chosen, str):
        return {"kl": KL, "js": JS}[chosen](temperature) if chosen != "none" else None
    return chosen


def of_student(
    chosen: "Mimicry | Callable[..., tf.Tensor] | None",
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
        return chosen.loss(student, peers, reduction)
    return reduction([chosen(student, peer, labels, step) for peer in peers])
