"""The data of one run, and the choice of its images: subsets by seed, evenly over the classes."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from dml_tf.data.draws import Purpose, philox
from dml_tf.data.stored import Pictures, StoredImages, WholePictures, blocks

UNLABELLED = -1


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: Pixels, shape `(images, height, width, channels)`, uint8; or pictures on disk, or
            images that are stored at another size.
        labels: Class of each image, shape `(images,)`, int64; -1 where it is not given.
    """

    images: np.ndarray | Pictures | WholePictures | StoredImages
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> "Split":
        """The images at `index`, shape `(chosen,)` or a slice, as a new split."""
        return Split(self.images[index], self.labels[index])

    @property
    def digest(self) -> str:
        """A hexadecimal hash of images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.labels))
        if isinstance(self.images, Pictures):
            digest.update(self.images.listing())
        else:
            _add_pixels(digest, self.images)
        return digest.hexdigest()

    @property
    def pixels(self) -> np.ndarray | WholePictures:
        """The pixels, at the size at which they are stored."""
        return self.images.pixels if isinstance(self.images, StoredImages) else self.images

    @property
    def in_memory(self) -> "Split":
        """The same images with all pixels decoded."""
        return Split(np.asarray(self.images), self.labels)

    @property
    def labelled(self) -> "Split":
        """The images whose labels are given."""
        return self.take(np.flatnonzero(self.labels != UNLABELLED))


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it was published, before a run chooses from it.

    Attributes:
        name: The name that reports print, such as `CIFAR-10`.
        train: All training images.
        test: All test images.
        class_names: One name per class.
        validation: Validation images, if the data set has its own.
        to_unit_range: Whether pixels are scaled to [-1, 1], as in the authors' code; otherwise the
            statistics of the training images normalise them.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    validation: Split | None = None
    to_unit_range: bool = False


@dataclasses.dataclass(frozen=True)
class ReidImages:
    """Pictures of people.

    Attributes:
        images: Pixels, shape `(images, height, width, 3)`, uint8; or images that are stored at
            another size.
        pids: Identities, shape `(images,)`, int64; 0 is a distractor, -1 junk.
        camids: Cameras, shape `(images,)`, int64.
        names: File names.
    """

    images: np.ndarray | StoredImages
    pids: np.ndarray
    camids: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pids)

    @property
    def digest(self) -> str:
        """A hexadecimal hash of images, identities and cameras."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pids))
        digest.update(np.ascontiguousarray(self.camids))
        _add_pixels(digest, self.images)
        return digest.hexdigest()


def _add_pixels(digest, images: np.ndarray | WholePictures | StoredImages):
    for block in blocks(images):
        digest.update(np.ascontiguousarray(block))


@dataclasses.dataclass(frozen=True)
class Market1501:
    """The part of a re-identification data set that one run uses.

    Attributes:
        name: The data set's name as printed.
        train: Training images; labels 0..M-1, or -1 where the identity is not given.
        class_pids: Identity of each label, shape `(M,)`, int64.
        query: Queries.
        gallery: The images that are ranked, with distractors and junk.
        multi_query: Hand-drawn boxes of the queries' identities in the queries' cameras.
    """

    name: str
    train: Split
    class_pids: np.ndarray
    query: ReidImages
    gallery: ReidImages
    multi_query: ReidImages


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data that one run is trained and evaluated on.

    Attributes:
        name: The data set's name as printed, such as `CIFAR-10 (JPEG copy)`.
        train: The training images chosen by the run's flags.
        validation: Images held out of the training set, or None.
        test: The test images, always all of them; None for re-identification.
        num_classes: Number of classes.
        class_names: One name per class.
        mean: Mean of the training pixels scaled to [0, 1], shape `(channels,)`, float32.
        std: Their standard deviation, likewise.
        reid: Queries and gallery, for re-identification.
        identity: Which data these are, as `identify` returns it; {} if that is not known.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    num_classes: int
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    reid: Market1501 | None = None
    identity: dict = dataclasses.field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """Hashes of the chosen images and labels, by part."""
        parts = {part: getattr(self, part) for part in ("train", "validation", "test")}
        if self.reid:
            parts |= {
                part: getattr(self.reid, part) for part in ("query", "gallery", "multi_query")
            }
        return {part: split.digest if split else "" for part, split in parts.items()}


def choose(source: Source, config: Any) -> tuple[Split, Split | None]:
    """Choose a run's training and validation images, a function of `config.seed`."""
    # In this order: `validation_fraction` of every class is held out; `train_images` of the rest
    # are kept, the same number per class where there are enough; `labelled_fraction` of every
    # class keeps its labels, at least one image. Each choice has its own random stream.
    train, validation = _hold_out(source, config.validation_fraction, config.seed)
    train = _keep(train, config.train_images, config.seed)
    return _label(train, config.labelled_fraction, config.unlabelled, config.seed), validation


def _hold_out(source: Source, fraction: float, seed: int) -> tuple[Split, Split | None]:
    if not 0 <= fraction < 1:
        raise ValueError(
            f"--validation_fraction={fraction}: give a fraction of at least 0 and below 1."
        )
    if not fraction:
        return source.train, source.validation
    if source.validation is not None:
        raise ValueError(
            f"--validation_fraction={fraction}: {source.name} has validation images of its own; "
            "leave the flag at 0 to use them."
        )
    held = _fraction_of_classes(source.train.labels, fraction, seed, Purpose.VALIDATION, least=0)
    if held.all() or not held.any():
        raise ValueError(
            f"--validation_fraction={fraction} holds out {held.sum()} of the {held.size} training "
            f"images of {source.name}; give a fraction that leaves some on both sides."
        )
    return source.train.take(~held), source.train.take(held)


def _keep(train: Split, count: int, seed: int) -> Split:
    if not 0 <= count <= len(train):
        raise ValueError(
            f"--train_images={count}: there are {len(train)} training images (validation images "
            f"not counted); give a number from 1 to {len(train)}, or 0 for all."
        )
    if count in (0, len(train)):
        return train
    words = philox(seed, Purpose.TRAIN_SUBSET).random_raw(len(train))
    evenly = np.lexsort((words, class_ranks(train.labels, words)))
    return train.take(np.sort(evenly[:count]))


def _label(train: Split, fraction: float, unlabelled: str, seed: int) -> Split:
    if not 0 < fraction <= 1:
        raise ValueError(f"--labelled_fraction={fraction}: give a fraction above 0, at most 1.")
    if unlabelled not in ("use", "drop"):
        raise ValueError(f"--unlabelled={unlabelled}: give use or drop.")
    labelled = _fraction_of_classes(train.labels, fraction, seed, Purpose.LABELLED, least=1)
    if unlabelled == "drop":
        return train if labelled.all() else train.take(labelled)
    return Split(train.images, np.where(labelled, train.labels, UNLABELLED))


def _fraction_of_classes(
    labels: np.ndarray, fraction: float, seed: int, purpose: Purpose, least: int
) -> np.ndarray:
    """A mask of `fraction` of each class, rounded, shape `(images,)`."""
    ranks = class_ranks(labels, philox(seed, purpose).random_raw(len(labels)))
    quota = np.maximum(least, np.rint(fraction * np.bincount(labels)))
    return ranks < quota[labels]


def class_ranks(labels: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Place of each image among those of its class, from 0, when its random `words` are sorted."""
    order = np.lexsort((words, labels))
    first = np.searchsorted(labels[order], labels[order], side="left")
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - first
    return ranks
