"""Market-1501 (Zheng et al., ICCV 2015): the authors' folders, their .zip, or TensorFlow Datasets.

Training images, queries and gallery are detected boxes, named by identity and camera. `gt_bbox`
contains hand-drawn boxes; multi-query takes the further images of each query from it. The authors'
code stores pictures of 160 by 64 and resizes them again to 224 by 224, as its networks take them:
here, too, memory holds the smaller ones. A number of training identities (Sec. 4.10), drawn by
seed, may keep their labels; a larger number keeps those of a smaller one.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dml_tf.data.draws import Purpose, philox
from dml_tf.data.pictures import Notes, counted
from dml_tf.data.sources.market1501_tree import (
    FOLDER,
    FOLDERS,
    GALLERY,
    MULTI_QUERY,
    QUERY,
    REMEDY,
    TRAIN,
    Folder,
    ImageName,
    PictureFile,
    find_tree,
    list_pictures,
)
from dml_tf.data.splits import UNLABELLED, Market1501, ReidImages, Split
from dml_tf.data.stored import StoredImages
from dml_tf.errors import DataWarning

PUBLISHED_IMAGES = {TRAIN: 12936, QUERY: 3368, GALLERY: 19732, MULTI_QUERY: 25259}
_DECODED_AT_ONCE = 4096


def load_market1501(
    data_dir: str | Path,
    *,
    image_size: tuple[int, int] = (160, 64),
    stored_size: tuple[int, int] | None = None,
    labelled_identities: int = 0,
    unlabelled: str = "use",
    seed: int = 0,
    published: Mapping[str, int] | None = PUBLISHED_IMAGES,
    name: str = "Market-1501",
) -> Market1501:
    """Load all images into memory, in the order of their names, identities relabelled 0..M-1.

    They are stored at `stored_size`, by default at the size that they are to have.
    """
    if unlabelled not in ("use", "drop"):
        raise ValueError(f"--unlabelled={unlabelled}: give use or drop.")
    if min(image_size) < 1:
        raise ValueError(f"image_size={image_size}: give a height and a width of at least 1 pixel.")
    sizes = stored_size or image_size, image_size
    folders = _find(data_dir)
    _compare_counts(folders, published)
    _check_identities(folders)
    files, labels, class_pids = _training(folders[TRAIN], labelled_identities, unlabelled, seed)
    query = folders[QUERY].pictures
    asked = {(picture.pid, picture.camid) for _, picture in query}
    more = [
        (file, picture)
        for file, picture in folders[MULTI_QUERY].pictures
        if (picture.pid, picture.camid) in asked
    ]
    if not more:
        raise ValueError(
            f"{folders[MULTI_QUERY].place} has no picture of a query's identity in the query's "
            f"camera, so multi-query cannot be measured: get {MULTI_QUERY} from {FOLDER}.zip."
        )
    return Market1501(
        name=name,
        train=Split(_decode_stored(files, *sizes), labels),
        class_pids=class_pids,
        query=_decode_named(query, *sizes),
        gallery=_decode_named(folders[GALLERY].pictures, *sizes),
        multi_query=_decode_named(more, *sizes),
    )


def _find(data_dir: str | Path) -> dict[str, Folder]:
    """The four folders by name; the official files come first, TensorFlow Datasets second."""
    try:
        root = find_tree(data_dir)
    except FileNotFoundError as no_tree:
        from dml_tf.data.sources.market1501_tfds import find_prepared

        try:
            return find_prepared(str(data_dir))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{no_tree} ({error}.)") from None
    return {folder: list_pictures(root / folder) for folder in FOLDERS}


def _compare_counts(folders: Mapping[str, Folder], published: Mapping[str, int] | None):
    differing = [
        f"{name} has {len(folders[name].pictures):,} pictures, not {count:,}"
        for name, count in (published or {}).items()
        if len(folders[name].pictures) != count
    ]
    if differing:
        place = Path(folders[TRAIN].place).parent
        _warn(f"{place} is not Market-1501 as it was published: {'; '.join(differing)}.")


def _check_identities(folders: Mapping[str, Folder]):
    people = {picture.pid for _, picture in folders[GALLERY].pictures if picture.pid > 0}
    for file, picture in folders[QUERY].pictures:
        if picture.pid not in people:
            raise ValueError(
                f"{file} asks for identity {picture.pid}, of which {folders[GALLERY].place} has no "
                "picture: remove the query or add what is missing."
            )
    seen = {(picture.pid, picture.camid) for _, picture in folders[GALLERY].pictures}
    cameras = Counter(pid for pid, _ in seen)
    unmatched = [
        file.name
        for file, picture in folders[QUERY].pictures
        if cameras[picture.pid] == ((picture.pid, picture.camid) in seen)
    ]
    if len(unmatched) == len(folders[QUERY].pictures):
        raise ValueError(
            f"No query of {folders[QUERY].place} has a picture of its identity by another camera "
            f"in {folders[GALLERY].place}: nothing can be measured. Add such pictures."
        )
    if unmatched:
        _warn(
            f"{folders[QUERY].place}: {counted(unmatched)} not measured, for lack of a picture of "
            f"the same identity by another camera in {GALLERY}."
        )


def _training(
    folder: Folder, labelled_identities: int, unlabelled: str, seed: int
) -> tuple[list[PictureFile], np.ndarray, np.ndarray]:
    """Files, labels `(images,)` and the identity of each label `(labels,)` of the training set."""
    people = [(file, picture.pid) for file, picture in folder.pictures if picture.pid > 0]
    if not people:
        raise ValueError(
            f"{folder.place} has no picture of an identity from 0001 on: nothing to learn."
        )
    if len(people) < len(folder.pictures):
        left_out = len(folder.pictures) - len(people)
        _warn(f"{folder.place}: {left_out} pictures of 0000 and -1 are left out.")
    pids = np.array([pid for _, pid in people], np.int64)
    class_pids = _labelled(np.unique(pids), labelled_identities, seed)
    known = np.isin(pids, class_pids)
    labels = np.where(known, np.searchsorted(class_pids, pids), UNLABELLED)
    kept = np.flatnonzero(known) if unlabelled == "drop" else np.arange(len(people))
    return [people[i][0] for i in kept], labels[kept], class_pids


def _labelled(pids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The identities, ascending, that keep their labels: the first `count` of the seed's order."""
    if not 0 <= count <= len(pids):
        raise ValueError(
            f"--labelled_identities={count}: the training set has {len(pids)} identities; give a "
            f"number from 1 to {len(pids)}, or 0 for all."
        )
    order = np.argsort(philox(seed, Purpose.LABELLED).random_raw(len(pids)), kind="stable")
    return np.sort(pids[order[: count or None]])


def _decode_named(
    pictures: list[tuple[PictureFile, ImageName]],
    stored_size: tuple[int, int],
    image_size: tuple[int, int],
) -> ReidImages:
    return ReidImages(
        images=_decode_stored([file for file, _ in pictures], stored_size, image_size),
        pids=np.array([picture.pid for _, picture in pictures], np.int64),
        camids=np.array([picture.camid for _, picture in pictures], np.int64),
        names=tuple(file.name for file, _ in pictures),
    )


def _decode_stored(
    files: Sequence[PictureFile], stored_size: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray | StoredImages:
    pixels = decode(files, stored_size)
    return pixels if stored_size == image_size else StoredImages(pixels, image_size)


def decode(files: Sequence[PictureFile], image_size: tuple[int, int]) -> np.ndarray:
    """Pixels of JPEG files, resized to `(images, height, width, 3)`, uint8; many at a time."""
    import tensorflow as tf

    def picture(data):
        pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.cast(tf.round(tf.image.resize(pixels, image_size, antialias=True)), tf.uint8)

    images, notes = np.empty((len(files), *image_size, 3), np.uint8), Notes("Market-1501")
    for start in range(0, len(files), _DECODED_AT_ONCE):  # bounds the memory of encoded pictures
        part = files[start : start + _DECODED_AT_ONCE]
        encoded = tf.data.Dataset.from_tensor_slices([_read(file, notes) for file in part])
        batch = encoded.map(picture, tf.data.AUTOTUNE, deterministic=True).batch(len(part))
        try:
            images[start : start + len(part)] = batch.get_single_element()
        except tf.errors.InvalidArgumentError:
            raise _unreadable(_first_broken(part)) from None
    notes.warn()
    return images


def _read(file: PictureFile, notes: Notes) -> bytes:
    try:
        data = file.read_bytes()
    except Exception as error:  # of damaged archives zipfile raises many types
        raise _unreadable(file) from error
    notes.add(data, str(file))
    return data


def _first_broken(files: Sequence[PictureFile]) -> PictureFile:
    import tensorflow as tf

    for file in files:
        try:
            tf.io.decode_jpeg(file.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE")
        except tf.errors.InvalidArgumentError:
            return file
    raise AssertionError("A batch failed, but each picture in it can be decoded.")


def _unreadable(file: PictureFile) -> ValueError:
    return ValueError(f"{file} cannot be read as a picture: {REMEDY}.")


def _warn(message: str):
    warnings.warn(message, DataWarning, stacklevel=3)
