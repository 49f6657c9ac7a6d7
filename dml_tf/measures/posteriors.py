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


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence D_KL(p || q) of two peers' posteriors, Eq. (4).

    Args:
        p: Class probabilities of the one that teaches, shape `(images, classes)`.
        q: Those of the one that learns, of the same shape.

    Returns:
        Nats.

    Example:
        >>> round(divergence(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])), 4)
        0.1438
    """
    log_p, log_q = (np.log(np.maximum(x, np.finfo(np.float32).tiny)) for x in (p, q))
    return float((p * (log_p - log_q)).sum(axis=1).mean())


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Share of the images for which two peers name the same class.

    Args:
        p: Class probabilities of one, shape `(images, classes)`.
        q: Those of the other.

    Returns:
        A fraction.

    Example:
        >>> agreement(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.6, 0.4], [0.7, 0.3]]))
        0.5
    """
    return float(np.mean(p.argmax(axis=1) == q.argmax(axis=1)))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error, Guo et al. 2017, Eq. (3).

    Args:
        confidence: Probability of each image's most probable class, shape `(images,)`.
        correct: Whether that class is the true one, shape `(images,)`.
        bins: Number of bins of equal width.

    Returns:
        Mean over the images of |accuracy - mean confidence| of the image's bin.

    Examples:
        >>> calibration_error(np.array([0.5, 0.5, 1.0, 1.0]), np.array([True, True, True, False]))
        0.5
    """
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=correct - confidence.astype(np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def mass_by_rank(posteriors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean probability of the true class, then of the other classes by their rank (Fig. 4).

    Args:
        posteriors: Class probabilities, shape `(images, classes)`.
        labels: True classes, shape `(images,)`.

    Returns:
        Means over the images, float64, shape `(classes,)`. The true class comes first, even where
        another class is more probable. The others follow, the most probable one first.

    Examples:
        >>> mass_by_rank(np.array([[0.125, 0.375, 0.5], [0.5, 0.25, 0.25]]), np.array([1, 0]))
        array([0.4375, 0.375 , 0.1875])
    """
    true = np.arange(posteriors.shape[1]) == labels[:, None]
    others = np.sort(posteriors[~true].reshape(len(labels), -1), axis=1)[:, ::-1]
    return np.column_stack([posteriors[true], others]).mean(axis=0, dtype=np.float64)
