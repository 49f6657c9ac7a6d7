"""Images that are no plain array: pictures that stay on disk, and images stored at another size.

`resize` is for plain arrays.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from dml_tf.data.draws import Window, random_window

UNREADABLE = "cannot be read as a picture"
_EVALUATED = 0.875  # share of height and width


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Encoded pictures, each a range of bytes in a file, which are decoded when they are needed.

    A `Split` may hold them in place of pixels: they have a shape, and an index selects some of
    them without reading a file.

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
                picture = Image.open(io.BytesIO(file.read(length)))
            return cut(picture, window(picture.height, picture.width), self.size)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow raises
            at = f" at byte {offset:,}" if length >= 0 else ""
            raise ValueError(
                f"{path}{at} {UNREADABLE} ({error}): get it again, or remove it."
            ) from error


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """Pixels in memory at one size, which become images of another size batch by batch.

    A `Split` may hold them in place of pixels: they have the shape of the images, and an index
    selects some of them.

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


def central_window(height: int, width: int) -> Window:
    """The middle 87.5% of height and width, on which TF-Slim evaluates after Inception's crops."""
    top, left = (int(side * (1 - _EVALUATED) / 2) for side in (height, width))
    return Window(top, left, height - 2 * top, width - 2 * left, False)


def cut(picture: Image.Image, window: Window, size: int) -> np.ndarray:
    """A window of a picture of any mode, resized to `(size, size, 3)`, bilinear, antialiased."""
    top, left, height, width, flip = window
    part = picture.crop((left, top, left + width, top + height)).convert("RGB")
    pixels = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if flip else pixels


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures in memory, resized to `(images, size, size, channels)`; size 0 keeps them."""
    if size < 0:
        raise ValueError(f"--image_size={size}: give a number of pixels, or 0 for the data's own.")
    height, width = images.shape[1:3]
    if size == 0 or (height, width) == (size, size):
        return images
    if height % size == 0 and width % size == 0:
        return _pool(images, size)
    if size % height == 0 and size % width == 0:
        return images.repeat(size // height, axis=1).repeat(size // width, axis=2)  # exact
    return _interpolate(images, size)


def _pool(images: np.ndarray, size: int) -> np.ndarray:
    """Means over blocks, rounded to the nearest level."""
    count, height, width, channels = images.shape
    rows, columns = height // size, width // size
    blocks = images.reshape(count, size, rows, size, columns, channels)
    total = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return ((total + rows * columns // 2) // (rows * columns)).astype(np.uint8)


def _interpolate(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, with antialiasing."""
    import tensorflow as tf

    resized = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    for start in range(0, len(images), 1000):  # bounds the memory of the float images
        part = images[start : start + 1000]
        floats = tf.image.resize(part, (size, size), antialias=True).numpy()
        resized[start : start + 1000] = np.rint(floats)
    return resized
