"""The receiver operating characteristic of accepting pairs by a threshold on their distance."""

from collections.abc import Sequence

import numpy as np


class TruePositiveRates:
    """Fractions of good pairs that are accepted at given false positive rates, exactly.

    Of the wrong pairs only the nearest are kept, as many as the largest rate allows: Market-1501
    has 66 million.
    """

    def __init__(self, rates: Sequence[float], wrong_pairs: int):
        self._allowed = [int(rate * wrong_pairs + 1e-9) for rate in rates]
        self._kept = max(self._allowed, default=-1) + 1
        self.is_asked = len(rates) > 0
        self._wrong, self._limit, self._good = np.empty(0), np.inf, []

    def add(self, good: np.ndarray, wrong: np.ndarray) -> None:
        """Takes the distances of one query's good images and of its wrong images."""
        self._good.append(good)
        self._wrong = np.concatenate([self._wrong, wrong[wrong < self._limit]])
        if len(self._wrong) > 2 * self._kept + 10_000:
            self._wrong = np.partition(self._wrong, self._kept - 1)[: self._kept]
            self._limit = self._wrong.max()

    def rates(self) -> list[float]:
        """The accepted fraction of good pairs for each rate, in the order of the rates."""
        good = np.concatenate(self._good)
        nearest = np.append(np.sort(self._wrong)[: self._kept], np.inf)
        return [float(np.mean(good < nearest[allowed])) for allowed in self._allowed]
