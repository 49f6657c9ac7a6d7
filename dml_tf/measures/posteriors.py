"""Measures of class posteriors, in NumPy."""

import numpy as np


def accuracy(posteriors: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy.

    Args:
        posteriors: Class probabilities, shape `(images, classes)`.
        labels: True classes, shape `(images,)`.

    Returns:
        Fraction of the images whose most probable class is the true one.
    """
    return float(np.mean(posteriors.argmax(axis=1) == labels))


def cross_entropy(posteriors: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-probability of the true class, Eq. (2).

    Args:
        posteriors: Class probabilities, shape `(images, classes)`.
        labels: True classes, shape `(images,)`.

    Returns:
        Nats; a probability of 0 counts as float32's smallest normal number.
    """
    true = np.take_along_axis(posteriors, labels[:, None], axis=1)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def entropy(posteriors: np.ndarray) -> float:
    """Mean entropy of the posteriors, Sec. 4.8.

    Args:
        posteriors: Class probabilities, shape `(images, classes)`.

    Returns:
        Nats.
    """
    log_p = np.log(np.maximum(posteriors, np.finfo(np.float32).tiny))
    return float(-(posteriors * log_p).sum(axis=1).mean())
