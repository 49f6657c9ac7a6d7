"""CIFAR-10 and CIFAR-100 from the official archives, binary or python, extracted or packed.

`data_dir` is the folder of an archive's files, a folder that contains the official sub-folder or
the packed archive, or that archive. If it is '', TensorFlow Datasets gives the data.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dml_tf.data.sources.archives import find_files, read_folder, read_tar, unpickle_arrays
from dml_tf.data.sources.tfds import instructions, load_tfds
from dml_tf.data.splits import Source, Split

_PIXELS = 32 * 32 * 3
# The first ten labels of the test images: their published order shows whether it is the original.
_ORIGINAL = {
    (3, 8, 8, 0, 6, 6, 1, 6, 3, 1): "CIFAR-10",
    (49, 33, 72, 51, 71, 92, 15, 14, 23, 0): "CIFAR-100",
}
_JPEG_COPY = (8, 8, 3, 7, 5, 6, 9, 8, 8, 2)
_CIFAR10_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The files of one official archive."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int = 0  # before the pixels of a record, the last is the label; 0: pickles
    names_key: str = "label_names"
    labels_key: str = "labels"

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.names)


_CIFAR10 = (
    _Layout(
        archive="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        train=tuple(f"{batch}.bin" for batch in _CIFAR10_BATCHES),
        test="test_batch.bin",
        names="batches.meta.txt",
        label_bytes=1,
    ),
    _Layout(
        archive="cifar-10-python.tar.gz",
        folder="cifar-10-batches-py",
        train=_CIFAR10_BATCHES,
        test="test_batch",
        names="batches.meta",
    ),
)
_CIFAR100 = (
    _Layout(
        archive="cifar-100-binary.tar.gz",
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        label_bytes=2,
    ),
    _Layout(
        archive="cifar-100-python.tar.gz",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        names="meta",
        names_key="fine_label_names",
        labels_key="fine_labels",
    ),
)

CIFAR10_INSTRUCTIONS, CIFAR100_INSTRUCTIONS = (
    instructions(" or ".join(layout.archive for layout in layouts))
    for layouts in (_CIFAR10, _CIFAR100)
)


def load_cifar10(config: Any) -> Source:
    """Load CIFAR-10: 50,000 and 10,000 photographs of 32 by 32 pixels, 10 classes."""
    return _load(config.data_dir, "cifar10", "CIFAR-10", 10, _CIFAR10, CIFAR10_INSTRUCTIONS)


def load_cifar100(config: Any) -> Source:
    """Load CIFAR-100 with its fine labels: 50,000 and 10,000 photographs, 100 classes."""
    return _load(config.data_dir, "cifar100", "CIFAR-100", 100, _CIFAR100, CIFAR100_INSTRUCTIONS)


def cifar10_files(data_dir: str) -> dict[str, list[Path]]:
    """The files that are read, by part; none if TensorFlow Datasets gives the data."""
    return _files(Path(data_dir).expanduser(), _CIFAR10) if data_dir else {}


def cifar100_files(data_dir: str) -> dict[str, list[Path]]:
    """The files that are read, by part; none if TensorFlow Datasets gives the data."""
    return _files(Path(data_dir).expanduser(), _CIFAR100) if data_dir else {}


def _files(root: Path, layouts) -> dict[str, list[Path]]:
    for layout in layouts:
        parts = {"train": layout.train, "test": (layout.test,), "class names": (layout.names,)}
        for folder in (root, root / layout.folder):
            found = {part: find_files(folder, names) for part, names in parts.items()}
            if any(found.values()):
                return {part: files for part, files in found.items() if files}
        archive = root if root.is_file() else root / layout.archive
        if archive.is_file():
            return {"archive": [archive]}
    return {}


def _load(data_dir: str, dataset: str, name: str, classes: int, layouts, how_to_get: str) -> Source:
    looked = []
    for layout in layouts if data_dir else ():
        for place, files in _places(Path(data_dir).expanduser(), layout):
            looked.append(place)
            if files:
                return _source(place, files, layout, name, classes)
    return load_tfds(dataset, name, data_dir, list(dict.fromkeys(looked)), how_to_get)


def _places(root: Path, layout: _Layout):
    """Each place where the data may be, with the files found in it."""
    yield root, read_folder(root, layout.files)
    yield root / layout.folder, read_folder(root / layout.folder, layout.files)
    archive = root if root.is_file() else root / layout.archive
    yield archive, read_tar(archive, layout.folder, layout.files)


def _source(
    place: Path, files: Mapping[str, bytes], layout: _Layout, name: str, classes: int
) -> Source:
    missing = [file for file in layout.files if file not in files]
    if missing:
        raise FileNotFoundError(
            f"{place} contains a part of {name} but not {', '.join(missing)}; get the official "
            f"{layout.archive} again."
        )
    read = _read_binary if layout.label_bytes else _read_pickle
    parts = {
        file: read(files[file], f"{place}/{file}", layout, classes)
        for file in (*layout.train, layout.test)
    }
    batches, test = [parts[file] for file in layout.train], parts[layout.test]
    train = Split(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    return Source(
        name=_printed_name(name, test),
        train=train,
        test=test,
        class_names=_class_names(files[layout.names], f"{place}/{layout.names}", layout, classes),
    )


def _read_binary(data: bytes, path: str, layout: _Layout, classes: int) -> Split:
    record = layout.label_bytes + _PIXELS
    if not data or len(data) % record:
        raise ValueError(
            f"{path} has {len(data)} bytes, which is not a multiple of the {record} bytes of a "
            "record; it is damaged or incomplete: get the official archive again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    labels = records[:, layout.label_bytes - 1]
    return _split(records[:, layout.label_bytes :], labels, path, classes)


def _read_pickle(data: bytes, path: str, layout: _Layout, classes: int) -> Split:
    content = unpickle_arrays(data, path)
    missing = {"data", layout.labels_key} - content.keys()
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; get the official archive.")
    pixels, labels = content["data"], content[layout.labels_key]
    if not isinstance(pixels, np.ndarray) or not _are_numbers(labels):
        raise ValueError(
            f"{path} has no array of pixels, or labels that are no list of whole numbers; get the "
            "official archive again."
        )
    labels = np.array(labels, np.int64)
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), _PIXELS) or not len(labels):
        raise ValueError(
            f"{path} has pixels of shape {pixels.shape}, {pixels.dtype}, for {len(labels)} labels; "
            f"expected ({len(labels)}, {_PIXELS}), uint8: get the official archive again."
        )
    return _split(pixels, labels, path, classes)


def _are_numbers(labels: object) -> bool:
    if isinstance(labels, np.ndarray):
        return labels.ndim == 1 and labels.dtype.kind in "iu"
    if not isinstance(labels, list):
        return False
    return all(isinstance(label, (int, np.integer)) and 0 <= label < 2**31 for label in labels)


def _split(pixels: np.ndarray, labels: np.ndarray, path: str, classes: int) -> Split:
    """A split from pixels stored as a red, a green and a blue plane, row by row."""
    labels = labels.astype(np.int64)
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(
            f"{path} has a label {outside[0]}, outside 0..{classes - 1}; it is damaged or of "
            "another data set: get the official archive."
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)


def _class_names(data: bytes, path: str, layout: _Layout, classes: int) -> tuple[str, ...]:
    if layout.label_bytes:
        names = data.decode("latin1").split()
    else:
        found = unpickle_arrays(data, path).get(layout.names_key)
        given = found if isinstance(found, list) else []
        names = [name.decode("latin1") if isinstance(name, bytes) else name for name in given]
        names = [name for name in names if isinstance(name, str)]
    if len(names) != classes:
        raise ValueError(
            f"{path} names {len(names)} classes, not {classes}; get the archive again."
        )
    return tuple(names)


def _printed_name(name: str, test: Split) -> str:
    """The data set's name; it says so if the data is a copy, whose pixels may differ."""
    first = tuple(test.labels[:10].tolist())
    if _ORIGINAL.get(first) == name:
        return name
    return f"{name} ({'JPEG' if first == _JPEG_COPY else 'unofficial'} copy)"
