"""Your own pictures, in one sub-folder per class.

They are `data_dir/train/<class>/*` and `data_dir/test/<class>/*`, and `data_dir/validation/` if
it exists. They are decoded to RGB in the order of their sorted paths, and resized to squares.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dml_tf.data.pictures import Notes, counted, resize
from dml_tf.data.splits import Source, Split
from dml_tf.errors import DataWarning

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
DEFAULT_SIZE = 64


def load_image_folder(config: Any) -> Source:
    """Load the pictures into memory; the data set has the name of its folder."""
    root, size = _root(config.data_dir), config.image_size or DEFAULT_SIZE
    class_names = find_classes(root / "train")
    seen: dict = {}
    train = _read(root / "train", class_names, size, seen)
    own = root / "validation"
    validation = _read(own, class_names, size, seen) if own.is_dir() else None
    test = _read(root / "test", class_names, size, seen)
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
            f"{', '.join(sorted(different))}; both need the same class folders, with names of the "
            "same letters and case."
        )
    paths, labels, others = [], [], []
    for label, name in enumerate(class_names):
        found = sorted((folder / name).iterdir())
        pictures = [path for path in found if _is_picture(path)]
        if not pictures:
            raise FileNotFoundError(
                f"{folder / name} has no pictures ({', '.join(SUFFIXES)}); add some or remove it."
            )
        others += [f"{name}/{path.name}" for path in found if path not in set(pictures)]
        paths += pictures
        labels += [label] * len(pictures)
    if others:
        warnings.warn(
            f"{folder}: {counted(others)} skipped, no pictures by their names, or no files.",
            DataWarning,
            stacklevel=2,
        )
    return paths, np.array(labels, np.int64)


def _is_picture(path: Path) -> bool:
    """By its name, and a file: not a folder, a device, or a link in a circle or to nothing."""
    is_named = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    return is_named and path.is_file()


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
    for name in names:
        if not name.isprintable():
            raise ValueError(
                f"{folder} has a class folder {name!r}, whose name is not UTF-8 or not printable: "
                "rename it."
            )
    return names


def _read(folder: Path, class_names: tuple[str, ...], size: int, seen: dict) -> Split:
    """The pictures of one part; `seen` maps a picture's hash to the part and class it was in."""
    paths, labels = list_pictures(folder, class_names)
    images, notes = np.empty((len(paths), size, size, 3), np.uint8), Notes(str(folder))
    for i, (path, label) in enumerate(zip(paths, labels.tolist(), strict=True)):
        data = _content(path)
        notes.add(data, str(path))
        images[i] = _decode(data, path, size)
        here = (folder.name, label)
        first = seen.setdefault(hashlib.sha256(data).digest(), (here, path))
        if first[1] != path:
            notes.note(_copy(first[0], here), f"{path.parent.name}/{path.name}")
    notes.warn()
    return Split(images, labels)


def _copy(first: tuple[str, int], here: tuple[str, int]) -> str:
    if first[0] != here[0]:
        return f"with the same content as files of {first[0]}/: they are no fair test"
    return f"with the same content as files of {'this' if first == here else 'another'} class"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); replace or remove it."
        ) from error


def _decode(data: bytes, path: Path, size: int) -> np.ndarray:
    import tensorflow as tf

    try:
        picture = tf.io.decode_image(data, channels=3, expand_animations=False)
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a picture; replace or remove it.") from error
    return resize(picture.numpy()[np.newaxis], size)[0]
