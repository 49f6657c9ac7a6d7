"""Reading pictures: decoding within bounds, what is unusual about them, cutting and resizing."""

import functools
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dml_tf.data.draws import Window
from dml_tf.errors import DataWarning

UNREADABLE = "cannot be read as a picture"
# Formats that Pillow decodes by itself; EPS and WMF would need other programs.
FORMATS = (
    "JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX",
    "SGI", "DDS", "QOI",
)  # fmt: skip
MOST_PIXELS = 80_000_000  # of one picture, or of an animation's frames together
_MOST_SCANS = 200  # of a JPEG file; each is decoded at the size of the whole picture
_LISTED = 10
_DEPTH = slice(24, 25)  # where a PNG file says how many bits a sample has
EVALUATED = 0.875  # share of height and width


def read_picture(data: bytes, name: str) -> Image.Image:
    """Opens an encoded picture; its pixels are decoded when they are asked for.

    Args:
        data: The file's content.
        name: What messages call it.

    Returns:
        The picture, whose size, mode and format are known.

    Raises:
        ValueError: It is of another format, damaged, or larger than `MOST_PIXELS`.
    """
    try:
        picture = open_picture(data)
    except Exception as error:
        raise unreadable(name, error) from error
    return picture


def decode_picture(data: bytes, name: str) -> np.ndarray:
    """Pixels of an encoded picture, upright, `(height, width, 3)`; ValueError if it is damaged."""
    try:
        upright = ImageOps.exif_transpose(open_picture(data))
        if upright.mode.startswith("I"):  # 16 bits a sample, which convert() would cut off
            upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
        return np.asarray(upright.convert("RGB"))
    except Exception as error:
        raise unreadable(name, error) from error


def decode_square(data: bytes, name: str, size: int) -> np.ndarray:
    """A whole picture, upright and resized, `(size, size, 3)`; ValueError if it is damaged."""
    return resize(decode_picture(data, name)[np.newaxis], size)[0]


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Pixels of a file, as of `decode_picture`."""
    return decode_picture(_content(path), os.fspath(path))


def read_square(path: str | os.PathLike, size: int) -> np.ndarray:
    """Pixels of a file, as of `decode_square`."""
    return decode_square(_content(path), os.fspath(path), size)


def _content(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise unreadable(os.fspath(path), error) from error


def open_picture(data: bytes) -> Image.Image:
    """As `read_picture`, with errors of many types."""
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    frames = _frames(picture)
    if picture.width * picture.height * frames > MOST_PIXELS:
        raise ValueError(
            f"{picture.width} by {picture.height} pixels in {frames} frames; at most "
            f"{MOST_PIXELS:,} pixels are decoded"
        )
    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers; 8 or 16 bits a sample are needed")
    if picture.format in ("JPEG", "MPO") and _scans(data) > _MOST_SCANS:
        raise ValueError(f"more than {_MOST_SCANS} scans")
    return picture


def _scans(data: bytes) -> int:
    codes = np.frombuffer(data, np.uint8)  # three times as fast as data.count
    return np.count_nonzero((codes[:-1] == 0xFF) & (codes[1:] == 0xDA))


def _frames(picture: Image.Image) -> int:
    # MPO is JPEG with further pictures, as previews; they are not decoded.
    return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def unreadable(name: str, error: Exception) -> ValueError:
    """What to raise for a picture that an error makes useless."""
    if isinstance(error, UnidentifiedImageError):  # its message has an address in memory
        reason = "no format of a picture is known that begins like this"
    else:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"{name} {UNREADABLE} ({reason}): get it again, or remove it.")


class Notes:
    """What was converted or is doubtful in many pictures; told in one warning for each kind.

    Args:
        place: The folder that the pictures come from.
    """

    def __init__(self, place: str):
        self._place = place
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, data: bytes, name: str) -> Image.Image:
        """Opens a picture as `read_picture`, and notes what is unusual about it."""
        picture = read_picture(data, name)
        for kind in _peculiarities(picture, data):
            self.note(kind, name)
        return picture

    def note(self, kind: str, name: str):
        """Notes one file; `kind` follows the words 'N files'."""
        self._names[kind].append(name)

    def warn(self):
        """Warns once for each kind, with the number of files and the names of the first."""
        for kind, names in self._names.items():
            warnings.warn(f"{self._place}: {counted(names)} {kind}.", DataWarning, stacklevel=3)


def counted(names: Sequence[str]) -> str:
    """How many files, and the names of the first of them."""
    listed = ", ".join(map(str, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")
    return f"{len(names)} {'file' if len(names) == 1 else 'files'} ({listed})"


def _peculiarities(picture: Image.Image, data: bytes) -> list[str]:
    found = []
    if picture.mode == "CMYK":
        found.append("in CMYK colours, converted to RGB")
    if picture.mode.startswith("I") or (picture.format == "PNG" and data[_DEPTH] == b"\x10"):
        found.append("with 16 bits a sample, reduced to 8")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        found.append("with transparency, which is left out")
    if _frames(picture) > 1:
        found.append("with an animation, of which the first frame is taken")
    if min(picture.size) == 1:
        found.append("with a single row or column of pixels, enlarged")
    return found


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Endings of the names of files, in lower case, that may be pictures."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in FORMATS)


def central_window(height: int, width: int) -> Window:
    """The middle 87.5% of height and width, on which TF-Slim evaluates after Inception's crops."""
    top, left = (int(side * (1 - EVALUATED) / 2) for side in (height, width))
    return Window(top, left, height - 2 * top, width - 2 * left, False)


def cut(picture: Image.Image, window: Window, size: int) -> np.ndarray:
    """A window of a picture of any mode, resized to `(size, size, 3)`, bilinear, antialiased."""
    top, left, height, width, flip = window
    part = picture.crop((left, top, left + width, top + height))
    part = part if part.mode == "RGB" else part.convert("RGB")  # which would copy
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
    """Bilinear, with antialiasing; on the CPU, where pictures are decoded beside the training."""
    import tensorflow as tf

    resized = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    for start in range(0, len(images), 1000):  # bounds the memory of the float images
        part = images[start : start + 1000]
        with tf.device("CPU:0"):
            floats = tf.image.resize(part, (size, size), antialias=True).numpy()
        resized[start : start + 1000] = np.rint(floats)
    return resized
