"""How a student is compared with its teacher: the divergences of a `Mimicry`, by name.

A divergence is a function `(log_p, log_q, labels) -> (batch,)`: log-posteriors of the teacher p
and the student q, of shape `(batch, classes)`, and the labels as a cohort reads them.
"""

from collections.abc import Callable, Mapping
from typing import Self

import keras
import tensorflow as tf

from dml_tf.method import checks, losses

Divergence = Callable[[tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor]
_TINY = 1e-16  # keeps the root of a correlation of constants differentiable


def kl(log_p: tf.Tensor, log_q: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
    """D_KL(p || q), Eq. (4); labels are not used."""
    return losses.kl_divergence(log_p, log_q)


def js(log_p: tf.Tensor, log_q: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
    """Half the symmetric divergence, Eq. (7) as printed; labels are not used."""
    return losses.js_divergence(log_p, log_q)


class _Weighted:
    """A divergence whose attributes are the arguments of its constructor."""

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Makes the divergence from `get_config`'s result."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="dml_tf")
class DKD(_Weighted):
    """Decoupled distillation (Zhao et al., CVPR 2022, arXiv 2203.08679, Eq. 7).

    With b the posterior of 'the label or not', and p' the posterior among the other classes, the
    KL divergence is KL(b_p || b_q) + (1 - p_label) KL(p' || q'). Here both parts have weights of
    their own: `alpha` KL(b_p || b_q) + `beta` KL(p' || q'). An image without a label has the KL
    divergence; of one-hot or soft labels the largest counts.

    Args:
        alpha: Weight of the first part; 1 in the paper.
        beta: Weight of the second part. The authors choose 1 to 8 for each pair of networks; 2 is
            theirs for ResNet-56 and ResNet-20.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 2.0):
        self.alpha, self.beta = alpha, beta

    def __call__(self, log_p: tf.Tensor, log_q: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Nats, shape `(batch,)`."""
        classes = tf.argmax(labels, axis=-1) if len(labels.shape) == 2 else labels
        is_label = tf.one_hot(classes, tf.shape(log_q)[-1], on_value=True, off_value=False)
        p, among_p = _decoupled(log_p, is_label)
        q, among_q = _decoupled(log_q, is_label)
        loss = self.alpha * losses.kl_divergence(p, q)
        loss += self.beta * losses.kl_divergence(among_p, among_q)
        labelled = losses.is_labelled(labels)
        return tf.where(labelled, loss, losses.kl_divergence(log_p, log_q))


def _decoupled(log_p: tf.Tensor, is_label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Log-posteriors of the label against the rest, and of each other class among the rest."""
    others = tf.where(is_label, float("-inf"), log_p)
    rest = tf.reduce_logsumexp(others, axis=-1, keepdims=True)
    label = tf.reduce_sum(tf.where(is_label, log_p, 0.0), axis=-1, keepdims=True)
    among = tf.where(is_label, -1000.0, log_p - rest)  # exp(-1000) is 0: it adds nothing
    return tf.concat([label, rest], axis=-1), among


@keras.saving.register_keras_serializable(package="dml_tf")
class DIST(_Weighted):
    """Correlations in place of equality (Huang et al., NeurIPS 2022, arXiv 2205.10536, Eqs. 8-10).

    1 - Pearson's correlation of both posteriors, over the classes of each image (`between`, the
    paper's inter-class relation), plus the same over the images of the batch for each class
    (`within`, its intra-class relation), whose mean over the classes is added to every image. A
    batch that is split over devices correlates the images of each part.

    Args:
        between: Weight of the first, the paper's beta.
        within: Weight of the second, the paper's gamma.
    """

    def __init__(self, between: float = 1.0, within: float = 1.0):
        self.between, self.within = between, within

    def __call__(self, log_p: tf.Tensor, log_q: tf.Tensor, labels=None) -> tf.Tensor:
        """A number from 0 to twice the weights, shape `(batch,)`; labels are not used."""
        p, q = tf.exp(log_p), tf.exp(log_q)
        within = tf.reduce_mean(1 - _correlation(p, q, axis=0))
        return self.between * (1 - _correlation(p, q, axis=1)) + self.within * within


def _correlation(p: tf.Tensor, q: tf.Tensor, axis: int) -> tf.Tensor:
    """Pearson's correlation along an axis; 0 where one of both is constant."""
    p -= tf.reduce_mean(p, axis=axis, keepdims=True)
    q -= tf.reduce_mean(q, axis=axis, keepdims=True)
    squares = tf.reduce_sum(p * p, axis=axis) * tf.reduce_sum(q * q, axis=axis)
    return tf.reduce_sum(p * q, axis=axis) / tf.sqrt(squares + _TINY)


class OfKerasLoss:
    """A Keras loss between the teacher's posterior, as `y_true`, and the student's.

    Args:
        loss: One of `keras.losses` that compares distributions. If it has `from_logits=True` it
            gets the student's logits.

    Raises:
        ValueError: The loss takes class indices.
    """

    def __init__(self, loss: keras.losses.Loss):
        checks.check_keras_loss(loss)
        self._loss = loss
        self._takes_logits = bool(loss.get_config().get("from_logits"))

    def __call__(self, log_p: tf.Tensor, log_q: tf.Tensor, labels=None) -> tf.Tensor:
        """Keras's value for each example; a log-posterior serves as logits."""
        return self._loss.call(tf.exp(log_p), log_q if self._takes_logits else tf.exp(log_q))


BY_NAME: Mapping[str, Divergence] = {"kl": kl, "js": js, "dkd": DKD(), "dist": DIST()}
