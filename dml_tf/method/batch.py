"""One batch as a cohort reads it: images, labels and weights; labels that are no classes."""

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

_REFUSED = "Labels that are no classes"


class Batch(NamedTuple):
    """What `train_step` learns from.

    Attributes:
        images: As the networks take them.
        labels: Class indices, int64, `(batch,)`, -1 for no label; or a distribution over the
            classes for each image, float32, `(batch, classes)`, zeros for no label.
        weights: Weight of each image, float32, `(batch,)`; None where all count alike.
    """

    images: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor | None


def read(data) -> Batch:
    """Takes a batch of Keras apart."""
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None:
        raise ValueError("A cohort needs labels: pass y, with -1 for unlabelled images.")
    if weights is not None:
        weights = tf.cast(_column(tf.convert_to_tensor(weights)), tf.float32)
    labels = _column(tf.convert_to_tensor(labels))
    if labels.shape.rank not in (1, 2):
        raise ValueError(
            "Labels must be class indices of shape (batch,), or one-hot or soft labels of shape "
            f"(batch, classes); got shape {labels.shape}. A shape that is not known, as from "
            "tf.numpy_function, is set by set_shape."
        )
    kind = tf.float32 if labels.shape.rank == 2 else tf.int64
    return Batch(images, tf.cast(labels, kind), weights)


def _column(values: tf.Tensor) -> tf.Tensor:
    """Shape `(batch,)` for `(batch, 1)`."""
    is_column = values.shape.rank == 2 and values.shape[1] == 1
    return tf.squeeze(values, axis=1) if is_column else values


def check_labels(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Whether all labels are classes of the logits; a step in which they are not fails.

    XLA leaves the assertion out, so a compiled step must use the result.
    """
    if labels.shape.rank == 2:
        classes = logits.shape[-1]
        if None not in (classes, labels.shape[1]) and labels.shape[1] != classes:
            raise ValueError(
                f"Labels of shape (batch, {labels.shape[1]}) do not fit networks with {classes} "
                "classes."
            )
        totals = tf.reduce_sum(labels, axis=-1)
        is_full = (tf.abs(totals - 1) < 1e-3) | (totals == 0)
        is_right = is_full & (tf.reduce_min(labels, axis=-1) >= 0)
    else:
        is_right = (labels >= -1) & (labels < tf.shape(logits, out_type=tf.int64)[-1])
    are_right = tf.reduce_all(is_right)
    # `tf.debugging.Assert` would add a condition to the step, which an exported step must not have.
    shown = tf.reduce_min(labels), tf.reduce_max(labels), tf.shape(logits)[-1]
    tf.raw_ops.Assert(condition=are_right, data=[tf.constant(_REFUSED), *shown])
    return are_right


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns TensorFlow's report of wrong labels into the reason."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        value = r"\s\[?([^\s\]]+)\]?"  # in brackets from a graph, on a line from eager mode
        found = re.search(rf"{_REFUSED}\S*{value}{value}{value}", error.message)
        if not found:
            raise
        low, high, classes = found.groups()
        raise ValueError(
            f"The networks have {classes} classes, and a batch has labels from {low} to {high}. "
            f"Class indices go from 0 to {int(classes) - 1}, and -1 marks an image without a "
            "label. One-hot and soft labels are rows that are not negative and add up to 1, or "
            "zeros for an image without a label."
        ) from None
