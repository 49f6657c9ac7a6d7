"""The 1,797 handwritten digits that scikit-learn ships: real pictures, no download."""

from typing import Any

import numpy as np

from dml_tf.data.draws import Purpose, philox
from dml_tf.data.splits import Source, Split

TEST_IMAGES = 1000


def load_digits(config: Any) -> Source:
    """Load the digits: 797 for training, 1,000 for test; 8 by 8 pixels, levels stretched to 255."""
    # scikit-learn does not divide its digits; our test set is drawn once, the same for all seeds.
    from sklearn.datasets import load_digits as load_from_scikit_learn

    digits = load_from_scikit_learn()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    every = Split(images, digits.target.astype(np.int64))
    order = np.argsort(philox(0, Purpose.DIGITS_TEST).random_raw(len(every)), kind="stable")
    return Source(
        name="Handwritten digits (scikit-learn)",
        train=every.take(np.sort(order[TEST_IMAGES:])),
        test=every.take(np.sort(order[:TEST_IMAGES])),
        class_names=tuple(str(name) for name in digits.target_names),
    )
