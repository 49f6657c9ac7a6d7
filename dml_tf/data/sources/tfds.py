"""Data sets that TensorFlow Datasets downloads, for runs that give no files."""

import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dml_tf.data.splits import Source, Split

_TIMEOUT_S = 10


def load_tfds(
    dataset: str, name: str, data_dir: str, looked: Sequence[Path], wanted: str
) -> Source:
    """Load a data set that TensorFlow Datasets has prepared, or can download now.

    Args:
        dataset: Its name there.
        name: Its name as printed.
        data_dir: Folder for TensorFlow Datasets, '' for its default.
        looked: Where the official files were looked for, in vain.
        wanted: Official files that would do, for the message.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: It is not there and cannot be downloaded.
    """
    try:
        if data_dir and not Path(data_dir).expanduser().is_dir():
            raise NotADirectoryError(f"there is no folder {data_dir}")
        builder = _prepared(dataset, data_dir)
        train, test = _split(builder, "train"), _split(builder, "test")
    except Exception as error:  # Anything from no network to a full disk.
        where = f"not found at {', '.join(map(str, looked))}" if looked else "no --data_dir given"
        raise FileNotFoundError(
            f"{name} is missing: {where}, and TensorFlow Datasets could not give it ({error}). Put "
            f"{wanted} into a folder and add --data_dir=FOLDER, or try --dataset=digits, which "
            "needs no download."
        ) from error
    return Source(
        name=name,
        train=train,
        test=test,
        class_names=tuple(builder.info.features["label"].names),
    )


def _prepared(dataset: str, data_dir: str):
    """The builder of a data set, downloaded if need be."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = tfds.builder(dataset, data_dir=data_dir or None)
    if not (builder.data_path / "dataset_info.json").exists():
        # Without a network, TensorFlow Datasets would try again for minutes.
        request = urllib.request.Request(next(iter(builder.url_infos)), method="HEAD")
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
        builder.download_and_prepare()
    return builder


def _split(builder, part: str) -> Split:
    batches = list(builder.as_dataset(split=part).batch(1000).as_numpy_iterator())
    images, labels = (
        np.concatenate([batch[key] for batch in batches]) for key in ("image", "label")
    )
    return Split(images, labels.astype(np.int64))
