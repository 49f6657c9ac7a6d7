"""Your own pictures, in one sub-folder per class.

They are `data_dir/train/<class>/*` and `data_dir/test/<class>/*`, and `data_dir/validation/` if
it exists; or `data_dir/<class>/*`, which is then split by the pictures' content. They are decoded
to RGB in the order of their sorted paths, and resized to squares. Sets whose pixels need more
memory than `pictures_gb` stay on disk; each of their pictures is decoded when it is needed.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dml_tf.data.pictures import Notes, counted, decode_square, readable_suffixes
from dml_tf.data.splits import Source, Split
from dml_tf.data.stored import WholePictures
from dml_tf.errors import DataWarning

DEFAULT_SIZE = 64
# Of a folder without train/ and test/: share of each class, at least one picture of each.
SHARES = {"test": 0.2, "validation": 0.1}
_LISTED = 20  # files that a message names

INSTRUCTIONS = (
    "--dataset=image_folder needs --data_dir=FOLDER, with FOLDER/train/CLASS/*.jpg and "
    "FOLDER/test/CLASS/*.jpg, or with FOLDER/CLASS/*.jpg."
)

Listing = tuple[list[Path], np.ndarray]  # paths, and their labels


def load_image_folder(config: Any) -> Source:
    """Load the pictures, or only look at them; the data set has the name of its folder."""
    root, size = _root(config.data_dir), config.image_size or DEFAULT_SIZE
    class_names, listings = _find(root)
    count = sum(len(paths) for paths, _ in listings.values())
    splits = _read(listings, size, in_memory=pixel_bytes(config, count) > 0)
    return Source(f"{root.resolve().name} (image folder)", class_names=class_names, **splits)


def pixel_bytes(config: Any, count: int) -> int:
    """Bytes of memory for the pixels of so many pictures; 0 if these stay on disk."""
    size = config.image_size or DEFAULT_SIZE
    needed = 3 * size * size * count
    return needed if needed <= getattr(config, "pictures_gb", math.inf) * 1e9 else 0


def image_folder_files(data_dir: str) -> dict[str, list[Path]]:
    """The pictures of each part."""
    return {part: paths for part, (paths, _) in _find(_root(data_dir))[1].items()}


def find_classes(folder: Path) -> tuple[str, ...]:
    """Sorted names of the class folders, two or more."""
    names = _folders(folder)
    if len(names) < 2:
        raise ValueError(
            f"{folder} has a single class, {names[0]}; put the pictures of each class into a "
            "folder of their own."
        )
    return names


def list_pictures(folder: Path, class_names: tuple[str, ...]) -> Listing:
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
        chosen = set(pictures)
        if not pictures:
            raise FileNotFoundError(
                f"{folder / name} has no pictures of a format that Pillow reads; add some or "
                "remove it."
            )
        others += [f"{name}/{path.name}" for path in found if path not in chosen]
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
    is_named = path.suffix.lower() in readable_suffixes() and not path.name.startswith(".")
    return is_named and path.is_file()


def _root(data_dir: str) -> Path:
    if not data_dir:
        raise ValueError(INSTRUCTIONS)
    return Path(data_dir).expanduser()


def _find(root: Path) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """The classes and the pictures of each part."""
    if not (root / "train").is_dir() and not (root / "test").is_dir():
        class_names = find_classes(root)
        return class_names, dict(_split(*list_pictures(root, class_names)))
    class_names = find_classes(root / "train")
    own = ["validation"] if (root / "validation").is_dir() else []
    parts = ("train", "test", *own)
    return class_names, {part: list_pictures(root / part, class_names) for part in parts}


def _split(paths: list[Path], labels: np.ndarray) -> Iterator[tuple[str, Listing]]:
    """Splits the pictures of each class by a hash of their bytes: copies in a class share a part.

    The parts are the same for every seed, and stay nearly the same when pictures are added.
    """
    content = np.array([hashlib.sha256(_content(path)).hexdigest() for path in paths])
    parts = np.full(len(paths), "train", object)
    for label in np.unique(labels):
        different = np.unique(content[labels == label])  # sorted, so in random order
        if len(different) <= len(SHARES):
            folder = paths[int(np.argmax(labels == label))].parent
            raise ValueError(
                f"{folder} has {len(different)} different pictures, which are too few to split "
                "into training, validation and test; add some."
            )
        first = 0
        for part, share in SHARES.items():
            last = first + max(1, round(share * len(different)))
            parts[(labels == label) & np.isin(content, different[first:last])] = part
            first = last
    for part in ("train", *SHARES):
        index = np.flatnonzero(parts == part)
        yield part, ([paths[i] for i in index], labels[index])


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


def _read(listings: dict[str, Listing], size: int, in_memory: bool) -> dict[str, Split]:
    """Decodes all parts once; a `ValueError` names every picture that cannot be read."""
    splits, unreadable, seen = {}, [], {}
    for part, (paths, labels) in listings.items():
        images, notes = WholePictures.of_files(paths, size), Notes(str(paths[0].parents[1]))
        if in_memory:
            images = np.empty(images.shape, np.uint8)
        for i, (path, label) in enumerate(zip(paths, labels.tolist(), strict=True)):
            try:
                data = _content(path)
                notes.add(data, str(path))
                pixels = decode_square(data, str(path), size)
                if in_memory:
                    images[i] = pixels
            except ValueError as error:
                unreadable.append(str(error))
                continue
            here = (part, label)
            first = seen.setdefault(hashlib.sha256(data).digest(), (here, path))
            if first[1] != path:
                notes.note(_copy(first[0], here), f"{path.parent.name}/{path.name}")
        notes.warn()
        splits[part] = Split(images, labels)
    if unreadable:
        more = f"\n  and {len(unreadable) - _LISTED} more" if len(unreadable) > _LISTED else ""
        raise ValueError("\n  ".join(unreadable[:_LISTED]) + more)
    return splits


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
