"""Data sets that TensorFlow Datasets has prepared, or downloads for runs that give no files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dml_tf.data.splits import Source, Split

_TIMEOUT_S = 10


def find_builder(dataset: str, data_dir: str):
    """The builder of a data set in `data_dir`, which may be the folder of a prepared version."""
    import tensorflow_datasets as tfds

    if data_dir and (Path(data_dir).expanduser() / "dataset_info.json").exists():
        return tfds.builder_from_directory(data_dir)
    return tfds.builder(dataset, data_dir=data_dir or None)


def prepared_version(dataset: str, data_dir: str) -> str:
    """Name and version of what is prepared; the name alone while nothing is."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    own = root if (root / "dataset_info.json").exists() else root / dataset
    inside = sorted(path.name for path in own.glob("*.*.*") if path.is_dir())
    version = root.name if own == root else "".join(inside[-1:])
    return f"TensorFlow Datasets {dataset} {version}".strip()


def instructions(wanted: str) -> str:
    """What to do without a data set whose files are `wanted`."""
    return (
        f"Put {wanted} into a folder and add --data_dir=FOLDER, or try --dataset=digits, which "
        "needs no download."
    )


def load_tfds(
    dataset: str, name: str, data_dir: str, looked: Sequence[Path], how_to_get: str
) -> Source:
    """Load a data set; the places `looked` at, and `how_to_get` it, are for the message."""
    try:
        if data_dir and not Path(data_dir).expanduser().is_dir():
            raise NotADirectoryError(f"there is no folder {data_dir}")
        builder = _downloaded(dataset, data_dir)
        train, test = _split(builder, "train"), _split(builder, "test")
    except Exception as error:  # anything from no network to a full disk
        where = f"not found at {', '.join(map(str, looked))}" if looked else "no --data_dir given"
        raise FileNotFoundError(
            f"{name} is missing: {where}, and TensorFlow Datasets could not give it ({error}). "
            f"{how_to_get}"
        ) from error
    return Source(
        name=name,
        train=train,
        test=test,
        class_names=tuple(builder.info.features["label"].names),
    )


def _downloaded(dataset: str, data_dir: str):
    import urllib.request

    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = find_builder(dataset, data_dir)
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
