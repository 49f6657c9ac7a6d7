"""Pictures of another size."""

import numpy as np


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
