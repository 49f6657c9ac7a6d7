"""The CIFAR-10 photographs from their JPEG copy: class folders, packed or not, read by Pillow.

A machine without TensorFlow reads the photographs with this module, where `cifar10` reads them
from the official layout. Both have the same order of images, but not quite the same pixels: the
layout was made with TensorFlow's fast decoder, and Pillow decodes as TensorFlow does with
`dct_method="INTEGER_ACCURATE"`. They differ by 1 of 255 levels on average and by 5 at most.
"""

import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dml_tf.data.pictures import decode_picture
from dml_tf.data.sources.archives import tar_files
from dml_tf.data.splits import Source, Split

_TRAIN = "train"
# The official layout is one shuffle, with this seed, of the photographs sorted by name.
_ORDER_SEED = 0


def is_jpeg_copy(place: Path) -> bool:
    """Whether a place is a folder with `train/`, or an archive that starts with photographs."""
    if place.is_file() and tarfile.is_tarfile(place):
        with tarfile.open(place) as archive:
            first = next((member for member in archive if member.isfile()), None)
            return first is not None and _is_photograph(first.name.removeprefix("./"))
    return (place / _TRAIN).is_dir()


def load_jpeg_copy(place: Path) -> Source:
    """Load the 50,000 training photographs, `train/<class>/*.jpg`; the test set is empty."""
    files = sorted(_packed(place) if place.is_file() else _unpacked(place))
    if not files:
        raise FileNotFoundError(f"{place} has no {_TRAIN}/CLASS/*.jpg; unpack the archive again.")
    random.Random(_ORDER_SEED).shuffle(files)
    class_names = tuple(sorted({name.split("/")[1] for name, _ in files}))
    images = np.stack([_decode(jpeg, f"{place}/{name}") for name, jpeg in files])
    labels = np.array([class_names.index(name.split("/")[1]) for name, _ in files], np.int64)
    train = Split(images, labels)
    return Source("CIFAR-10 (JPEG copy)", train, train.take(np.arange(0)), class_names)


def _packed(place: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each training photograph, in the archive's order."""
    return tar_files(place, _is_photograph, mode="r")


def _is_photograph(name: str) -> bool:
    return name.split("/")[0] == _TRAIN and name.endswith(".jpg")


def _unpacked(place: Path) -> Iterator[tuple[str, bytes]]:
    for file in (place / _TRAIN).glob("*/*.jpg"):
        yield file.relative_to(place).as_posix(), file.read_bytes()


def _decode(jpeg: bytes, path: str) -> np.ndarray:
    pixels = decode_picture(jpeg, path)
    if pixels.shape != (32, 32, 3):
        raise ValueError(f"{path} has {pixels.shape[1]} by {pixels.shape[0]} pixels, not 32 by 32.")
    return pixels
