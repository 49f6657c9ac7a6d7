"""Data sets: `load` them, then draw `train_batches` and `eval_batches`.

Nothing here imports TensorFlow, TensorFlow Datasets or scikit-learn before it is needed.
"""

from dml_tf.data.draws import (
    AUGMENTATIONS,
    STREAMED_AUGMENTATIONS,
    EpochDraws,
    epoch_draws,
    steps_per_epoch,
)
from dml_tf.data.load import DATASETS, REID_DATASETS, STREAMED_DATASETS, load
from dml_tf.data.sources.market1501 import Market1501
from dml_tf.data.splits import Split, Splits

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "REID_DATASETS",
    "STREAMED_AUGMENTATIONS",
    "STREAMED_DATASETS",
    "EpochDraws",
    "Market1501",
    "Split",
    "Splits",
    "epoch_draws",
    "eval_batches",
    "load",
    "steps_per_epoch",
    "train_batches",
]


def __getattr__(name: str):
    """Import the batches, and with them TensorFlow, on first use."""
    if name in ("eval_batches", "train_batches"):
        from dml_tf.data import batches

        return getattr(batches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
