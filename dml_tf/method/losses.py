"""Losses of Deep Mutual Learning, Sec. 3, in log space.

Every function works on log-posteriors, never on probabilities. A student may give a class a
probability that rounds to zero while its peer does not; the loss must still raise it (Sec. 4.8).
All arithmetic is float32, whatever precision the networks compute in. A term of the loss has one
value per example, of which the caller takes the mean; `supervised_loss` takes it itself.
"""

import math
from collections.abc import Sequence

import tensorflow as tf


def log_posterior(logits: tf.Tensor, temperature: float = 1.0) -> tf.Tensor:
    """Log of the class posterior, Eq. (1), softened by a temperature.

    Args:
        logits: Outputs of the last layer, shape `(batch, classes)`, any float type.
        temperature: Divisor of the logits; 1 is the paper's posterior.

    Returns:
        Log-probabilities, float32, shape `(batch, classes)`.
    """
    return tf.nn.log_softmax(tf.cast(logits, tf.float32) / temperature)


def is_labelled(labels: tf.Tensor) -> tf.Tensor:
    """Which examples have a label.

    Args:
        labels: Class indices, shape `(batch,)`, -1 for no label; or a distribution over the
            classes for each example, shape `(batch, classes)`, zeros for no label.

    Returns:
        Booleans, shape `(batch,)`.
    """
    return tf.reduce_sum(labels, axis=-1) > 0 if len(labels.shape) == 2 else labels >= 0


def cross_entropy(log_q: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy between labels and the student's posterior, Eq. (2).

    Args:
        log_q: Log-posterior of the student, shape `(batch, classes)`.
        labels: Class of each example, integers, shape `(batch,)`; -1 marks an unlabelled example.
            Or a distribution over the classes, floats, shape `(batch, classes)`; a row of zeros
            marks an unlabelled example.
        label_smoothing: Probability mass spread evenly over all classes, in `[0, 1)`.

    Returns:
        Nats, shape `(batch,)`; 0 for unlabelled examples.
    """
    if len(labels.shape) == 2:
        target = tf.cast(labels, log_q.dtype)
    else:
        target = tf.one_hot(labels, tf.shape(log_q)[-1], dtype=log_q.dtype)
    loss = -tf.reduce_sum(target * log_q, axis=-1)
    if label_smoothing:
        uniform = -tf.reduce_mean(log_q, axis=-1)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * uniform
    return tf.where(is_labelled(labels), loss, tf.zeros_like(loss))


def supervised_loss(
    log_q: tf.Tensor,
    labels: tf.Tensor,
    label_smoothing: float = 0.0,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mean cross-entropy over the labelled examples of a batch, the first term of Eq. (12).

    Args:
        log_q: Log-posterior of the student, shape `(batch, classes)`.
        labels: As of `cross_entropy`.
        label_smoothing: Probability mass spread evenly over all classes, in `[0, 1)`.
        weights: Factor of each example, shape `(batch,)`; as in Keras, the mean still divides by
            the number of examples. None for no factors.

    Returns:
        Scalar, nats; 0 for a batch without labels.
    """
    labelled = tf.reduce_sum(tf.cast(is_labelled(labels), log_q.dtype))
    total = tf.reduce_sum(weighted(cross_entropy(log_q, labels, label_smoothing), weights))
    return total / tf.maximum(labelled, 1.0)


def weighted(values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Values of each example times its weight; the values themselves where there are no weights.

    Args:
        values: Shape `(batch,)`.
        weights: Shape `(batch,)`, or None.

    Returns:
        Shape `(batch,)`.
    """
    return values if weights is None else weights * values


def kl_divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence D_KL(p || q) of each example, Eq. (4).

    Args:
        log_p: Log-posterior of the peer, shape `(batch, classes)`.
        log_q: Log-posterior of the student, shape `(batch, classes)`.

    Returns:
        Divergence in nats, shape `(batch,)`.

    Examples:
        >>> import tensorflow as tf
        >>> p = tf.math.log([[0.5, 0.5]])
        >>> q = tf.math.log([[0.25, 0.75]])
        >>> print(f"{kl_divergence(p, q).numpy()[0]:.4f}")
        0.1438
    """
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


def js_divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """Half the symmetric KL divergence, Eq. (7) as the paper prints it.

    The paper calls it Jensen-Shannon, which is another quantity.

    Args:
        log_p: Log-posterior of the peer, shape `(batch, classes)`.
        log_q: Log-posterior of the student, shape `(batch, classes)`.

    Returns:
        Divergence in nats, shape `(batch,)`.
    """
    return 0.5 * (kl_divergence(log_p, log_q) + kl_divergence(log_q, log_p))


def entropy(log_p: tf.Tensor) -> tf.Tensor:
    """Entropy of each posterior, Sec. 4.8.

    Args:
        log_p: Log-posterior, shape `(batch, classes)`.

    Returns:
        Nats, shape `(batch,)`.
    """
    return -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1)


def ensemble_log_posterior(
    logits: Sequence[tf.Tensor], average: str = "probability", temperature: float = 1.0
) -> tf.Tensor:
    """Log-posterior of an ensemble: p_avg of Eq. (11), or the average of the logits.

    Args:
        logits: One tensor of shape `(batch, classes)` for each member.
        average: `probability` for the mean posterior (Eq. 11), `logit` for the posterior of the
            mean logits.
        temperature: Divisor of the logits.

    Returns:
        Log-probabilities, float32, shape `(batch, classes)`.
    """
    stacked = tf.stack([tf.cast(z, tf.float32) for z in logits])
    if average == "logit":
        return log_posterior(tf.reduce_mean(stacked, axis=0), temperature)
    members = log_posterior(stacked, temperature)
    return tf.reduce_logsumexp(members, axis=0) - math.log(len(logits))


def feature_distance(peer: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of two networks' features, 'L2' of Table 5.

    Args:
        peer: Features of the peer, shape `(batch, dim)`.
        student: Features of the student, shape `(batch, dim)`.

    Returns:
        Mean squared difference, float32, shape `(batch,)`.
    """
    difference = tf.cast(peer, tf.float32) - tf.cast(student, tf.float32)
    return tf.reduce_mean(tf.square(difference), axis=-1)


def weighted_mean(values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Mean over all images of a batch, each counted with its weight.

    Args:
        values: One for each image, shape `(batch,)`.
        weights: Likewise, or None for 1.

    Returns:
        A scalar.
    """
    return tf.reduce_mean(weighted(values, weights))
