"""ImageNet as TensorFlow Datasets prepares it from the official tar files.

Training takes pictures in a random order, which record files do not offer. So the files are read
through once, to note the place of each picture; later, pictures are read from their places.
Preparing takes hours and another 150 GB, the first reading minutes; both happen once.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dml_tf.atomic import write_whole
from dml_tf.data.arrays import read_npz
from dml_tf.data.sources.tfds import find_builder
from dml_tf.data.splits import Split
from dml_tf.data.stored import Pictures

TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
INSTRUCTIONS = (
    f"Register at image-net.org for {' and '.join(TARS)}, put them into a folder and give "
    "--data_dir=FOLDER, or try --dataset=imagenet_mini, which is generated."
)
PARTS = ("train", "validation")
_BEFORE_RECORD, _AFTER_RECORD = 12, 4  # Bytes: its length and checksums, TFRecord's framing.


def load(data_dir: str, size: int) -> tuple[Split, Split, tuple[str, ...]]:
    """Training and validation pictures, to be decoded to `size` pixels, and the classes' wnids."""
    builder = _prepared(data_dir)
    missing = [part for part in PARTS if part not in builder.info.splits]
    if missing:
        raise FileNotFoundError(
            f"{builder.data_path} was prepared without {' and '.join(missing)}: remove it, and put "
            f"{' and '.join(TARS)} into {builder.data_path.parents[1] / 'downloads' / 'manual'}."
        )
    train, validation = (_split(builder, part, size) for part in PARTS)
    return train, validation, tuple(builder.info.features["label"].names)


def _prepared(data_dir: str):
    import tensorflow_datasets as tfds

    builder = find_builder("imagenet2012", data_dir)
    if not builder.is_prepared():
        config = tfds.download.DownloadConfig(manual_dir=_find_tars(builder.data_path.parents[1]))
        builder.download_and_prepare(download_config=config, file_format="tfrecord")
    return builder


def _find_tars(root: Path) -> Path:
    places = (root / "downloads" / "manual", root, root / "imagenet")
    for place in places:
        if all((place / tar).exists() for tar in TARS):
            return place
    absent = {place: [tar for tar in TARS if not (place / tar).exists()] for place in places}
    looked = "; ".join(f"{place} lacks {' and '.join(tars)}" for place, tars in absent.items())
    raise FileNotFoundError(
        f"ImageNet is missing: {root} has no train/ folder of class folders, in itself or in "
        f"imagenet/, no imagenet2012 of TensorFlow Datasets, and {looked}. "
        f"{INSTRUCTIONS}"
    )


def _split(builder, part: str, size: int) -> Split:
    files = [os.fspath(file) for file in builder.info.splits[part].filepaths]
    if not all(".tfrecord" in os.path.basename(file) for file in files):
        raise ValueError(
            f"{builder.data_path} holds {os.path.basename(files[0])}, no TFRecord file: have "
            "TensorFlow Datasets prepare imagenet2012 with file_format='tfrecord'."
        )
    ranges, labels = _index(files, Path(builder.data_path) / f"dml_tf-{part}-index.npz")
    return Split(Pictures(np.array([os.fsencode(file) for file in files]), ranges, size), labels)


def _index(files: Sequence[str], kept: Path) -> tuple[np.ndarray, np.ndarray]:
    """Place of each picture, shape `(images, 3)`, and labels; found once and then kept."""
    sizes = np.array([os.path.getsize(file) for file in files])
    with contextlib.suppress(OSError, ValueError):  # absent or damaged, they are found again
        saved = read_npz(kept, ("sizes", "ranges", "labels"))
        if np.array_equal(saved["sizes"], sizes):
            return saved["ranges"], saved["labels"]
    ranges, labels = _read_through(files)
    with contextlib.suppress(OSError):  # in a read-only folder they are found every time
        with write_whole(kept) as part:
            np.savez(part, sizes=sizes, ranges=ranges, labels=labels)
    return ranges, labels


def _read_through(files: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf
    from tqdm import tqdm

    rows = []
    for number, file in enumerate(tqdm(files, "Finding ImageNet's pictures, once", disable=None)):
        start = 0
        try:
            for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
                values = tf.train.Example.FromString(record).features.feature
                picture = values["image"].bytes_list.value[0]
                offset = start + _BEFORE_RECORD + record.index(picture)
                rows.append((number, offset, len(picture), values["label"].int64_list.value[0]))
                start += _BEFORE_RECORD + len(record) + _AFTER_RECORD
        except tf.errors.DataLossError as error:
            raise ValueError(
                f"{file} is damaged: remove its folder and have it prepared again."
            ) from error
    table = np.array(rows, np.int64).reshape(-1, 4)
    return table[:, :3], table[:, 3]
