"""Your own pictures, in one sub-folder per class.

They are `data_dir/train/<class>/*` and `data_dir/test/<class>/*`, and `data_dir/validation/` if
it exists. They are decoded to RGB in the order of their sorted paths, and resized to squares.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dml_tf.data.pictures import resize
from dml_tf.data.splits import Source, Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
DEFAULT_SIZE = 64


def load_image_folder(config: Any) -> Source:
    """Load the pictures into memory; the data set has the name of its folder."""
    root, size = _root(config.data_dir), config.image_size or DEFAULT_SIZE
    class_names = find_classes(root / "train")
    train = _read(root / "train", class_names, size)
    test = _read(root / "test", class_names, size)
    own = root / "validation"
    validation = _read(own, class_names, size) if own.is_dir() else None
    return Source(f"{root.resolve().name} (image folder)", train, test, class_names, validation)


def image_folder_files(data_dir: str) -> dict[str, list[Path]]:
    """The pictures of each part."""
    root = _root(data_dir)
    class_names = find_classes(root / "train")
    own = ["validation"] if (root / "validation").is_dir() else []
    parts = ("train", "test", *own)
    return {part: list_pictures(root / part, class_names)[0] for part in parts}


def find_classes(folder: Path) -> tuple[str, ...]:
    """Sorted names of the class folders, two or more."""
    names = _folders(folder)
    if len(names) < 2:
        raise ValueError(
            f"{folder} has a single class, {names[0]}; put the pictures of each class into a "
            "folder of their own."
        )
    return names


def list_pictures(folder: Path, class_names: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    """Paths, class by class and sorted within each, and labels, shape `(pictures,)`, int64."""
    different = set(_folders(folder)) ^ set(class_names)
    if different:
        raise ValueError(
            f"{folder} and {folder.parent / 'train'} differ in the classes "
            f"{', '.join(sorted(different))}; both need the same class folders."
        )
    paths, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not found:
            raise FileNotFoundError(
                f"{folder / name} has no pictures ({', '.join(SUFFIXES)}); add some or remove it."
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, np.int64)


def _root(data_dir: str) -> Path:
    if not data_dir:
        raise ValueError(
            "--dataset=image_folder needs --data_dir=FOLDER, with FOLDER/train/CLASS/*.jpg and "
            "FOLDER/test/CLASS/*.jpg."
        )
    return Path(data_dir).expanduser()


def _folders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: put pictures into {folder}/CLASS/.")
    found = (path.name for path in folder.iterdir() if path.is_dir())
    names = tuple(sorted(name for name in found if not name.startswith(".")))
    if not names:
        raise FileNotFoundError(
            f"{folder} has no class folders; put pictures into {folder}/CLASS/, a folder per class."
        )
    return names


def _read(folder: Path, class_names: tuple[str, ...], size: int) -> Split:
    paths, labels = list_pictures(folder, class_names)
    return Split(np.stack([_decode(path, size) for path in paths]), labels)


def _decode(path: Path, size: int) -> np.ndarray:
    import tensorflow as tf

    try:
        picture = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"{path} cannot be read as a picture; replace or remove it.") from error
    return resize(picture.numpy()[np.newaxis], size)[0]
