"""Statistics over seeds: intervals, exact tests, equality, power; and over seeds and test images.

A row of values has one paired difference for each seed. Nothing here reads records.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

LEVEL = 0.05  # of every test; intervals have 95%
POWER = 0.8
FEWEST_SEEDS = 6  # five seeds have a sign-flip p of 2/32 at least
MOST_ENUMERATED = 16  # seeds; with more, sign flips are drawn
DRAWS = 20_000


def summary(values: Mapping[int, float]) -> dict[str, float]:
    """One contrast over its seeds.

    Args:
        values: Seed -> paired difference.

    Returns:
        `measured`, the mean; `std`, over seeds; `seeds`, their number. From three seeds on also
        `low` and `high`, Student's 95% interval; `p`, two-sided by sign flips; and `detectable`,
        as `smallest_detectable` gives it. What is missing is NaN.

    Examples:
        >>> line = summary({0: 2.0, 1: 3.0, 2: 1.0})
        >>> [round(float(line[name]), 2) for name in ("measured", "std", "low", "high", "p")]
        [2.0, 1.0, -0.48, 4.48, 0.25]
    """
    row = np.array(list(values.values()), float)
    line = dict.fromkeys(("measured", "std", "low", "high", "p", "detectable"), math.nan)
    line["seeds"] = len(row)
    if len(row):
        line["measured"] = row.mean()
    if len(row) > 1:
        line["std"] = row.std(ddof=1)
    if len(row) > 2:
        line["low"], line["high"] = student(row)
        line["p"] = sign_flip_p(row)
        line["detectable"] = smallest_detectable(line["std"], len(row))
    return line


def student(row: ArrayLike) -> tuple[float, float]:
    """Student's 95% interval of the mean of a row, shape `(seeds,)`."""
    mean, error, freedom = _moments(row)
    half = stats.t.ppf(1 - LEVEL / 2, freedom) * error
    return mean - half, mean + half


def student_p(row: ArrayLike) -> float:
    """One-sided p of Student's test that the mean of a row, shape `(seeds,)`, is above zero."""
    mean, error, freedom = _moments(row)
    if error == 0:  # all seeds are equal
        return 0.0 if mean > 0 else 1.0
    return float(stats.t.sf(mean / error, freedom))


def sign_flip_p(row: ArrayLike) -> float:
    """Two-sided p that the mean is zero, by flipping the signs of whole seeds (Fisher 1935).

    It is exact if differences are as likely to be positive as negative: all 2^n flips are
    enumerated. With more than `MOST_ENUMERATED` seeds, `DRAWS` random flips stand for them.

    Args:
        row: A difference for each seed, shape `(seeds,)`.

    Returns:
        Part of the flips whose mean is at least as far from zero; 0.25 at least for three seeds,
        0.031 for six.

    Examples:
        >>> sign_flip_p([1.0, 2.0, 3.0])
        0.25
    """
    row = np.asarray(row, float)
    sums = np.abs(_signs(len(row)) @ row)
    # Sums in another order differ by rounding; they are ties.
    extreme = int(np.sum(sums >= abs(row.sum()) - 1e-9 * np.abs(row).sum()))
    if len(row) > MOST_ENUMERATED:
        return (1 + extreme) / (1 + len(sums))
    return extreme / len(sums)


def simultaneous(rows: ArrayLike) -> np.ndarray:
    """95% intervals that hold for all rows at once, by the largest |t| over sign flips.

    A flip changes the signs of whole seeds, so that the correlation between rows is kept. Flipped
    are the residuals from each row's mean (a wild bootstrap with Rademacher weights; for the
    largest |t| see Romano and Wolf 2005). No interval is narrower than Student's. Of simulated
    families, with 6 to 12 Gaussian seeds and up to 12 rows, 94 to 97% were covered.

    Args:
        rows: Differences, shape `(contrasts, seeds)`, of six seeds or more.

    Returns:
        `low` and `high` of each row, shape `(contrasts, 2)`.
    """
    rows = np.asarray(rows, float)
    means, count = rows.mean(axis=1), rows.shape[1]
    residuals = rows - means[:, None]
    flipped = _signs(count) @ residuals.T / count
    squares = np.sum(residuals**2, axis=1)
    spread = squares - count * flipped**2
    spread = np.where(spread > 1e-9 * squares, spread, 0)  # what is left by rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(flipped) / np.sqrt(spread / (count * (count - 1)))
    largest = np.where(np.isnan(t), 0, t).max(axis=1)  # 0 / 0: a row without differences
    critical = max(
        np.quantile(largest, 1 - LEVEL, method="higher") if len(rows) > 1 else 0.0,
        stats.t.ppf(1 - LEVEL / 2, count - 1),
    )
    if np.isinf(critical):  # coarse numbers, which a flip can make equal
        critical = stats.t.ppf(1 - LEVEL / 2 / len(rows), count - 1)
    half = critical * rows.std(axis=1, ddof=1) / math.sqrt(count)
    return np.stack([means - half, means + half], axis=1)


def holm(p: Sequence[float]) -> np.ndarray:
    """P-values after Holm's correction (1979).

    Examples:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def conjunction_p(rows: ArrayLike) -> float:
    """P that not all rows have means above zero: the largest one-sided p of Student's tests.

    Args:
        rows: Differences, shape `(contrasts, seeds)`; rows may have different lengths.
    """
    return max(student_p(row) for row in rows)


def equality_p(row: ArrayLike, margin: float) -> float:
    """P of two one-sided tests that the mean is within `margin` of zero (Schuirmann 1987)."""
    row = np.asarray(row, float)
    return max(student_p(margin + row), student_p(margin - row))


def smallest_detectable(std: float, seeds: int) -> float:
    """The smallest mean that a two-sided paired t-test finds on its side with 80% power.

    Args:
        std: Standard deviation of the differences over seeds.
        seeds: Number of seeds.

    Returns:
        The mean, in the unit of `std`.
    """
    return _detectable_in_deviations(seeds) * std


def seeds_to_show(std: float, difference: float) -> int:
    """The fewest seeds of which a two-sided paired t-test finds a mean with 80% power.

    Args:
        std: Standard deviation of the differences over seeds.
        difference: Their true mean, not 0.

    Returns:
        Number of seeds, 2 or more.

    Examples:
        >>> seeds_to_show(std=1.0, difference=1.0)
        10
    """
    enough = (n for n in itertools.count(2) if smallest_detectable(std, n) <= abs(difference))
    return next(enough)


@functools.cache
def _detectable_in_deviations(seeds: int) -> float:
    freedom = seeds - 1
    critical = stats.t.ppf(1 - LEVEL / 2, freedom)

    def lacking(shift: float) -> float:
        return stats.nct.sf(critical, freedom, shift) - POWER

    return optimize.brentq(lacking, 0.0, 3 * critical) / math.sqrt(seeds)


def c4(count: int) -> float:
    """Expected standard deviation of `count` Gaussian values whose true deviation is 1.

    Examples:
        >>> round(c4(2), 4), round(c4(5), 4)
        (0.7979, 0.94)
    """
    ratio = special.gammaln(count / 2) - special.gammaln((count - 1) / 2)
    return math.sqrt(2 / (count - 1)) * math.exp(ratio)


def unbiased_std(values: Sequence[float]) -> float:
    """Standard deviation without the bias of a small sample: divided by `c4`."""
    return float(np.std(values, ddof=1)) / c4(len(values))


def over_seeds_and_images(values: ArrayLike) -> tuple[float, float]:
    """95% interval of a mean over seeds and test images, where both are samples.

    Seeds and images are crossed random effects. The variance of the mean is the sum of their
    components (Searle, Casella and McCulloch 1992), estimated by mean squares:
    (MS_seeds + MS_images - MS_residual) / (seeds x images). Its degrees of freedom are
    Satterthwaite's (1946). An interval over seeds alone speaks of these test images only.

    Args:
        values: Shape `(seeds, images)`; such as 1 where a run is right, or a difference of two
            such, or a mean over peers.

    Returns:
        `low` and `high`, in the unit of `values`.
    """
    values = np.asarray(values, float)
    seeds, images = values.shape
    mean = values.mean()
    of_seeds, of_images = values.mean(axis=1), values.mean(axis=0)
    residuals = values - of_seeds[:, None] - of_images + mean
    squares = np.array([images * of_seeds.var(ddof=1), seeds * of_images.var(ddof=1), 0.0])
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    squares[2] = np.sum(residuals**2) / freedom[2]
    total = squares[0] + squares[1] - squares[2]
    if total <= 0:  # the components cancel: only noise is left
        total, freedom = squares[2], freedom[2]
    else:
        freedom = total**2 / np.sum(squares**2 / freedom)
    half = stats.t.ppf(1 - LEVEL / 2, freedom) * math.sqrt(total / (seeds * images))
    return mean - half, mean + half


def churn(correct: ArrayLike) -> float:
    """How often two runs of one setting disagree in being right.

    It is a lower bound of how often their answers differ, the churn of Anil et al.
    (2018): two wrong answers may differ.

    Args:
        correct: Whether each run is right, shape `(runs, images)`.

    Returns:
        Mean over all pairs of runs, as a fraction of the images.

    Examples:
        >>> churn([[True, True], [True, False], [False, False]]) == (0.5 + 1 + 0.5) / 3
        True
    """
    correct = np.asarray(correct, bool)
    runs = len(correct)
    right = correct.sum(axis=0)
    return float(np.mean(right * (runs - right)) / (runs * (runs - 1) / 2))


def jackknife(statistic: Callable[[np.ndarray], float], seeds: int) -> tuple[float, float]:
    """95% interval of a statistic of all seeds together, by leaving out one seed at a time.

    Args:
        statistic: Takes the indices of the seeds to use.
        seeds: Number of seeds, three or more.

    Returns:
        `low` and `high`, around the statistic of all seeds (Tukey 1958).
    """
    everyone = np.arange(seeds)
    without = np.array([statistic(np.delete(everyone, k)) for k in everyone])
    error = math.sqrt((seeds - 1) / seeds * np.sum((without - without.mean()) ** 2))
    half = stats.t.ppf(1 - LEVEL / 2, seeds - 1) * error
    return statistic(everyone) - half, statistic(everyone) + half


def _moments(row: ArrayLike) -> tuple[float, float, int]:
    """Mean, standard error and degrees of freedom."""
    row = np.asarray(row, float)
    return row.mean(), row.std(ddof=1) / math.sqrt(len(row)), len(row) - 1


@functools.lru_cache(maxsize=4)
def _signs(seeds: int) -> np.ndarray:
    """Signs of the seeds in each flip, shape `(flips, seeds)`.

    The first seed keeps its sign: a flip and its opposite are equally far from zero.
    """
    if seeds <= MOST_ENUMERATED:
        others = list(itertools.product((1.0, -1.0), repeat=seeds - 1))
        return np.hstack([np.ones((len(others), 1)), np.array(others).reshape(len(others), -1)])
    return np.random.default_rng(0).choice((-1.0, 1.0), (DRAWS, seeds))
