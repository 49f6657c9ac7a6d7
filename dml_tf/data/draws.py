"""Every random choice about data: pure NumPy, a function of the seed, the same on every machine.

A draw is a run of 64-bit words from the counter-based generator Philox4x64-10 under the 128-bit
key `(seed, purpose * 2**32 + epoch)`, low word first. NumPy's `Philox` starts at counter 1, then
2, 3, ... and gives the four words of a block in order. Nothing but sorting, division and shifts
is done to the words, so that another runtime can repeat every draw exactly.
"""

import enum
from typing import NamedTuple

import numpy as np

AUGMENTATIONS = ("none", "flip", "crop_flip")


class Purpose(enum.IntEnum):
    """What a stream of words is for; two purposes never share a word."""

    EPOCH = 0
    VALIDATION = 1
    TRAIN_SUBSET = 2
    LABELLED = 3
    DIGITS_TEST = 4
    SHAPES = 5


class EpochDraws(NamedTuple):
    """Order and augmentation of one epoch, each array of shape `(steps, batch)`.

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


def philox(seed: int, purpose: Purpose, epoch: int = 0) -> np.random.Philox:
    """The stream of words for one purpose.

    Args:
        seed: The run's seed, 0 or more.
        purpose: What the words are for.
        epoch: Epoch, counted from 0, for purposes that draw anew in each.

    Returns:
        A NumPy bit generator; `random_raw(n)` gives the next `n` words, uint64.
    """
    key = np.array([seed, (int(purpose) << 32) + int(epoch)], dtype=np.uint64)
    return np.random.Philox(key=key)


def crop_pad(size: int) -> int:
    """Pixels of padding before a random crop: 4 for images of 32, as in Sec. 4.1's WRN recipe.

    Other sizes take the same share, rounded up (2 at 16, 4 at 28), which is our choice.

    Args:
        size: Height of the image in pixels.

    Returns:
        Padding on each side, in pixels.
    """
    return -(-size // 8)


def epoch_draws(
    seed: int, epoch: int, *, images: int, batch_size: int, augment: str, pad: int
) -> EpochDraws:
    """Order, crop offsets and flips of one epoch.

    With `w` the first `2 * images` words of the stream for `Purpose.EPOCH`: the order is the
    stable ascending sort of `w[:images]`, cut to whole batches. Image `i` takes its augmentation
    from `v = w[images + i]`: `top = v % (2 pad + 1)`, `left = v // (2 pad + 1) % (2 pad + 1)`,
    and it is flipped where the highest bit of `v` is set. The draws of an image therefore do not
    depend on the batch size.

    Args:
        seed: The run's seed.
        epoch: Epoch, counted from 0.
        images: Size of the training set.
        batch_size: Images in a batch.
        augment: `none`, `flip` or `crop_flip`.
        pad: Padding on each side in pixels; offsets of `pad` mean no shift.

    Returns:
        The draws, `images // batch_size` steps of them.

    Example:
        >>> draws = epoch_draws(0, 3, images=10, batch_size=4, augment="crop_flip", pad=2)
        >>> draws.index.shape, int(draws.top.max()) <= 4
        ((2, 4), True)
    """
    words = philox(seed, Purpose.EPOCH, epoch).random_raw(2 * images)
    steps = images // batch_size
    order = np.argsort(words[:images], kind="stable")[: steps * batch_size]
    index = order.astype(np.int32).reshape(steps, batch_size)
    words, span = words[images:][index], np.uint64(2 * pad + 1)
    unmoved = np.full_like(index, pad)
    if augment == "crop_flip":
        top, left = (words % span).astype(np.int32), (words // span % span).astype(np.int32)
    else:
        top = left = unmoved
    flip = (words >> np.uint64(63)).astype(bool) & (augment != "none")
    return EpochDraws(index, top, left, flip)
