"""From a config to the images of one run.

To add a data set, write a function from a config to a `splits.Source` in `sources/` or
`generated/`.
Give it a name in `_SOURCES` below; `--dataset=NAME` then finds it. Its flags go into
`flags/NAME.flags`. Import what is slow to import, or optional, inside the function.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dml_tf.data import identity
from dml_tf.data.generated import imagenet_mini, pedestrians
from dml_tf.data.generated.shapes100 import load_shapes100
from dml_tf.data.pictures import resize
from dml_tf.data.sources import (
    cifar,
    fashion_mnist,
    image_folder,
    imagenet,
    imagenet_tfds,
    market1501_tree,
)
from dml_tf.data.sources.digits import load_digits
from dml_tf.data.sources.market1501 import load_market1501
from dml_tf.data.sources.tfds import prepared_version
from dml_tf.data.splits import Market1501, Source, Split, Splits, choose
from dml_tf.data.stored import WholePictures, blocks
from dml_tf.home import HOME

# Published numbers of training images; other data sets have --train_images or --steps.
TRAIN_IMAGES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "fashion_mnist": 60_000,
    "imagenet": imagenet.TRAIN_IMAGES,
    "imagenet_mini": imagenet_mini.TRAIN_IMAGES,
}
GENERATED_DATASETS = ("shapes100", "imagenet_mini", "pedestrians")
_FIELDS = (  # of a config; they decide which images it has
    "dataset", "data_dir", "image_size", "stored_size", "seed", "train_images",
    "validation_fraction", "labelled_fraction", "labelled_identities", "unlabelled",
)  # fmt: skip
GENERATED = HOME / "data"  # where generated files are kept if --data_dir is not given
_HALF = np.full(3, 0.5, np.float32)  # scales pixels to [-1, 1]


def load(config: Any) -> Splits:
    """Load a data set and choose a run's images from it, a function of `config.seed`.

    Args:
        config: Object with the fields `dataset` (one of `DATASETS`), `data_dir` (may be ''),
            `image_size` (pixels; 0 keeps the data's own size, which is 64 for `image_folder`,
            224 for ImageNet and 160 by 64 for re-identification), `seed` and `unlabelled` (`use`
            or `drop`). Classification also needs `train_images` (0 for all),
            `validation_fraction` and `labelled_fraction`; re-identification needs
            `labelled_identities` (0 for all) and `stored_size` (pixels in memory; 0 for
            `image_size`).

    Returns:
        The training, validation and test images with the statistics that normalise them. Of data
        that are made here, the same arrays if the same fields are given twice in a row: do not
        write into them.

    Raises:
        ValueError: A field has no such value, or a file is damaged or refused.
        FileNotFoundError: The data is missing; the message says where it was looked for.
        FileExistsError: The folder for generated data contains something else.

    Examples:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(
        ...     dataset="digits", data_dir="", image_size=16, train_images=200,
        ...     validation_fraction=0.0, labelled_fraction=1.0, unlabelled="use", seed=0)
        >>> splits = load(config)
        >>> splits.train.images.shape, len(splits.test), splits.num_classes
        ((200, 16, 16, 1), 1000, 10)
    """
    if config.dataset not in DATASETS:
        raise ValueError(f"--dataset={config.dataset}: give one of {', '.join(DATASETS)}.")
    if config.dataset in _KEPT and not config.data_dir:  # a user's files may change meanwhile
        return _made(**{name: getattr(config, name) for name in _FIELDS if hasattr(config, name)})
    _made.cache_clear()
    return _load(config)


@functools.lru_cache(maxsize=1)  # runs in a row often have the same images
def _made(**fields) -> Splits:
    return _load(SimpleNamespace(**fields))


def _load(config: Any) -> Splits:
    found = identify(config)
    if config.dataset in _SOURCES:
        splits = _chosen(_SOURCES[config.dataset](config), config)
    else:
        splits = _all_of(_REID[config.dataset](config))
    if "parts" not in found:
        found = identify(config)  # by now it is generated or prepared
    return dataclasses.replace(splits, identity=found)


def identify(config: Any) -> dict:
    """Which data a config asks for; no picture is decoded.

    Args:
        config: Object with the fields `dataset` and `data_dir`.

    Returns:
        `parts`, as `identity.of_files` returns it, for files that a user can change; `version`
        for what is generated, or given by a library.

    Raises:
        FileNotFoundError: `data_dir` is missing or empty, or has not the data.
        ValueError: It has another layout.

    Examples:
        >>> from types import SimpleNamespace
        >>> identify(SimpleNamespace(dataset="digits", data_dir=""))
        {'version': 'digits 1'}
    """
    dataset, data_dir = config.dataset, config.data_dir
    is_made_here = dataset in _VERSIONS
    if data_dir and not is_made_here:
        _refuse_gone(dataset, Path(data_dir).expanduser())
    # What is generated in our own folder is not for editing.
    files = {} if is_made_here and not data_dir else _FILES.get(dataset, _none)(data_dir)
    found = {"parts": identity.of_files(files)} if files else {}
    if is_made_here:
        found["version"] = f"{dataset} {_VERSIONS[dataset]}"
    elif not files:
        found["version"] = prepared_version(_BUILDERS.get(dataset, dataset), data_dir)
    return found


def _refuse_gone(dataset: str, place: Path):
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        state = "is empty" if place.exists() else "does not exist"
        raise FileNotFoundError(f"--data_dir: {place} {state}. {_INSTRUCTIONS.get(dataset, '')}")


def _none(data_dir: str) -> dict:
    return {}


def _imagenet_mini(config: Any) -> Source:
    folder = imagenet_mini.ensure(config.data_dir or GENERATED / "imagenet_mini")
    size = config.image_size or imagenet.DEFAULT_SIZE
    return imagenet.load_folders(folder, imagenet_mini.NAME, size)


def _market1501(config: Any) -> Market1501:
    return load_market1501(config.data_dir, **_reid_options(config))


def _pedestrians(config: Any) -> Market1501:
    folder = pedestrians.ensure(config.data_dir or GENERATED / "pedestrians")
    options = _reid_options(config)
    return load_market1501(folder, published=None, name=pedestrians.NAME, **options)


_SOURCES: dict[str, Callable[[Any], Source]] = {
    "cifar10": cifar.load_cifar10,
    "cifar100": cifar.load_cifar100,
    "fashion_mnist": fashion_mnist.load_fashion_mnist,
    "image_folder": image_folder.load_image_folder,
    "digits": load_digits,
    "shapes100": load_shapes100,
    "imagenet": imagenet.load_imagenet,
    "imagenet_mini": _imagenet_mini,
}
_REID: dict[str, Callable[[Any], Market1501]] = {
    "market1501": _market1501,
    "pedestrians": _pedestrians,
}
# Of what we make ourselves, or a library brings: a number to raise when its pictures change.
_VERSIONS = {"digits": 1, "shapes100": 1, "imagenet_mini": 1, "pedestrians": 1}
WITHOUT_FILES = tuple(_VERSIONS)  # data sets that need no --data_dir and no download
_BUILDERS = {"imagenet": "imagenet2012"}
_FILES: dict[str, Callable[[str], dict[str, list[Path]]]] = {
    "cifar10": cifar.cifar10_files,
    "cifar100": cifar.cifar100_files,
    "fashion_mnist": fashion_mnist.fashion_mnist_files,
    "image_folder": image_folder.image_folder_files,
    "imagenet": imagenet.imagenet_files,
    "imagenet_mini": imagenet.imagenet_files,
    "market1501": market1501_tree.tree_files,
    "pedestrians": market1501_tree.tree_files,
}
_INSTRUCTIONS = {  # how to get what is not made here
    "cifar10": cifar.CIFAR10_INSTRUCTIONS,
    "cifar100": cifar.CIFAR100_INSTRUCTIONS,
    "fashion_mnist": fashion_mnist.INSTRUCTIONS,
    "image_folder": image_folder.INSTRUCTIONS,
    "imagenet": imagenet_tfds.INSTRUCTIONS,
    "market1501": market1501_tree.INSTRUCTIONS,
}
DATASETS = (*_SOURCES, *_REID)
REID_DATASETS = tuple(_REID)
STREAMED_DATASETS = ("imagenet", "imagenet_mini")  # their pictures stay on disk
_KEPT = set(WITHOUT_FILES) - set(STREAMED_DATASETS)  # until others are asked for


def _chosen(source: Source, config: Any) -> Splits:
    """The images that a run chooses from a data set, resized, with the statistics of its pixels."""
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


def _resized(split: Split, size: int) -> Split:
    return Split(resize(split.images, size), split.labels)


def _reid_options(config: Any) -> dict[str, Any]:
    size = config.image_size or config.stored_size or (160, 64)
    return {
        "image_size": _height_and_width(size),
        "stored_size": _height_and_width(config.stored_size or size),
        "labelled_identities": config.labelled_identities,
        "unlabelled": config.unlabelled,
        "seed": config.seed,
    }


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _all_of(reid: Market1501) -> Splits:
    """The images of a re-identification data set; pixels are scaled as in the authors' code."""
    return Splits(
        name=reid.name,
        train=reid.train,
        validation=None,
        test=None,
        num_classes=len(reid.class_pids),
        class_names=tuple(f"{pid:04d}" for pid in reid.class_pids),
        mean=_HALF,
        std=_HALF,
        reid=reid,
    )


def pixel_statistics(images: np.ndarray | WholePictures) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (1/255 or more) of each channel of pixels in [0, 1], exact, float32."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256))
    for block in blocks(images):  # counting widens its input to 64 bits
        channels = block.reshape(-1, len(counts)).T
        counts += [np.bincount(channel, minlength=256) for channel in channels]
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    variance = (weights * (levels - mean[:, np.newaxis]) ** 2).sum(axis=1)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1 / 255).astype(np.float32)
