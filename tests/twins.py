"""How far two right programs may differ: measured on twins that differ by rounding only.

Two right programs round differently, and training amplifies that. A twin trains with the same
program from values that are one rounding away, each up or down. A rounding of a later step has
fewer steps to grow in, so each step's adds at most about as much again as the twin's. Of random
signs, those of 20 steps add to sqrt(20) = 4.5 times it, and an update is a sum of more than one
rounding: ten times the difference of the farthest twin is allowed.
"""

import numpy as np

TWINS = 3  # one alone may end near by chance


def twins_of(values):
    """Values that are one rounding away, for each twin; integers, such as counters, stay."""
    for seed in range(TWINS):
        rng = np.random.default_rng(seed)
        yield [_rounded(value, rng) if value.dtype == np.float32 else value for value in values]


def _rounded(value, rng):
    return np.nextafter(value, rng.choice([-np.inf, np.inf], value.shape).astype(np.float32))


def tolerance(values, twins):
    """How far another program's values may be from these, given those of each twin."""
    return 10 * max(largest_difference(values, twin) for twin in twins)


def largest_difference(first, second):
    """Over pairs of arrays of floats, as far as both lists go."""
    pairs = zip(first, second, strict=False)
    return max(np.max(np.abs(a - b)) for a, b in pairs if a.dtype.kind == "f")
