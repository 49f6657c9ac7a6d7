"""ImageNet (ILSVRC 2012): class folders, or what TensorFlow Datasets makes of the official files.

1.28 million pictures do not fit into memory, so they stay on disk: see `pictures`. As everywhere,
and in Sec. 4.1, the 50,000 validation images are what networks are tested on.
"""

import dataclasses
from pathlib import Path
from typing import Any

from dml_tf.data.pictures import Pictures
from dml_tf.data.sources.image_folder import find_classes, list_pictures
from dml_tf.data.splits import Source, Split

CLASSES = 1000
TRAIN_IMAGES = 1_281_167
DEFAULT_SIZE = 224
TEST_FOLDERS = ("validation", "val")


def load_imagenet(config: Any) -> Source:
    """Find ImageNet's pictures; no picture is decoded yet.

    Args:
        config: Object with `image_size` (pixels; 0 for 224) and `data_dir`, which is one of:
            a folder with `train/<wnid>/*.JPEG` and `validation/<wnid>/*.JPEG` or
            `val/<wnid>/*.JPEG`; a folder of TensorFlow Datasets with `imagenet2012` prepared in
            it; or one with `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, in itself or
            in `downloads/manual/`, from which TensorFlow Datasets prepares it there once. '' for
            TensorFlow Datasets' default folder.

    Returns:
        The data set. Its name says so where it is only a part of ImageNet.

    Raises:
        FileNotFoundError: There is none of these; the message says where they were looked for.
        ValueError: The folders' classes differ.
    """
    root, size = Path(config.data_dir).expanduser(), config.image_size or DEFAULT_SIZE
    if config.data_dir and (root / "train").is_dir():
        return _named(load_folders(root, "ImageNet", size))
    from dml_tf.data.sources import imagenet_tfds

    train, test, class_names = imagenet_tfds.load(config.data_dir, size)
    return _named(Source("ImageNet", train, test, class_names, to_unit_range=True))


def load_imagenet_mini(config: Any) -> Source:
    """Find the generated pictures in ImageNet's format, which are made on first use.

    Args:
        config: Object with `image_size` (pixels; 0 for 224) and `data_dir`: their folder, made
            where it is missing; '' for `data/imagenet_mini` beside the package.

    Returns:
        The data set.

    Raises:
        FileExistsError: The folder has something else in it.
    """
    from dml_tf.data.generated import imagenet_mini
    from dml_tf.data.load import GENERATED

    root = imagenet_mini.ensure(config.data_dir or GENERATED / "imagenet_mini")
    return load_folders(root, imagenet_mini.NAME, config.image_size or DEFAULT_SIZE)


def load_folders(root: Path, name: str, size: int) -> Source:
    """Find pictures in ImageNet's class folders.

    Args:
        root: Folder with `train/` and `validation/` or `val/`, each of one folder a class.
        name: The data set's name as printed.
        size: Side of the decoded pictures, in pixels.

    Returns:
        The data set; classes are numbered in the order of their names.

    Raises:
        FileNotFoundError: A folder is missing or empty.
        ValueError: The classes of the two parts differ.
    """
    parts = [root / part for part in TEST_FOLDERS if (root / part).is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"{root} has train/ but neither {'/ nor '.join(TEST_FOLDERS)}/: put ImageNet's "
            f"validation pictures into {root / TEST_FOLDERS[0]}/CLASS/, one folder a class."
        )
    class_names = find_classes(root / "train")
    train, test = (
        Split(Pictures.of_files(paths, size), labels)
        for paths, labels in (
            list_pictures(part, class_names) for part in (root / "train", parts[0])
        )
    )
    return Source(name, train, test, class_names, to_unit_range=True)


def _named(source: Source) -> Source:
    """The data set, its name with the truth about parts."""
    images, classes = len(source.train), len(source.class_names)
    if (images, classes) == (TRAIN_IMAGES, CLASSES):
        return source
    part = f"{source.name} (a part: {images:,} training images of {classes:,} classes)"
    return dataclasses.replace(source, name=part)
