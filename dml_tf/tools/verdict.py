"""Which of several ways to train is best, from accuracies of paired seeds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from dml_tf.paper.statistics import FEWEST_SEEDS, simultaneous


@dataclasses.dataclass(frozen=True)
class Line:
    """One way to train, measured. Accuracies and differences are fractions.

    Attributes:
        name: The way.
        mean: Accuracy of the network, over seeds (and over its copies in a cohort).
        spread: Standard deviation over seeds.
        difference: Mean difference from the first way.
        low: Lower end of its interval, NaN for the first way.
        high: Upper end.
    """

    name: str
    mean: float
    spread: float
    difference: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0


def compare(accuracies: Mapping[str, Sequence[float]]) -> list[Line]:
    """Compares ways to train with the first one.

    The 95% intervals hold for all comparisons at once: by sign flips from six seeds on, before
    that Student's with Bonferroni's correction.

    Args:
        accuracies: Way -> an accuracy for each seed, the same seeds in the same order.

    Returns:
        A line for each way.

    Example:
        >>> lines = compare({"alone": [0.5, 0.6, 0.55], "pair": [0.6, 0.7, 0.66]})
        >>> [(line.name, round(line.difference, 3), line.is_better) for line in lines]
        [('alone', 0.0, False), ('pair', 0.103, True)]
    """
    rows = np.array(list(accuracies.values()), float)
    differences = rows[1:] - rows[0]
    intervals = [(math.nan, math.nan), *_intervals(differences)]
    return [
        Line(name, *map(float, (row.mean(), row.std(ddof=1), (row - rows[0]).mean(), *ends)))
        for name, row, ends in zip(accuracies, rows, intervals, strict=True)
    ]


def recommended(lines: Sequence[Line]) -> Line:
    """The best way whose interval lies above zero, or else the first way."""
    return max((line for line in lines if line.is_better), key=lambda x: x.mean, default=lines[0])


def _intervals(rows: np.ndarray) -> np.ndarray:
    count = rows.shape[1]
    if count >= FEWEST_SEEDS:
        return simultaneous(rows)
    half = stats.t.ppf(1 - 0.025 / len(rows), count - 1) * rows.std(axis=1, ddof=1) / count**0.5
    return np.stack([rows.mean(axis=1) - half, rows.mean(axis=1) + half], axis=1)
