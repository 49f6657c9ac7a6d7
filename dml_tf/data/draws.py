"""Every random choice about data: pure NumPy, a function of the seed, the same on every machine.

A draw reads 64-bit words from the counter-based generator Philox4x64-10. Its 128-bit key is
`(seed, purpose * 2**32 + epoch)`, the low word first. NumPy's `Philox` counts from 1 and gives the
four words of a block in order. The words are only sorted, divided and shifted (the area and the
aspect ratio of a window also take a root and a power), so another runtime can repeat every draw
exactly.
"""

import enum
import math
from typing import NamedTuple

import numpy as np

AUGMENTATIONS = ("none", "flip", "crop_flip", "randaugment")
STREAMED_AUGMENTATIONS = ("none", "flip", "inception")
# Windows have 8 to 100% of the area and an aspect ratio of 3/4 to 4/3 (Szegedy et al., Going
# deeper with convolutions, CVPR 2015, Sec. 6).
SMALLEST_AREA = 0.08
WIDEST = 4 / 3
_ATTEMPTS = 10
_WINDOW_BLOCKS = 3  # of four words: ten attempts, one for the place, one for the flip


class Purpose(enum.IntEnum):
    """What a stream of words is for; no word serves two purposes."""

    EPOCH = 0
    VALIDATION = 1
    TRAIN_SUBSET = 2
    LABELLED = 3
    DIGITS_TEST = 4
    SHAPES = 5
    WINDOW = 6
    IMAGENET_MINI = 7


class EpochDraws(NamedTuple):
    """Order and augmentation of one epoch, each array of shape `(steps, batch)`.

    With several views of each image the last three have the shape `(steps, batch, views)`.

    Attributes:
        index: Which training image stands at each place, int32.
        top: First row of the crop in the padded image, in pixels from 0 to `2 * pad`, int32.
        left: First column of the crop, likewise.
        flip: Whether the crop is mirrored left to right, bool.
    """

    index: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray


class Window(NamedTuple):
    """A part of a picture, in pixels, and whether it is mirrored left to right."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Number of full batches in one epoch; the remaining images are not used in that epoch.

    Args:
        images: Size of the training set.
        batch_size: Images in a batch.

    Returns:
        `floor(images / batch_size)`, at least 1.

    Raises:
        ValueError: The training set is smaller than one batch.
    """
    if not 1 <= batch_size <= images:
        raise ValueError(
            f"--batch_size={batch_size}: the training set has {images} images; give a batch of 1 "
            f"to {images} images, or train on more of them."
        )
    return images // batch_size


def epoch_draws(
    seed: int,
    epoch: int,
    *,
    images: int,
    batch_size: int,
    augment: str,
    pad: int,
    views: int = 0,
) -> EpochDraws:
    """Order, crop offsets and flips of one epoch.

    The order is that of `epoch_order`. With `w` the stream for `Purpose.EPOCH`, the augmentation
    of image `i` comes from `v = w[images + i]`: `top = v % (2 pad + 1)`,
    `left = v // (2 pad + 1) % (2 pad + 1)`, and the image is flipped if the highest bit of `v` is
    set. The draws of an image therefore do not depend on the batch size. View n of several has
    `w[(1 + n) images + i]` in its place, so the first view is that of a run with one.

    Args:
        seed: The run's seed.
        epoch: Epoch, counted from 0.
        images: Size of the training set.
        batch_size: Images in a batch.
        augment: `none`, `flip` or `crop_flip`; `randaugment` has the same crops and flips.
        pad: Padding on each side in pixels; offsets of `pad` mean no shift.
        views: Number of views of each image; 0: one, and no axis for it.

    Returns:
        The draws of all steps of the epoch.

    Raises:
        ValueError: The training set is smaller than one batch.

    Examples:
        >>> draws = epoch_draws(0, 3, images=10, batch_size=4, augment="crop_flip", pad=2)
        >>> draws.index.shape, int(draws.top.max()) <= 4
        ((2, 4), True)
    """
    index = epoch_order(seed, epoch, images=images, batch_size=batch_size)
    index = index.reshape(-1, batch_size)
    words = philox(seed, Purpose.EPOCH, epoch).random_raw((1 + max(views, 1)) * images)[images:]
    words = np.moveaxis(words.reshape(-1, images)[:, index], 0, -1) if views else words[index]
    span = np.uint64(2 * pad + 1)
    if augment in ("crop_flip", "randaugment"):
        top, left = (words % span).astype(np.int32), (words // span % span).astype(np.int32)
    else:
        top = left = np.full(words.shape, pad, np.int32)
    if augment == "none":
        flip = np.zeros(words.shape, bool)
    else:
        flip = (words >> np.uint64(63)).astype(bool)
    return EpochDraws(index, top, left, flip)


def epoch_order(seed: int, epoch: int, *, images: int, batch_size: int) -> np.ndarray:
    """Image at each place of one epoch: the stable sort of the stream's first words, int32."""
    words = philox(seed, Purpose.EPOCH, epoch).random_raw(images)
    order = np.argsort(words, kind="stable")[: steps_per_epoch(images, batch_size) * batch_size]
    return order.astype(np.int32)


def crop_pad(size: int) -> int:
    """Padding in pixels before a random crop: 4 for a height of 32 (Sec. 4.1), else `size / 8`."""
    return math.ceil(size / 8)  # our choice: 2 for 16, 4 for 28


def random_window(seed: int, epoch: int, image: int, *, height: int, width: int) -> Window:
    """The window that Inception's crops take from one picture, in pixels, in one epoch."""
    # Image i has the words w[12 i : 12 i + 12] of its stream. Each of the first ten is an attempt:
    # its high half gives the share of the area, uniform from 0.08 to 1; its low half the aspect
    # ratio, whose logarithm is uniform. The first attempt that fits into the picture counts, so
    # all pairs that fit are equally likely. The eleventh word gives the place, the twelfth the
    # flip. If no attempt fits, as in very long pictures, the window is the largest central one
    # of an allowed aspect ratio.
    stream = philox(seed, Purpose.WINDOW, epoch, block=_WINDOW_BLOCKS * image)
    words = stream.random_raw(4 * _WINDOW_BLOCKS).tolist()
    flip = bool(words[11] >> 63)
    for word in words[:_ATTEMPTS]:
        share, turn = (word >> 32) / 2**32, (word & 0xFFFFFFFF) / 2**32
        area = height * width * (SMALLEST_AREA + (1 - SMALLEST_AREA) * share)
        aspect = WIDEST ** (2 * turn - 1)
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = words[10] >> 32, words[10] & 0xFFFFFFFF
            return Window(
                top % (height - rows + 1), left % (width - columns + 1), rows, columns, flip
            )
    rows, columns = min(height, round(width * WIDEST)), min(width, round(height * WIDEST))
    return Window((height - rows) // 2, (width - columns) // 2, rows, columns, flip)


def philox(seed: int, purpose: Purpose, epoch: int = 0, *, block: int = 0) -> np.random.Philox:
    """The stream of words for one purpose, from its `block`-th block of four words on."""
    key = np.array([seed, (int(purpose) << 32) + int(epoch)], dtype=np.uint64)
    return np.random.Philox(key=key, counter=block)
