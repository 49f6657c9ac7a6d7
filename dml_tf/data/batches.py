"""Batches for training and evaluation: `tf.data` applies the draws of `draws`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from dml_tf.data.draws import (
    AUGMENTATIONS,
    STREAMED_AUGMENTATIONS,
    EpochDraws,
    crop_pad,
    epoch_draws,
    epoch_order,
    steps_per_epoch,
)
from dml_tf.data.splits import Split, Splits
from dml_tf.data.stored import Pictures, StoredImages, WholePictures

_EVALUATED = 256  # images in a batch of evaluation, at most
# AutoGraph would take half a second to translate functions that have nothing to translate.
_as_it_is = tf.autograph.experimental.do_not_convert


def train_batches(
    splits: Splits,
    config: Any,
    *,
    initial_epoch: int = 0,
    initial_step: int = 0,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """An endless stream of augmented training batches.

    Each epoch is a new permutation, cut into `steps_per_epoch` full batches. Images are padded by
    reflection and cropped: 4 pixels at a size of 32 (Sec. 4.1), in proportion at other sizes
    (ours). Images that are stored at another size are resized after that, bilinearly. ImageNet's
    pictures are cropped to Inception's random windows, or to the middle.
    Flips are left to right. A stream that starts at epoch `e` gives exactly the batches that a
    longer one gives from epoch `e` on, and so from a step in its middle.

    Args:
        splits: The run's data.
        config: Object with `batch_size`, `seed` and `augment`: `none`, `flip` or, for ImageNet,
            `inception`, for other images `crop_flip` or `randaugment` (crops, flips and Keras's
            RandAugment). With `mixup` above 0, these images and their labels are mixed in pairs.
            With `own_views`, each of its `cohort` peers has crops and flips of its own.
        initial_epoch: First epoch of the stream, counted from 0.
        initial_step: Steps of the first epoch that are left out; no image is read for them.
        part: `(i, n)`: only the `i`-th of `n` equal parts of every batch; `n` divides the batch.

    Returns:
        A data set of `(images, labels)`: normalised pixels, shape
        `(batch, height, width, channels)`, float32, and labels, shape `(batch,)`, int64, -1
        where unlabelled; with `mixup`, distributions over the classes, `(batch, classes)`, float32.
        With `own_views` images have the shape `(batch, cohort, height, width, channels)`.

    Raises:
        ValueError: The training set is smaller than one batch, or `augment` does not fit it.

    Examples:
        >>> from types import SimpleNamespace
        >>> from dml_tf.data import load
        >>> config = SimpleNamespace(
        ...     dataset="digits", data_dir="", image_size=16, train_images=200,
        ...     validation_fraction=0.0, labelled_fraction=1.0, unlabelled="use", seed=0,
        ...     augment="crop_flip", batch_size=32)
        >>> images, labels = next(iter(train_batches(load(config), config)))
        >>> tuple(images.shape), labels.dtype.name
        ((32, 16, 16, 1), 'int64')
    """
    in_windows = isinstance(splits.train.images, Pictures)
    augmentations = STREAMED_AUGMENTATIONS if in_windows else AUGMENTATIONS
    if config.augment not in augmentations:
        raise ValueError(f"--augment={config.augment}: give one of {', '.join(augmentations)}.")
    epochs = tf.data.Dataset.range(initial_epoch, tf.int64.max)
    number, parts = part
    share = config.batch_size // parts
    columns = slice(number * share, (number + 1) * share)
    shape = (steps_per_epoch(len(splits.train), config.batch_size), config.batch_size)
    make = _in_windows if in_windows else _in_one_size
    return make(epochs, splits, config, shape, columns, initial_step).prefetch(2)


def _in_one_size(
    epochs: tf.data.Dataset,
    splits: Splits,
    config: Any,
    shape: tuple[int, int],
    columns: slice,
    skipped: int,
) -> tf.data.Dataset:
    """The columns of each epoch's `shape` (steps, batch), from images of one size."""
    pad = crop_pad(splits.train.pixels.shape[1])
    views = config.cohort if getattr(config, "own_views", False) else 0

    def draw(epoch):
        return epoch_draws(
            config.seed,
            epoch,
            images=len(splits.train),
            batch_size=config.batch_size,
            augment=config.augment,
            pad=pad,
            views=views,
        )

    @_as_it_is
    def batches_of(epoch):
        dtypes = (tf.int32, tf.int32, tf.int32, tf.bool)
        draws = EpochDraws(*tf.numpy_function(draw, [epoch], dtypes, stateful=False))
        for name, array in draws._asdict().items():
            array.set_shape((*shape, views) if views and name != "index" else shape)
        parts = tf.data.Dataset.from_tensor_slices(EpochDraws(*(a[:, columns] for a in draws)))
        return parts.enumerate(start=epoch * shape[0])

    cut, labels = _cutter(splits.train, pad), _constant(splits.train.labels)
    resize, normalise = _resizer(splits.train), _normaliser(splits)
    changes = _changes(splits, config)

    @_as_it_is
    def batch(step, draws):
        classes = tf.gather(labels, draws.index)
        pixels = resize(cut(_each_view(draws, views)))
        for change in changes:
            pixels, classes = change(pixels, classes, step)
        pixels = normalise(pixels)
        if views:
            pixels = tf.reshape(pixels, (-1, views, *pixels.shape[1:]))
        return pixels, classes

    return epochs.flat_map(batches_of).skip(skipped).map(batch).with_options(_options())


def _each_view(draws: EpochDraws, views: int) -> EpochDraws:
    """The draws of a batch with a place for each view of an image, one after the other."""
    if not views:
        return draws
    index = tf.repeat(draws.index, views)
    return EpochDraws(index, *(tf.reshape(array, [-1]) for array in draws[1:]))


def _changes(splits: Splits, config: Any) -> list[Callable]:
    """What Keras's layers do to the pixels and labels of a step, after crops and flips."""
    changes = []
    start = tf.constant([config.seed % 2**31, config.seed >> 31], tf.int64)
    if config.augment == "randaugment":
        _refuse_grey(splits)
        changes.append(_rand_augment(start))
    if alpha := getattr(config, "mixup", 0.0):
        changes.append(_mix_up(start, alpha, splits.num_classes))
    return changes


def _rand_augment(start: tf.Tensor) -> Callable:
    from dml_tf.data.keras_layers import rand_augment  # Keras, which other batches do not need

    augment = rand_augment()
    return lambda pixels, labels, step: (augment(pixels, _key(start, 2 * step)), labels)


def _mix_up(start: tf.Tensor, alpha: float, classes: int) -> Callable:
    from dml_tf.data.keras_layers import mix_up

    mix = mix_up(alpha, classes)
    return lambda pixels, labels, step: mix(pixels, labels, _key(start, 2 * step + 1))


def _key(start: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(start, number)


def _refuse_grey(splits: Splits):
    channels = splits.train.images.shape[-1]
    if channels != 3:
        raise ValueError(
            f"--augment=randaugment is for colour images; these have {channels} channel. Use "
            "--augment=crop_flip."
        )


def _in_windows(
    epochs: tf.data.Dataset,
    splits: Splits,
    config: Any,
    shape: tuple[int, int],
    columns: slice,
    skipped: int,
) -> tf.data.Dataset:
    """The columns of each epoch's `shape` (steps, batch), from windows of pictures."""
    pictures = splits.train.images

    def draw(epoch):
        return epoch_order(
            config.seed, epoch, images=len(splits.train), batch_size=config.batch_size
        )

    @_as_it_is
    def places_of(epoch):
        index = tf.numpy_function(draw, [epoch], tf.int32, stateful=False)
        index = tf.reshape(tf.reshape(index, shape)[:, columns], [-1])
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(index), epoch), index))

    def picture(epoch, i):
        return pictures.augmented(i, seed=config.seed, epoch=epoch, augment=config.augment)

    share = columns.stop - columns.start
    places = epochs.flat_map(places_of).skip(skipped * share)
    return _decode(places, picture, splits.train, splits).batch(share, drop_remainder=True)


def evaluated_at_once(height: int, width: int) -> int:
    """How many images of a size are in a batch of evaluation: 256, or fewer if they are large.

    The maps of a batch then need no more memory than those of 256 images of 128x128.
    """
    return max(1, min(_EVALUATED, _EVALUATED * 128**2 // (height * width)))


def eval_batches(split: Split, splits: Splits, batch_size: int = 0) -> tf.data.Dataset:
    """The images of a split once, in order, without augmentation; the last batch may be smaller.

    Args:
        split: Images to measure on.
        splits: The run's data, whose training statistics normalise them.
        batch_size: Images in a batch; 0 for `evaluated_at_once`.

    Returns:
        A data set of `(images, labels)` like that of `train_batches`.
    """
    batch_size = batch_size or evaluated_at_once(*split.images.shape[1:3])
    if isinstance(split.images, Pictures):
        places = tf.data.Dataset.range(len(split)).map(_as_it_is(lambda i: (i,)))
        return _decode(places, split.images.central, split, splits).batch(batch_size).prefetch(2)
    read, labels = _reader(split), _constant(split.labels)
    resize, normalise = _resizer(split), _normaliser(splits)

    @_as_it_is
    def batch(start):
        part = slice(start, start + batch_size)
        return normalise(resize(read(part))), labels[part]

    starts = tf.data.Dataset.range(0, len(split), batch_size)
    return starts.map(batch).with_options(_options()).prefetch(2)


def _decode(
    places: tf.data.Dataset, picture: Callable[..., np.ndarray], split: Split, splits: Splits
) -> tf.data.Dataset:
    """Image and label at each place, whose last element is the index of a picture."""
    # Pillow decodes, because it names a broken file; TensorFlow's decoders in a graph do not.
    # A picture is normalised by itself: whole batches of floats would be new memory each time.
    labels, normalise = _constant(split.labels), _normaliser(splits)

    @_as_it_is
    def decode(*place):
        pixels = tf.numpy_function(picture, place, tf.uint8, stateful=False)
        pixels = tf.ensure_shape(pixels, split.images.shape[1:])
        return normalise(pixels)[0], labels[place[-1]]

    return places.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _cutter(split: Split, pad: int) -> Callable[[EpochDraws], tf.Tensor]:
    """A function from a batch of draws to its crops."""
    if not isinstance(split.images, WholePictures):
        images = _constant(split.pixels)
        return lambda draws: crop(images, draws, pad)

    def cut(draws):
        pixels = _decoded(split.images, draws.index)
        return crop(pixels, draws._replace(index=tf.range(tf.size(draws.index))), pad)

    return cut


def _reader(split: Split) -> Callable[[slice], tf.Tensor]:
    """A function from a slice to its pixels."""
    if not isinstance(split.images, WholePictures):
        return _constant(split.pixels).__getitem__
    places = _constant(np.arange(len(split)))
    return lambda part: _decoded(split.images, places[part])


def _decoded(pictures: WholePictures, index: tf.Tensor) -> tf.Tensor:
    def decode(places):
        return np.asarray(pictures[places])

    pixels = tf.numpy_function(decode, [index], tf.uint8, stateful=False)
    return tf.ensure_shape(pixels, (None, *pictures.shape[1:]))


def crop(images: tf.Tensor, draws: EpochDraws, pad: int) -> tf.Tensor:
    """Crops of reflect-padded images, one for each of a batch of draws, mirrored as drawn."""
    # The padded images are never made: the rows and columns of a crop are reflected instead.
    _, height, width, channels = images.shape
    rows = _reflect(draws.top[:, tf.newaxis] - pad + tf.range(height), height)
    columns = _reflect(draws.left[:, tf.newaxis] - pad + tf.range(width), width)
    columns = tf.where(draws.flip[:, tf.newaxis], columns[:, ::-1], columns)
    every_row = tf.reshape(images, (-1, width, channels))
    crops = tf.gather(every_row, draws.index[:, tf.newaxis] * height + rows)
    return tf.gather(crops, columns, axis=2, batch_dims=1)


def _reflect(place: tf.Tensor, size: int) -> tf.Tensor:
    """Mirrors places outside `[0, size)` at the first and last pixel, which are not repeated."""
    return (size - 1) - tf.abs((size - 1) - tf.abs(place))


def _constant(array: np.ndarray) -> tf.Tensor:
    with tf.device("CPU:0"):  # tf.data works there, also beside a GPU
        return tf.constant(array)


def _resizer(split: Split) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from pixels at their stored size to pixels, not rounded, of the images' size."""
    images = split.images
    if not isinstance(images, StoredImages):
        return lambda pixels: pixels
    stored = images.pixels.shape[1:3]
    # Without a smaller side antialiasing changes nothing but the time, which it triples.
    shrinks = any(side < before for side, before in zip(images.size, stored, strict=True))
    return lambda pixels: tf.image.resize(pixels, images.size, antialias=shrinks)


def _normaliser(splits: Splits) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from pixels 0..255 to pixels of mean 0 and deviation 1 in each channel."""
    shape = splits.train.images.shape[1:]
    # Each image is one long row: broadcasting over three channels takes twice the time.
    scale = np.broadcast_to(1 / (255 * splits.std), shape).ravel()
    offset = np.broadcast_to(-splits.mean / splits.std, shape).ravel()

    def normalise(images):
        rows = tf.cast(tf.reshape(images, (-1, scale.size)), tf.float32)
        return tf.reshape(rows * scale + offset, (-1, *shape))

    return normalise


def _options() -> tf.data.Options:
    """Batches come in order, from one thread that the training step does not use."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    return options
