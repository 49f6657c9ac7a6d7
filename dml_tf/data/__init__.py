"""Data sets: `load` one, then draw `train_batches` and `eval_batches` from it.

Importing this room imports no TensorFlow, TensorFlow Datasets or scikit-learn. Its modules import
in one direction: draws <- pictures <- stored <- splits <- {batches, sources <- generated} <- load,
which also uses identity.
"""

from dml_tf.data.draws import (
    AUGMENTATIONS,
    STREAMED_AUGMENTATIONS,
    EpochDraws,
    epoch_draws,
    steps_per_epoch,
)
from dml_tf.data.identity import differences
from dml_tf.data.load import (
    DATASETS,
    GENERATED_DATASETS,
    REID_DATASETS,
    STREAMED_DATASETS,
    TRAIN_IMAGES,
    WITHOUT_FILES,
    identify,
    load,
)
from dml_tf.data.splits import Market1501, Source, Split, Splits

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "GENERATED_DATASETS",
    "REID_DATASETS",
    "STREAMED_AUGMENTATIONS",
    "STREAMED_DATASETS",
    "TRAIN_IMAGES",
    "WITHOUT_FILES",
    "EpochDraws",
    "Market1501",
    "Source",
    "Split",
    "Splits",
    "differences",
    "epoch_draws",
    "eval_batches",
    "identify",
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
