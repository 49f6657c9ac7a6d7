"""Fashion-MNIST from its four IDX files, each plain or `.gz`.

`data_dir` is the folder of the files, or contains them in `fashion-mnist/` or
`FashionMNIST/raw/`. If it is '', TensorFlow Datasets gives the data.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dml_tf.data.sources.archives import find_files, read_folder
from dml_tf.data.sources.tfds import instructions, load_tfds
from dml_tf.data.splits import Source, Split

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FOLDERS = ("", "fashion-mnist", "FashionMNIST/raw")
_FILES = tuple(
    f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
)
_UINT8 = 0x08
INSTRUCTIONS = instructions("the four files " + ", ".join(f"{name}.gz" for name in _FILES))


def load_fashion_mnist(config: Any) -> Source:
    """Load Fashion-MNIST: 60,000 and 10,000 grey pictures of 28 by 28 pixels, 10 classes."""
    root = Path(config.data_dir).expanduser()
    places = [root / folder for folder in _FOLDERS] if config.data_dir else []
    for place in places:
        files = read_folder(place, _FILES)
        if files:
            return _source(place, files)
    return load_tfds("fashion_mnist", "Fashion-MNIST", config.data_dir, places, INSTRUCTIONS)


def fashion_mnist_files(data_dir: str) -> dict[str, list[Path]]:
    """The files that are read; none if TensorFlow Datasets gives the data."""
    root = Path(data_dir).expanduser()
    for folder in _FOLDERS if data_dir else ():
        if found := find_files(root / folder, _FILES):
            return {"files": found}
    return {}


def _source(place: Path, files: dict[str, bytes]) -> Source:
    missing = [name for name in _FILES if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{place} contains a part of Fashion-MNIST but not {', '.join(missing)}; put the "
            "missing files there too."
        )
    images, labels, test_images, test_labels = (
        read_idx(files[name], f"{place}/{name}") for name in _FILES
    )
    return Source(
        name="Fashion-MNIST",
        train=_split(images, labels, place),
        test=_split(test_images, test_labels, place),
        class_names=CLASS_NAMES,
    )


def read_idx(data: bytes, path: str) -> np.ndarray:
    """Read an array of bytes in the IDX format, uint8."""
    # Two zeros, the type's code, the number of axes, the length of each axis as a big-endian
    # 32-bit integer, then the values in row-major order.
    axes = data[3] if len(data) > 3 else 0
    start = 4 + 4 * axes
    if data[:3] != bytes([0, 0, _UINT8]) or not axes or len(data) < start:
        raise ValueError(f"{path} is no IDX file of bytes; get the official file again.")
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{path} has {len(data) - start} bytes of values, but its header, {shape}, says "
            f"{math.prod(shape)}; it is incomplete: get the official file again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _split(images: np.ndarray, labels: np.ndarray, place: Path) -> Split:
    most = int(labels.max(initial=0))
    fits = images.ndim == 3 and images.size and labels.shape == images.shape[:1]
    if not fits or most >= len(CLASS_NAMES):
        raise ValueError(
            f"{place}: images of shape {images.shape} and labels of shape {labels.shape} up to "
            f"{most} do not fit together; get the official files again."
        )
    return Split(images[..., np.newaxis], labels.astype(np.int64))
