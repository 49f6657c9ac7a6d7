"""From a config to the images of one run."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from dml_tf.data.pictures import resize
from dml_tf.data.splits import Source, Split, Splits, choose

# Where generated files are kept that take a while to make.
GENERATED = Path(__file__).resolve().parents[2] / "data"

# Imported when asked for: what one data set needs, another does not.
_SOURCES = {
    "cifar10": "sources.cifar:load_cifar10",
    "cifar100": "sources.cifar:load_cifar100",
    "fashion_mnist": "sources.fashion_mnist:load_fashion_mnist",
    "image_folder": "sources.image_folder:load_image_folder",
    "digits": "sources.digits:load_digits",
    "shapes100": "generated.shapes100:load_shapes100",
    "imagenet": "sources.imagenet:load_imagenet",
    "imagenet_mini": "sources.imagenet:load_imagenet_mini",
}
# Their pictures stay on disk.
STREAMED_DATASETS = ("imagenet", "imagenet_mini")
REID_DATASETS = ("market1501", "pedestrians")
DATASETS = (*_SOURCES, *REID_DATASETS)
_HALF = np.full(3, 0.5, np.float32)


def load(config: Any) -> Splits:
    """Load a data set and choose a run's images from it, all a function of `config.seed`.

    Args:
        config: Object with the fields `dataset` (one of `DATASETS`), `data_dir` ('' where not
            given), `image_size` (pixels; 0 keeps the data's own size, which means 64 for
            `image_folder` and 224 for ImageNet), `train_images` (0 for all),
            `validation_fraction`, `labelled_fraction`, `unlabelled` (`use` or `drop`) and `seed`.

    Returns:
        The training, validation and test images with the statistics that normalise them.

    Raises:
        ValueError: A field has no such value, or a file is not what it should be.
        FileNotFoundError: The data is missing; the message says where it was looked for.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(
        ...     dataset="digits", data_dir="", image_size=16, train_images=200,
        ...     validation_fraction=0.0, labelled_fraction=1.0, unlabelled="use", seed=0)
        >>> splits = load(config)
        >>> splits.train.images.shape, len(splits.test), splits.num_classes
        ((200, 16, 16, 1), 1000, 10)
    """
    if config.dataset in REID_DATASETS:
        return _load_reid(config)
    source = _source(config)
    train, validation = choose(source, config)
    train, test = _resized(train, config.image_size), _resized(source.test, config.image_size)
    mean, std = (_HALF, _HALF) if source.to_unit_range else pixel_statistics(train.images)
    return Splits(
        name=source.name,
        train=train,
        validation=None if validation is None else _resized(validation, config.image_size),
        test=test,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        mean=mean,
        std=std,
    )


def _load_reid(config: Any) -> Splits:
    """Splits of a re-identification data set; its pictures are 160 by 64 unless told otherwise."""
    from dml_tf.data.generated import pedestrians
    from dml_tf.data.sources import market1501

    data_dir, more = config.data_dir, {}
    if config.dataset == "pedestrians":
        data_dir = pedestrians.ensure(data_dir or GENERATED / "pedestrians")
        more = {"published": None, "name": "pedestrians (generated)"}
    size = config.image_size or (160, 64)
    reid = market1501.load_market1501(
        data_dir,
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        labelled_identities=config.labelled_identities,
        unlabelled=config.unlabelled,
        seed=config.seed,
        **more,
    )
    return Splits(
        name=reid.name,
        train=reid.train,
        validation=None,
        test=None,
        num_classes=len(reid.class_pids),
        class_names=tuple(f"{pid:04d}" for pid in reid.class_pids),
        mean=_HALF,  # the authors' code scales pixels to [-1, 1]
        std=_HALF,
        reid=reid,
    )


def pixel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, exact from the counts of the 256 levels.

    Args:
        images: Pixels, shape `(images, height, width, channels)`, uint8.

    Returns:
        Mean and standard deviation of the pixels scaled to [0, 1], each of shape `(channels,)`,
        float32. A channel of one level alone gets one level's width, 1/255, as its deviation.
    """
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256))
    for start in range(0, len(images), 1000):  # Counting widens its input to 64 bits.
        channels = images[start : start + 1000].reshape(-1, len(counts)).T
        counts += [np.bincount(channel, minlength=256) for channel in channels]
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    variance = (weights * (levels - mean[:, np.newaxis]) ** 2).sum(axis=1)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1 / 255).astype(np.float32)


def _source(config: Any) -> Source:
    if config.dataset not in _SOURCES:
        raise ValueError(f"--dataset={config.dataset}: give one of {', '.join(DATASETS)}.")
    module, function = _SOURCES[config.dataset].split(":")
    return getattr(importlib.import_module(f"dml_tf.data.{module}"), function)(config)


def _resized(split: Split, size: int) -> Split:
    return Split(resize(split.images, size), split.labels)
