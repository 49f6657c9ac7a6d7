"""Who teaches a student: the targets of a `Mimicry`, by name.

A target is a function `(own_logits, peer_logits, labels, step)`: the student's logits of shape
`(batch, classes)`, a list with those of each peer, the labels as a cohort reads them, and the
number of steps made. All are constants, float32, and already divided by the temperature. It
returns the log-posterior of one teacher, `(batch, classes)`, or a list with one for each teacher;
the divergences from several are then averaged or added.
"""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from dml_tf.method import losses

Target = Callable[
    [tf.Tensor, Sequence[tf.Tensor], tf.Tensor | None, tf.Tensor | None],
    tf.Tensor | Sequence[tf.Tensor],
]


def each(own, peers, labels=None, step=None) -> list[tf.Tensor]:
    """Each peer is a teacher, Eq. (10)."""
    return [losses.log_posterior(peer) for peer in peers]


def mean(own, peers, labels=None, step=None) -> tf.Tensor:
    """The mean of the peers' posteriors, p_avg of Eq. (11)."""
    return losses.ensemble_log_posterior(peers)


def logit_mean(own, peers, labels=None, step=None) -> tf.Tensor:
    """The posterior of the peers' mean logits."""
    return losses.ensemble_log_posterior(peers, "logit")


def naive(own, peers, labels, step=None) -> tf.Tensor:
    """The network, of all, that is best on the image: 'KDCL-Naive' (Guo et al., CVPR 2020).

    The best one has the smallest cross-entropy; the student itself may be it. An image without a
    label is taught by the mean of the peers' posteriors.
    """
    log_p = [losses.log_posterior(z) for z in (own, *peers)]
    best = tf.argmin(tf.stack([losses.cross_entropy(each, labels) for each in log_p]), axis=0)
    stacked = tf.stack(log_p, axis=1)
    return _of_labelled(tf.gather(stacked, best, axis=1, batch_dims=1), peers, labels)


def min_logit(own, peers, labels, step=None) -> tf.Tensor:
    """The smallest logit of each class in all networks: 'KDCL-MinLogit' (Guo et al., CVPR 2020).

    Each network's logits are first shifted so that the label's logit is 0. An image without a
    label is taught by the mean of the peers' posteriors.
    """
    logits = tf.stack([own, *peers])
    if len(labels.shape) == 2:
        of_label = tf.reduce_sum(logits * tf.cast(labels, logits.dtype), axis=-1, keepdims=True)
    else:
        is_label = tf.one_hot(labels, tf.shape(own)[-1], dtype=logits.dtype)
        of_label = tf.reduce_sum(logits * is_label, axis=-1, keepdims=True)
    target = losses.log_posterior(tf.reduce_min(logits - of_label, axis=0))
    return _of_labelled(target, peers, labels)


def _of_labelled(target: tf.Tensor, peers: Sequence[tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
    labelled = losses.is_labelled(labels)[:, tf.newaxis]
    return tf.where(labelled, target, losses.ensemble_log_posterior(peers))


BY_NAME: Mapping[str, Target] = {
    "each": each,
    "mean": mean,
    "logit_mean": logit_mean,
    "naive": naive,
    "min_logit": min_logit,
}
