"""Images that are no plain array: pictures that stay on disk, and images stored at another size.

A `Split` may hold them in place of pixels: they have the shape of the decoded images, and an index
selects some of them without reading a file.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dml_tf.data.draws import Window, random_window
from dml_tf.data.pictures import (
    Notes,
    central_window,
    cut,
    open_picture,
    read_square,
    unreadable,
)

_AT_ONCE = 1000  # images whose pixels are in memory together


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Encoded pictures, each a range of bytes in a file, which are decoded when they are needed.

    Each is shown as a window: a random one in training, the middle in evaluation.

    Attributes:
        files: Paths, shape `(files,)`, of bytes.
        ranges: File, offset and length of each picture, shape `(images, 3)`, int64; the length -1
            stands for the rest of the file.
        size: Height and width of the decoded pictures, in pixels.
    """

    files: np.ndarray
    ranges: np.ndarray
    size: int

    @classmethod
    def of_files(cls, paths: Sequence[str | os.PathLike], size: int) -> "Pictures":
        """Pictures that each fill a file, in the order of the paths."""
        ranges = np.full((len(paths), 3), (0, 0, -1), np.int64)
        ranges[:, 0] = np.arange(len(paths))
        return cls(np.array([os.fsencode(path) for path in paths]), ranges, size)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the decoded pictures: `(images, size, size, 3)`."""
        return len(self.ranges), self.size, self.size, 3

    def __getitem__(self, index: np.ndarray | slice) -> "Pictures":
        """The pictures at `index`."""
        return dataclasses.replace(self, ranges=self.ranges[index])

    def listing(self) -> bytes:
        """Names and places of the pictures, which identify them without reading them."""
        names = [b"/".join(file.split(os.sep.encode())[-2:]) for file in self.files.tolist()]
        return b"\n".join(names) + self.ranges.tobytes()

    def augmented(self, i: int, *, seed: int, epoch: int, augment: str) -> np.ndarray:
        """Picture `i` as one epoch of training shows it, shape `(size, size, 3)`, uint8."""

        def window(height, width):
            drawn = random_window(seed, epoch, i, height=height, width=width)
            if augment == "inception":
                return drawn
            central = central_window(height, width)
            return central._replace(flip=augment == "flip" and drawn.flip)

        return self._decode(i, window)

    def central(self, i: int) -> np.ndarray:
        """The middle of picture `i`, for evaluation, shape `(size, size, 3)`, uint8."""
        return self._decode(i, central_window)

    def _decode(self, i: int, window: Callable[[int, int], Window]) -> np.ndarray:
        """The part of a picture that `window` chooses for its height and width."""
        number, offset, length = self.ranges[i]
        path = os.fsdecode(self.files[number])
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                picture = open_picture(file.read(length))
            return cut(picture, window(picture.height, picture.width), self.size)
        except Exception as error:  # damaged pictures make Pillow raise many types
            at = f" at byte {offset:,}" if length >= 0 else ""
            raise unreadable(f"{path}{at}", error) from error

    def notes(self, place: str) -> "Notes":
        """What is unusual in the pictures; reads the beginning of every file."""
        found = Notes(place)
        for number, offset, length in self.ranges:
            path = os.fsdecode(self.files[number])
            with open(path, "rb") as file:
                file.seek(offset)
                found.add(file.read(length), path)
        return found


@dataclasses.dataclass(frozen=True)
class WholePictures:
    """Files of pictures, each decoded whole and upright when it is needed.

    The pixels are those of a plain array that was decoded beforehand, bit for bit, and NumPy takes
    the pictures for one: `np.asarray(pictures[:9])`.

    Attributes:
        files: Paths, shape `(images,)`, of bytes.
        size: Height and width of the decoded pictures, in pixels.
    """

    files: np.ndarray
    size: int

    @classmethod
    def of_files(cls, paths: Sequence[str | os.PathLike], size: int) -> "WholePictures":
        """Pictures in the order of the paths."""
        return cls(np.array([os.fsencode(path) for path in paths]), size)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the decoded pictures: `(images, size, size, 3)`."""
        return len(self.files), self.size, self.size, 3

    def __getitem__(self, index: np.ndarray | slice) -> "WholePictures":
        """The pictures at `index`."""
        return dataclasses.replace(self, files=self.files[index])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All pixels, uint8, decoded on all processors; ValueError names a damaged file."""
        pixels = np.empty(self.shape, np.uint8)

        def decode(place: int):
            pixels[place] = read_square(os.fsdecode(self.files[place]), self.size)

        list(_decoders().map(decode, range(len(pixels))))
        return pixels if dtype is None else pixels.astype(dtype)


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "decode")


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """Pixels in memory at one size, which become images of another size batch by batch.

    Attributes:
        pixels: Shape `(images, stored height, stored width, channels)`, uint8.
        size: Height and width of the images, in pixels.
    """

    pixels: np.ndarray
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the images: `(images, height, width, channels)`."""
        return len(self.pixels), *self.size, self.pixels.shape[-1]

    def __getitem__(self, index: np.ndarray | slice) -> "StoredImages":
        """The images at `index`."""
        return dataclasses.replace(self, pixels=self.pixels[index])


def blocks(images: np.ndarray | WholePictures | StoredImages) -> Iterator[np.ndarray]:
    """All pixels at the size at which they are stored, in parts of a thousand images."""
    stored = images.pixels if isinstance(images, StoredImages) else images
    for start in range(0, stored.shape[0], _AT_ONCE):
        yield np.asarray(stored[start : start + _AT_ONCE])
