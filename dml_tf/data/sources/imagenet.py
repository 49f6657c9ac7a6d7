"""ImageNet (ILSVRC 2012): class folders, or what TensorFlow Datasets makes of the official files.

`data_dir` is one of:

- a folder with `train/<wnid>/*.JPEG` and `validation/<wnid>/*.JPEG` (or `val/`), or a folder whose
  sub-folder `imagenet/` has them;
- a folder of TensorFlow Datasets in which `imagenet2012` is prepared ('' for its default folder);
- a folder with `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, in itself, in
  `imagenet/` or in `downloads/manual/`; TensorFlow Datasets prepares `imagenet2012` there once.

1.28 million pictures do not fit into memory, so they stay on disk: see `pictures`. Networks are
tested on the 50,000 validation images, as usual and in Sec. 4.1.
"""

import dataclasses
from pathlib import Path
from typing import Any

from dml_tf.data.sources.image_folder import find_classes, list_pictures
from dml_tf.data.splits import Source, Split
from dml_tf.data.stored import Pictures

CLASSES = 1000
TRAIN_IMAGES = 1_281_167
DEFAULT_SIZE = 224
TEST_FOLDERS = ("validation", "val")
FOLDER = "imagenet"  # its usual name beside other data sets


def load_imagenet(config: Any) -> Source:
    """Find ImageNet's pictures; no picture is decoded yet."""
    size = config.image_size or DEFAULT_SIZE
    if root := _root(config.data_dir):
        return _named(load_folders(root, "ImageNet", size))
    from dml_tf.data.sources import imagenet_tfds

    train, test, class_names = imagenet_tfds.load(config.data_dir, size)
    return _named(Source("ImageNet", train, test, class_names, to_unit_range=True))


def imagenet_files(data_dir: str) -> dict[str, list[Path]]:
    """The pictures of each part; none if TensorFlow Datasets has prepared them."""
    root = _root(data_dir)
    if not root:
        return {}
    class_names = find_classes(root / "train")
    parts = ["train", *[part for part in TEST_FOLDERS if (root / part).is_dir()][:1]]
    return {part: list_pictures(root / part, class_names)[0] for part in parts}


def _root(data_dir: str) -> Path | None:
    """The folder with the pictures; None if TensorFlow Datasets has to find them."""
    given = Path(data_dir).expanduser()
    roots = [root for root in (given / FOLDER, given) if (root / "train").is_dir()]
    return roots[0] if data_dir and roots else None


def load_folders(root: Path, name: str, size: int) -> Source:
    """Find pictures in class folders, to be decoded to `size` pixels; classes are in name order."""
    parts = [root / part for part in TEST_FOLDERS if (root / part).is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"{root} has train/ but neither {'/ nor '.join(TEST_FOLDERS)}/: put ImageNet's "
            f"validation pictures into {root / TEST_FOLDERS[0]}/CLASS/, one folder per class."
        )
    class_names = find_classes(root / "train")
    train, test = (_read(part, class_names, size) for part in (root / "train", parts[0]))
    return Source(name, train, test, class_names, to_unit_range=True)


def _read(folder: Path, class_names: tuple[str, ...], size: int) -> Split:
    paths, labels = list_pictures(folder, class_names)
    return Split(Pictures.of_files(paths, size), labels)


def _named(source: Source) -> Source:
    """The data set; if it is only a part of ImageNet, its name says so."""
    images, classes = len(source.train), len(source.class_names)
    if (images, classes) == (TRAIN_IMAGES, CLASSES):
        return source
    part = f"{source.name} (a part: {images:,} training images of {classes:,} classes)"
    return dataclasses.replace(source, name=part)
