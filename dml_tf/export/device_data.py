"""The training set on a device, and the mini-batches that are made of it there."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dml_tf.data import EpochDraws, Split
from dml_tf.data.draws import crop_pad
from dml_tf.export.folder import Export


class DeviceData(NamedTuple):
    """The training set on a device.

    Attributes:
        images: Pixels, shape `(images, height, width, channels)`, uint8.
        labels: Classes, shape `(images,)`, int64, -1 where unlabelled.
        levels: Normalised value of each of a channel's 256 levels, shape `(256, channels)`,
            float32.
    """

    images: jax.Array
    labels: jax.Array
    levels: jax.Array


def to_device(train: Split, export: Export, device: jax.Device) -> DeviceData:
    """Copies a training set to a device, as bytes.

    The normalised values are NumPy's, looked up on the device. No compiler can round them in
    another way (a fused multiply-add would), and batches equal those of `tf.data` bit for bit.
    """
    images = export.manifest["images"]
    mean, std = (np.array(images[key], np.float32) for key in ("mean", "std"))
    levels = np.arange(256, dtype=np.float32)[:, np.newaxis] * (1 / (255 * std)) - mean / std
    return DeviceData(*jax.device_put((train.images, train.labels, levels), device))


def batch(data: DeviceData, draws: EpochDraws) -> tuple[jax.Array, jax.Array]:
    """Cuts, mirrors and normalises a mini-batch, as `dml_tf.data.train_batches` does."""
    _, height, width, channels = data.images.shape
    pad = crop_pad(height)
    rows = _reflect(draws.top[:, None] - pad + np.arange(height, dtype=np.int32), height)
    columns = _reflect(draws.left[:, None] - pad + np.arange(width, dtype=np.int32), width)
    columns = jnp.where(draws.flip[:, None], columns[:, ::-1], columns)
    place = (draws.index[:, None, None], rows[:, :, None], columns[:, None, :])
    return data.levels[data.images[place], np.arange(channels)], data.labels[draws.index]


def _reflect(place: jax.Array, size: int) -> jax.Array:
    """Places outside `[0, size)` mirrored at the first and last pixel, which are not repeated."""
    return (size - 1) - jnp.abs((size - 1) - jnp.abs(place))
