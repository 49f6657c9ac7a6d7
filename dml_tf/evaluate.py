"""A trained cohort's measurements, as a run's record keeps them."""

import numpy as np

from dml_tf import data, metrics
from dml_tf.cohort import Cohort


def measure(
    cohort: Cohort, split: data.Split, splits: data.Splits, batch_size: int = 256
) -> dict[str, dict]:
    """Accuracy, cross-entropy and posterior entropy of each peer and of the ensemble.

    Args:
        cohort: Trained peers.
        split: The images to measure on; unlabelled ones are left out.
        splits: The run's data, whose statistics normalise the images.
        batch_size: Images in a batch.

    Returns:
        `{"peers": {name: {"accuracy", "cross_entropy", "entropy"}}, "ensemble": {...}}`:
        a fraction, and nats. A cohort of one has no `ensemble`.
    """
    labelled = split.take(np.flatnonzero(split.labels >= 0))
    batches = data.eval_batches(labelled, splits, batch_size).map(lambda images, _: images)
    posteriors = cohort.predict(batches, verbose=0)
    measured = {
        name: {
            "accuracy": metrics.accuracy(p, labelled.labels),
            "cross_entropy": metrics.cross_entropy(p, labelled.labels),
            "entropy": metrics.entropy(p),
        }
        for name, p in posteriors.items()
    }
    ensemble = measured.pop("ensemble")
    return {"peers": measured} | ({"ensemble": ensemble} if len(measured) > 1 else {})
