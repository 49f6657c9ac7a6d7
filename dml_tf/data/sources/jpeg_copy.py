"""The CIFAR-10 photographs from their JPEG copy: class folders, packed or not, read by Pillow.

A machine without TensorFlow reads here what `cifar10` reads from the official layout made of the
same JPEG files. The order of the images is that of the layout. The pixels are not: Pillow decodes
as TensorFlow does with `dct_method="INTEGER_ACCURATE"`, whose default is the fast method. They
differ by 1 of 255 levels on average and by 5 at most.
"""

import io
import lzma
import random
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dml_tf.data.splits import Source, Split

_TRAIN = "train"
# What the official layout was made with: one shuffle of the photographs, sorted by their names.
_ORDER_SEED = 0


def is_jpeg_copy(place: Path) -> bool:
    """Whether a place holds class folders of photographs.

    Args:
        place: Any path.

    Returns:
        True for a folder with a sub-folder `train`, and for a packed one that starts with its
        photographs.
    """
    if place.is_file() and tarfile.is_tarfile(place):
        with tarfile.open(place) as archive:
            first = next((member for member in archive if member.isfile()), None)
            return first is not None and _is_photograph(first.name.removeprefix("./"))
    return (place / _TRAIN).is_dir()


def load_jpeg_copy(place: Path) -> Source:
    """Load the training photographs.

    Args:
        place: An archive such as `.tar.xz`, or a folder, with `train/<class>/*.jpg`.

    Returns:
        The data set with its 50,000 training images, and no test images.

    Raises:
        FileNotFoundError: There are no photographs.
        ValueError: A file is damaged or not of 32 by 32 pixels.
    """
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
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isfile() and _is_photograph(name):
                    yield name, archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{place} is damaged ({error}); get it again.") from error


def _is_photograph(name: str) -> bool:
    return name.split("/")[0] == _TRAIN and name.endswith(".jpg")


def _unpacked(place: Path) -> Iterator[tuple[str, bytes]]:
    for file in (place / _TRAIN).glob("*/*.jpg"):
        yield file.relative_to(place).as_posix(), file.read_bytes()


def _decode(jpeg: bytes, path: str) -> np.ndarray:
    from PIL import Image

    try:
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a picture; get it again.") from error
    if pixels.shape != (32, 32, 3):
        raise ValueError(f"{path} has {pixels.shape[1]} by {pixels.shape[0]} pixels, not 32 by 32.")
    return pixels
