"""Tries networks and their files on test images: agreement, accuracy, size, time."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dml_tf.data import Split
from dml_tf.data.stored import Pictures


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one file, or of the networks in Keras.

    Attributes:
        name: What was measured.
        numbers: `float32`, `float16` or `int8`.
        megabytes: Size of the file, or of the networks' weights.
        milliseconds: Median time of one picture.
        accuracy: On the test images that were tried, a fraction.
        agreement: Share of these whose first class is that of the network in Keras.
    """

    name: str
    numbers: str
    megabytes: float
    milliseconds: float
    accuracy: float
    agreement: float


class Trial:
    """Measures ways to run a network on the same images.

    Args:
        pixels: Test images, float32, 0 to 255, shape `(images, height, width, channels)`.
        labels: Their classes.
        keras: The network in Keras, with which the others are compared: pixels -> probabilities.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, keras: Callable):
        self._pixels, self._labels = pixels, labels
        self._firsts = _firsts(keras, pixels)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._labels)

    def measure(self, name: str, numbers: str, size: int, run: Callable) -> Row:
        """Runs the images through `run`, pixels -> probabilities; `size` is in bytes."""
        firsts = _firsts(run, self._pixels)
        return Row(
            name,
            numbers,
            size / 1e6,
            _milliseconds(run, self._pixels),
            float(np.mean(firsts == self._labels)),
            float(np.mean(firsts == self._firsts)),
        )


def table(rows: Sequence[Row]) -> str:
    """Rows as text with aligned columns."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  numbers       MB  ms/image  accuracy  same class as Keras"]
    lines += [
        f"{row.name:{width}}  {row.numbers:7}  {row.megabytes:7.3f}  {row.milliseconds:8.2f}  "
        f"{100 * row.accuracy:7.2f}%  {100 * row.agreement:.2f}%"
        for row in rows
    ]
    return "\n".join(lines)


def int8_changes(rows: Sequence[Row]) -> list[str]:
    """What int8 costs each file against the network in Keras, the second of the rows."""
    return [
        f"{row.name}: int8 changes the accuracy by {100 * (row.accuracy - rows[1].accuracy):+.2f} "
        "points."
        for row in rows
        if row.numbers == "int8"
    ]


def some_pixels(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Some images of a split, evenly spaced, as float32 pixels, and their labels."""
    index = np.linspace(0, len(split) - 1, min(count, len(split))).astype(int)
    if isinstance(split.images, Pictures):
        pixels = np.stack([split.images.central(i) for i in index])
    else:
        pixels = np.asarray(split.images[index])
    return pixels.astype(np.float32), split.labels[index]


def _firsts(run: Callable, pixels: np.ndarray) -> np.ndarray:
    """The first class of each picture."""
    batches = [pixels[i : i + 100] for i in range(0, len(pixels), 100)]
    return np.concatenate([run(batch).argmax(axis=1) for batch in batches])


def _milliseconds(run: Callable, pixels: np.ndarray, calls: int = 30) -> float:
    """Median time of a call with one picture, after five calls that are not counted."""
    took = []
    for i in range(calls + 5):
        one = pixels[i % len(pixels)][np.newaxis]
        started = time.perf_counter()
        run(one)
        took.append(time.perf_counter() - started)
    return 1000 * float(np.median(took[5:]))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
