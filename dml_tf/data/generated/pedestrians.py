"""pedestrians: a generated stand-in for Market-1501, with its folders and file names.

Drawn people walk past six cameras. Some of them differ in few attributes only, so details matter.
Pose, framing, light and passers-by vary from picture to picture.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dml_tf.data.generated.folders import ensure_folder, whole_folder
from dml_tf.data.generated.people import random_people, random_person
from dml_tf.data.generated.studio import Studio
from dml_tf.data.sources.market1501_tree import FOLDERS, GALLERY, MULTI_QUERY, QUERY, TRAIN

NAME = "pedestrians (generated)"
_SETTINGS = "pedestrians.json"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The seed, and how much is generated."""

    seed: int = 0
    train_identities: int = 100  # people to learn from, about 15 pictures each
    test_identities: int = 100  # other people, for queries and gallery
    queries: int = 2  # for each test identity, each from another camera
    distractors: int = 150  # pictures (0000) in the gallery of people without a query
    junk: int = 150  # badly framed pictures (-1) in the gallery

    def __post_init__(self):
        if min(self.train_identities, self.test_identities, self.queries) < 1:
            raise ValueError(f"{self}: identities and queries must be at least 1.")
        if min(self.seed, self.distractors, self.junk) < 0:
            raise ValueError(f"{self}: seed, distractors and junk must be at least 0.")
        if self.train_identities + self.test_identities > 9999:
            raise ValueError(f"{self}: file names have room for 9,999 identities.")


DEFAULT_SIZES = Sizes()


def write(dest: str | Path, sizes: Sizes = DEFAULT_SIZES):
    """Generates the data set in a new or empty folder."""
    with whole_folder(dest) as part:
        for folder in FOLDERS:
            (part / folder).mkdir()
        for folder, name, picture in _generate(sizes):
            picture.save(part / folder / name, quality=90)
        (part / _SETTINGS).write_text(json.dumps(dataclasses.asdict(sizes)) + "\n")


def ensure(dest: str | Path, sizes: Sizes = DEFAULT_SIZES) -> Path:
    """Generates the data set if its folder does not have it yet; returns the folder."""
    dest = ensure_folder(dest, _SETTINGS, lambda folder: write(folder, sizes))
    if json.loads((dest / _SETTINGS).read_text()) != dataclasses.asdict(sizes):
        raise FileExistsError(f"{dest} was generated with other sizes: remove it or give another.")
    return dest


def _generate(sizes: Sizes) -> Iterator[tuple[str, str, Image.Image]]:
    """Yields each picture with its folder and name; queries are in two folders."""
    rng = np.random.default_rng(sizes.seed)
    studio = Studio(rng)
    people = random_people(sizes.train_identities + sizes.test_identities, rng)
    pids = rng.permutation(len(people)) + 1
    learners = len(people) - sizes.test_identities
    for pid, person in zip(pids[:learners], people[:learners], strict=True):
        for walk in studio.walks(person):
            for _ in range(rng.integers(2, 6)):
                yield TRAIN, *studio.take(walk, pid, "detected")
    for pid, person in zip(pids[learners:], people[learners:], strict=True):
        for number, walk in enumerate(studio.walks(person)):
            for _ in range(rng.integers(1, 4)):
                yield GALLERY, *studio.take(walk, pid, "detected")
            for shot in range(4 if number < sizes.queries else 0):
                taken = studio.take(walk, pid, "drawn")
                yield MULTI_QUERY, *taken
                if shot == 0:
                    yield QUERY, *taken
    for number in range(sizes.distractors):
        walk = studio.walk(random_person(rng), rng.integers(1, 7))
        yield GALLERY, *studio.take(walk, 0, "detected" if number % 2 else "missed")
    for _ in range(sizes.junk):
        person = people[learners + rng.integers(sizes.test_identities)]
        yield GALLERY, *studio.take(studio.walk(person, rng.integers(1, 7)), -1, "partial")
