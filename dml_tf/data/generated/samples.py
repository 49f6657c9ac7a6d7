"""Small files in the true formats of the paper's data sets, side by side in one folder.

They rehearse runs on a machine without the data. Each has all classes of the data set, with few
images; the images are those of shapes100. They are no part of the data sets.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dml_tf.data.generated.folders import ensure_folder, whole_folder
from dml_tf.data.generated.shapes100 import generate
from dml_tf.data.sources.market1501_tree import FOLDER, GALLERY, MULTI_QUERY, QUERY, TRAIN

DATASETS = ("cifar10", "cifar100", "imagenet", "market1501")  # by the names of `--dataset`
_IDENTITIES = 751
_CIFAR_TRAIN, _CIFAR_TEST = 1000, 200  # ten images of each of 100 classes, so that few are labelled
_CIFAR10_BATCHES = 5
_CLASSES = 1000
_QUERIES = 8
_DISTINCT = 100  # drawn pictures of ImageNet and Market-1501; files repeat them
_IMAGENET_SIZE, _MARKET_SIZE = (400, 350), (64, 128)  # width and height, typical ones
_NOTE = "README.txt"


def ensure(dest: str | Path) -> Path:
    """Writes the files if their folder does not have them yet; returns the folder."""
    return ensure_folder(dest, _NOTE, write)


def write(dest: str | Path):
    """Writes the files into a new or empty folder."""
    with whole_folder(dest) as folder:
        _write_cifar10(folder / "cifar-10-batches-bin")
        _write_cifar100(folder / "cifar-100-binary")
        _write_imagenet(folder / "imagenet")
        _write_market1501(folder / FOLDER)
        (folder / _NOTE).write_text(__doc__)


def _write_cifar10(folder: Path):
    folder.mkdir()
    train = _CIFAR_TRAIN // _CIFAR10_BATCHES
    for number in range(1, _CIFAR10_BATCHES + 1):
        (folder / f"data_batch_{number}.bin").write_bytes(_records(train, number, classes=10))
    (folder / "test_batch.bin").write_bytes(_records(_CIFAR_TEST, 0, classes=10))
    (folder / "batches.meta.txt").write_text("".join(f"class{label}\n" for label in range(10)))


def _write_cifar100(folder: Path):
    folder.mkdir()
    for name, count, part in (("train", _CIFAR_TRAIN, 1), ("test", _CIFAR_TEST, 0)):
        (folder / f"{name}.bin").write_bytes(_records(count, part, classes=100))
    names = "".join(f"class{label}\n" for label in range(100))
    (folder / "fine_label_names.txt").write_text(names)


def _records(count: int, part: int, classes: int) -> bytes:
    """Records of CIFAR's binary layout: labels, then a red, a green and a blue plane."""
    split = generate(count, part=part)
    labels = split.labels % classes
    heads = [labels] if classes == 10 else [labels // 5, labels]  # CIFAR-100's superclass first
    planes = split.images.transpose(0, 3, 1, 2).reshape(count, -1)
    return np.column_stack([*heads, planes]).astype(np.uint8).tobytes()


def _write_imagenet(folder: Path):
    pictures = _jpegs(_IMAGENET_SIZE)
    for part in ("train", "val"):
        for label in range(_CLASSES):
            wnid = f"n{label:08d}"
            file = folder / part / wnid / f"{wnid}_0.JPEG"
            file.parent.mkdir(parents=True)
            file.write_bytes(pictures[label % _DISTINCT])


def _write_market1501(folder: Path):
    """Every training identity before two cameras, and a few queries with their gallery."""
    pictures = _jpegs(_MARKET_SIZE)
    names = {TRAIN: [], QUERY: [], GALLERY: [], MULTI_QUERY: []}
    for pid in range(1, _IDENTITIES + 1):
        names[TRAIN] += [f"{pid:04d}_c{camera}s1_000001_01.jpg" for camera in (1, 2)]
    for pid in range(_IDENTITIES + 1, _IDENTITIES + 1 + _QUERIES):
        names[QUERY].append(f"{pid:04d}_c1s1_000001_00.jpg")
        names[MULTI_QUERY] += [f"{pid:04d}_c1s1_00000{frame}_00.jpg" for frame in (1, 2, 3)]
        names[GALLERY] += [f"{pid:04d}_c{camera}s1_000001_01.jpg" for camera in (1, 2, 3)]
    names[GALLERY] += [
        f"{pid}_c{camera}s1_000001_01.jpg" for pid in ("0000", "-1") for camera in (1, 2)
    ]  # distractors and junk
    for part, listed in names.items():
        (folder / part).mkdir(parents=True)
        for number, name in enumerate(listed):
            (folder / part / name).write_bytes(pictures[number % _DISTINCT])


def _jpegs(size: tuple[int, int]) -> list[bytes]:
    encoded = []
    for image in generate(_DISTINCT, part=0).images:
        content = io.BytesIO()
        picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        picture.save(content, "JPEG", quality=90)
        encoded.append(content.getvalue())
    return encoded
