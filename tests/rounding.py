"""How far two correct programs may differ: measured with twins that differ by rounding only.

Training amplifies a rounding error. How much depends on the processor, so no test types a
tolerance of a trained result. A twin runs the same program from values that are one rounding away.
A rounding of a later step adds at most about as much again. Of random signs, those of 20 steps add
sqrt(20) = 4.5 times it, and one update rounds more than once. Ten times the difference of the
farthest twin is allowed.
"""

import keras
import numpy as np

FACTOR = 10
TWINS = 3  # a single one may end near by chance


def one_rounding_away(value, rng):
    """A float32 array with every value moved to the next one, up or down; others as they are."""
    if value.dtype != np.float32:
        return value
    return np.nextafter(value, rng.choice([-np.inf, np.inf], value.shape).astype(np.float32))


def twins_of(values):
    """Lists of arrays that are one rounding away from these; counters stay."""
    for seed in range(TWINS):
        rng = np.random.default_rng(seed)
        yield [one_rounding_away(value, rng) for value in values]


class StartOneRoundingAway(keras.callbacks.Callback):
    """Moves every weight of a model one rounding away before it trains."""

    def on_train_begin(self, logs=None):
        rng = np.random.default_rng(0)
        for variable in self.model.trainable_variables:
            variable.assign(one_rounding_away(variable.numpy(), rng))


def largest_difference(first, second):
    """Over pairs of float arrays; one list may be longer than the other."""
    pairs = zip(first, second, strict=False)
    return np.max([np.max(np.abs(a - b)) for a, b in pairs if a.dtype.kind == "f"])  # NaN stays


def tolerance(values, twins):
    """How far another program's values may be from these, given those of each twin."""
    return FACTOR * max(largest_difference(values, twin) for twin in twins)


def assert_alike(ours, theirs, twin, start):
    """Holds `ours` equal to `theirs` within the twin's tolerance, which a mistake would exceed."""
    allowed = tolerance(theirs, [twin])
    assert largest_difference(ours, theirs) <= allowed
    assert allowed < 0.1 * largest_difference(theirs, start)


def assert_like_histories(ours, theirs, twin):
    """Holds the losses of every epoch equal within the twin's tolerance, and accuracies to a tenth.

    An accuracy counts images, of which a rounding may move some over the boundary.
    """
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        of_twin = np.max(np.abs(np.subtract(values, twin[name]))) + np.spacing(np.float32(1))
        allowed = 0.1 if name.endswith("accuracy") else FACTOR * of_twin
        assert np.max(np.abs(np.subtract(ours[name], values))) <= allowed, name
