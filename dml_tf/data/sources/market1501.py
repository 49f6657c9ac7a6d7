"""Market-1501 (Zheng et al., ICCV 2015) from the tree that its authors distribute, or its .zip.

Training images, queries and gallery are detected boxes, named by identity and camera; `gt_bbox`
holds the hand-drawn ones, from which multi-query takes the further images of each query.
"""

import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dml_tf.data.draws import Purpose, philox
from dml_tf.data.sources.market1501_tree import (
    FOLDER,
    FOLDERS,
    GALLERY,
    MULTI_QUERY,
    QUERY,
    TRAIN,
    AnyPath,
    ImageName,
    find_tree,
    list_pictures,
)
from dml_tf.data.splits import UNLABELLED, Split

PUBLISHED_IMAGES = {TRAIN: 12936, QUERY: 3368, GALLERY: 19732, MULTI_QUERY: 25259}
_DECODED_AT_ONCE = 4096


@dataclass(frozen=True)
class ReidImages:
    """Pictures of people.

    Attributes:
        images: Pixels, shape `(images, height, width, 3)`, uint8.
        pids: Identities, shape `(images,)`, int64; 0 is a distractor, -1 junk.
        camids: Cameras, shape `(images,)`, int64.
        names: File names.
    """

    images: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pids)


@dataclass(frozen=True)
class Market1501:
    """One run's share of the data set.

    Attributes:
        name: Its name as printed.
        train: Training images; labels 0..M-1, or -1 where the identity is not given.
        class_pids: Identity of each label, shape `(M,)`, int64.
        query: Queries.
        gallery: What is ranked, with distractors and junk.
        multi_query: Hand-drawn boxes of the queries' identities in the queries' cameras.
    """

    name: str
    train: Split
    class_pids: np.ndarray
    query: ReidImages
    gallery: ReidImages
    multi_query: ReidImages


def load_market1501(
    data_dir: str | Path,
    *,
    image_size: tuple[int, int] = (160, 64),
    labelled_identities: int = 0,
    unlabelled: str = "use",
    seed: int = 0,
    published: Mapping[str, int] | None = PUBLISHED_IMAGES,
    name: str = "Market-1501",
) -> Market1501:
    """Load Market-1501: decoded, resized, and with training identities relabelled to 0..M-1.

    Warns where file names do not fit, and where counts differ from the published ones.

    Args:
        data_dir: The folder with the four folders, or one that holds `Market-1501-v15.09.15` or
            `Market-1501-v15.09.15.zip`, or the path of that .zip, which is read as it is.
        image_size: Height and width in pixels; 160 by 64 is the authors' choice (released code).
        labelled_identities: How many training identities, drawn by seed, keep their labels
            (Sec. 4.10); 0 for all. A larger number keeps those of a smaller one.
        unlabelled: `use`, to give the other identities' images the label -1, or `drop`.
        seed: Seed of that draw.
        published: Expected number of pictures of each folder, None to expect nothing.
        name: Name as printed.

    Returns:
        All images in memory, in the order of their file names.

    Raises:
        FileNotFoundError: The data, or one of its four folders, is missing.
        ValueError: There are no training identities, a query's identity is not in the gallery, a
            picture or the .zip cannot be read, or an argument has no such value.
    """
    if unlabelled not in ("use", "drop"):
        raise ValueError(f"--unlabelled={unlabelled}: give use or drop.")
    if min(image_size) < 1:
        raise ValueError(f"image_size={image_size}: give a height and a width of at least 1 pixel.")
    root = find_tree(data_dir)
    listed = {folder: list_pictures(root / folder) for folder in FOLDERS}
    _compare_counts(root, listed, published)
    _check_identities(root, listed)
    paths, labels, class_pids = _training(listed[TRAIN], labelled_identities, unlabelled, seed)
    query = listed[QUERY]
    wanted = {(picture.pid, picture.camid) for _, picture in query}
    more = [(p, picture) for p, picture in listed[MULTI_QUERY] if picture[:2] in wanted]
    return Market1501(
        name=name,
        train=Split(decode(paths, image_size), labels),
        class_pids=class_pids,
        query=_decode_named(query, image_size),
        gallery=_decode_named(listed[GALLERY], image_size),
        multi_query=_decode_named(more, image_size),
    )


def decode(paths: Sequence[AnyPath], image_size: tuple[int, int]) -> np.ndarray:
    """Decodes and resizes pictures, many at a time, in `tf.data`.

    Args:
        paths: JPEG files, on disk or inside a .zip.
        image_size: Height and width in pixels.

    Returns:
        Pixels, shape `(images, height, width, 3)`, uint8.

    Raises:
        ValueError: A picture cannot be read; the message has its path.
    """
    import tensorflow as tf

    def picture(data):
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.cast(tf.round(tf.image.resize(pixels, image_size, antialias=True)), tf.uint8)

    images = np.empty((len(paths), *image_size, 3), np.uint8)
    for start in range(0, len(paths), _DECODED_AT_ONCE):  # bounds the memory of the packed files
        part = paths[start : start + _DECODED_AT_ONCE]
        files = tf.data.Dataset.from_tensor_slices([_read(path) for path in part])
        batch = files.map(picture, tf.data.AUTOTUNE, deterministic=True).batch(len(part))
        try:
            images[start : start + len(part)] = batch.get_single_element()
        except tf.errors.InvalidArgumentError:
            raise _unreadable(_first_broken(part)) from None
    return images


def _read(path: AnyPath) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path) from error


def _first_broken(paths: Sequence[AnyPath]) -> AnyPath:
    import tensorflow as tf

    for path in paths:
        try:
            tf.io.decode_jpeg(_read(path), channels=3)
        except tf.errors.InvalidArgumentError:
            return path
    raise AssertionError("A batch failed of which each picture can be decoded.")


def _unreadable(path: AnyPath) -> ValueError:
    return ValueError(f"{path} cannot be read as a picture: replace it from {FOLDER}.zip.")


def _decode_named(
    pictures: list[tuple[AnyPath, ImageName]], image_size: tuple[int, int]
) -> ReidImages:
    return ReidImages(
        images=decode([path for path, _ in pictures], image_size),
        pids=np.array([picture.pid for _, picture in pictures], np.int64),
        camids=np.array([picture.camid for _, picture in pictures], np.int64),
        names=tuple(path.name for path, _ in pictures),
    )


def _compare_counts(root: AnyPath, listed: Mapping[str, list], published: Mapping[str, int] | None):
    differing = [
        f"{folder} has {len(listed[folder]):,} pictures, not {count:,}"
        for folder, count in (published or {}).items()
        if len(listed[folder]) != count
    ]
    if differing:
        _warn(f"{root} is not Market-1501 as it was published: {'; '.join(differing)}.")


def _check_identities(root: AnyPath, listed: Mapping[str, list[tuple[AnyPath, ImageName]]]):
    people = {picture.pid for _, picture in listed[GALLERY] if picture.pid > 0}
    for path, picture in listed[QUERY]:
        if picture.pid not in people:
            raise ValueError(
                f"{path} asks for identity {picture.pid}, of which {root / GALLERY} has no "
                "picture: remove the query or add what is missing."
            )


def _training(
    pictures: list[tuple[AnyPath, ImageName]], labelled_identities: int, unlabelled: str, seed: int
) -> tuple[list[AnyPath], np.ndarray, np.ndarray]:
    """Paths, labels `(images,)` and the identity of each label `(labels,)` of the training set."""
    folder = pictures[0][0].parent
    paths = [path for path, picture in pictures if picture.pid > 0]
    if not paths:
        raise ValueError(f"{folder} has no picture of an identity from 0001 on: nothing to learn.")
    if len(paths) < len(pictures):
        _warn(f"{folder}: {len(pictures) - len(paths)} pictures of 0000 and -1 are left out.")
    pids = np.array([picture.pid for _, picture in pictures if picture.pid > 0], np.int64)
    class_pids = _labelled(np.unique(pids), labelled_identities, seed)
    known = np.isin(pids, class_pids)
    labels = np.where(known, np.searchsorted(class_pids, pids), UNLABELLED)
    kept = np.flatnonzero(known) if unlabelled == "drop" else np.arange(len(paths))
    return [paths[i] for i in kept], labels[kept], class_pids


def _labelled(pids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The identities, ascending, that keep their labels: the first `count` of the seed's order."""
    if not 0 <= count <= len(pids):
        raise ValueError(
            f"--labelled_identities={count}: the training set has {len(pids)} identities; give a "
            "number from 1 to that, or 0 for all."
        )
    order = np.argsort(philox(seed, Purpose.LABELLED).random_raw(len(pids)), kind="stable")
    return np.sort(pids[order[: count or None]])


def _warn(message: str):
    warnings.warn(message, stacklevel=3)
