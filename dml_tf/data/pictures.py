"""Pictures that stay on disk, for data sets that are larger than memory."""

import dataclasses
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dml_tf.data.draws import Window, random_window

UNREADABLE = "cannot be read as a picture"
_EVALUATED = 0.875


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Encoded pictures, each a range of bytes in a file; they are decoded when they are needed.

    They take the place of pixels in a `Split`: they have a shape and can be indexed, which reads
    nothing yet.

    Attributes:
        files: Paths, shape `(files,)`, of bytes.
        ranges: File, offset and length of each picture, shape `(images, 3)`, int64; the length -1
            stands for the rest of the file.
        size: Side of the decoded pictures, in pixels.
    """

    files: np.ndarray
    ranges: np.ndarray
    size: int

    @classmethod
    def of_files(cls, paths: Sequence[str | os.PathLike], size: int) -> "Pictures":
        """Pictures in files of their own.

        Args:
            paths: The files.
            size: Side of the decoded pictures, in pixels.

        Returns:
            The pictures, in the order of the paths.
        """
        ranges = np.full((len(paths), 3), (0, 0, -1), np.int64)
        ranges[:, 0] = np.arange(len(paths))
        return cls(np.array([os.fsencode(path) for path in paths]), ranges, size)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the decoded pictures: `(images, size, size, 3)`."""
        return len(self.ranges), self.size, self.size, 3

    def __getitem__(self, index: np.ndarray | slice) -> "Pictures":
        """The pictures at `index`."""
        return dataclasses.replace(self, ranges=self.ranges[index])

    def listing(self) -> bytes:
        """What tells these pictures from others, without reading them: names and places."""
        names = [b"/".join(file.split(os.sep.encode())[-2:]) for file in self.files.tolist()]
        return b"\n".join(names) + self.ranges.tobytes()

    def augmented(self, i: int, *, seed: int, epoch: int, augment: str) -> np.ndarray:
        """A picture as one epoch of training shows it, a function of the arguments alone.

        Args:
            i: Index of the picture.
            seed: The run's seed.
            epoch: Epoch, counted from 0.
            augment: `inception`, for the window that `random_window` draws; `flip`, for the
                central one, flipped as it says; or `none`.

        Returns:
            Pixels, shape `(size, size, 3)`, uint8.

        Raises:
            ValueError: The picture cannot be read; the message has its path.
        """

        def window(height, width):
            drawn = random_window(seed, epoch, i, height=height, width=width)
            if augment == "inception":
                return drawn
            central = central_window(height, width)
            return central._replace(flip=augment == "flip" and drawn.flip)

        return self._decode(i, window)

    def central(self, i: int) -> np.ndarray:
        """The middle of a picture, for evaluation.

        Args:
            i: Index of the picture.

        Returns:
            Pixels, shape `(size, size, 3)`, uint8.

        Raises:
            ValueError: The picture cannot be read; the message has its path.
        """
        return self._decode(i, central_window)

    def _decode(self, i: int, window) -> np.ndarray:
        number, offset, length = self.ranges[i]
        path = os.fsdecode(self.files[number])
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                picture = Image.open(io.BytesIO(file.read(length)))
            place = window(picture.height, picture.width)
            return cut(picture, place, self.size)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow raises
            at = f" at byte {offset:,}" if length >= 0 else ""
            raise ValueError(
                f"{path}{at} {UNREADABLE} ({error}): get it again, or remove it."
            ) from error


def central_window(height: int, width: int) -> Window:
    """The middle of a picture: 87.5% of its height and width.

    TF-Slim evaluates so after Inception's training crops, and the authors' code builds on TF-Slim.

    Args:
        height: Height of the picture in pixels.
        width: Width, likewise.

    Returns:
        The window.

    Example:
        >>> central_window(256, 100)
        Window(top=16, left=6, height=224, width=88, flip=False)
    """
    top, left = (int(side * (1 - _EVALUATED) / 2) for side in (height, width))
    return Window(top, left, height - 2 * top, width - 2 * left, False)


def cut(picture: Image.Image, window: Window, size: int) -> np.ndarray:
    """Cuts a window out of a picture and resizes it: bilinear, with antialiasing.

    Args:
        picture: A picture of any mode; grey ones get three equal channels.
        window: What to cut out.
        size: New height and width in pixels.

    Returns:
        Pixels, shape `(size, size, 3)`, uint8.
    """
    top, left, height, width, flip = window
    part = picture.crop((left, top, left + width, top + height)).convert("RGB")
    pixels = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if flip else pixels


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resize square or oblong pictures to `size` by `size`.

    A smaller size that divides both sides is the mean over blocks, rounded to the nearest level;
    a larger multiple of both repeats pixels, so that nothing is invented; any other size is
    bilinear, with antialiasing.

    Args:
        images: Pixels, shape `(images, height, width, channels)`, uint8.
        size: New height and width in pixels; 0 keeps the pictures as they are.

    Returns:
        Pixels, shape `(images, size, size, channels)`, uint8.

    Raises:
        ValueError: `size` is negative.

    Example:
        >>> resize(np.array([[0, 1], [2, 3]], np.uint8).reshape(1, 2, 2, 1), 1).item()
        2
    """
    if size < 0:
        raise ValueError(f"--image_size={size}: give a number of pixels, or 0 for the data's own.")
    count, height, width, channels = images.shape
    if size == 0 or (height, width) == (size, size):
        return images
    if height % size == 0 and width % size == 0:
        return _pool(images, size)
    if size % height == 0 and size % width == 0:
        return images.repeat(size // height, axis=1).repeat(size // width, axis=2)
    import tensorflow as tf

    resized = np.empty((count, size, size, channels), np.uint8)
    for start in range(0, count, 1000):  # Bounds the memory that the float images take.
        part = images[start : start + 1000]
        floats = tf.image.resize(part, (size, size), antialias=True).numpy()
        resized[start : start + 1000] = np.rint(floats)
    return resized


def _pool(images: np.ndarray, size: int) -> np.ndarray:
    count, height, width, channels = images.shape
    rows, columns = height // size, width // size
    blocks = images.reshape(count, size, rows, size, columns, channels)
    total = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return ((total + rows * columns // 2) // (rows * columns)).astype(np.uint8)
