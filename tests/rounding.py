"""How far two correct programs may differ: measured with a twin that differs by rounding only.

Training amplifies a rounding error. How much depends on the processor, so no test types a
tolerance of a trained result. A twin run starts from weights that are one rounding away. Later
steps add errors of about that size again, of random signs: 20 steps add sqrt(20) = 4.5 times it,
and one update rounds more than once. Ten times the twin's difference is allowed.
"""

import keras
import numpy as np

FACTOR = 10


def one_rounding_away(value, rng):
    """A float32 array with every value moved to the next one, up or down; others as they are."""
    if value.dtype != np.float32:
        return value
    return np.nextafter(value, rng.choice([-np.inf, np.inf], value.shape).astype(np.float32))


class StartOneRoundingAway(keras.callbacks.Callback):
    """Moves every weight of a model one rounding away before it trains."""

    def on_train_begin(self, logs=None):
        rng = np.random.default_rng(0)
        for variable in self.model.trainable_variables:
            variable.assign(one_rounding_away(variable.numpy(), rng))


def largest_difference(first, second):
    """Of float arrays; the lists may go on with what only one of them has."""
    pairs = zip(first, second, strict=False)
    return max(np.max(np.abs(a - b)) for a, b in pairs if a.dtype == np.float32)


def assert_alike(ours, theirs, twin, start):
    """Holds `ours` equal to `theirs` within the twin's tolerance, which a mistake would exceed."""
    tolerance = FACTOR * largest_difference(theirs, twin)
    assert largest_difference(ours, theirs) <= tolerance
    assert tolerance < 0.1 * largest_difference(theirs, start)


def assert_like_histories(ours, theirs, twin):
    """Holds the losses of every epoch equal within the twin's tolerance, and accuracies to a tenth.

    An accuracy counts images, of which a rounding may move some over the boundary.
    """
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        allowed = np.max(np.abs(np.subtract(values, twin[name]))) + np.spacing(np.float32(1))
        allowed = 0.1 if name.endswith("accuracy") else FACTOR * allowed
        assert np.max(np.abs(np.subtract(ours[name], values))) <= allowed, name
