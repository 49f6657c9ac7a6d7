"""pedestrians: a generated stand-in for Market-1501, in its folders and under its file names.

Drawn people walk past six cameras. Some of them differ from others in few attributes, so that
telling them apart takes attention to details; pose, framing, light and passers-by vary from picture
to picture. It shows that the machinery works and is no evidence about photographs.

    python -m dml_tf.data.pedestrians DEST [--seed=0] [--train_identities=100] ...
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dml_tf.data.generated.folders import whole_folder
from dml_tf.data.generated.people import random_people, random_person
from dml_tf.data.generated.studio import Studio
from dml_tf.data.sources.market1501 import Market1501, load_market1501
from dml_tf.data.sources.market1501_tree import FOLDERS, GALLERY, MULTI_QUERY, QUERY, TRAIN

NAME = "pedestrians (generated)"
_SETTINGS = "pedestrians.json"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is generated.

    Attributes:
        seed: Seed of everything.
        train_identities: People to learn from, about 15 pictures each.
        test_identities: Other people, to ask for.
        queries: Queries for each of them, each from another camera.
        distractors: Pictures of nobody who is asked for (0000) in the gallery.
        junk: Badly framed pictures (-1) in the gallery.

    Raises:
        ValueError: A number is too small, or there are more people than four digits can name.
    """

    seed: int = 0
    train_identities: int = 100
    test_identities: int = 100
    queries: int = 2
    distractors: int = 150
    junk: int = 150

    def __post_init__(self):
        if min(self.train_identities, self.test_identities, self.queries) < 1:
            raise ValueError(f"{self}: identities and queries must be at least 1.")
        if min(self.seed, self.distractors, self.junk) < 0:
            raise ValueError(f"{self}: seed, distractors and junk must be at least 0.")
        if self.train_identities + self.test_identities > 9999:
            raise ValueError(f"{self}: file names have room for 9,999 identities.")


DEFAULT_SIZES = Sizes()


def load_pedestrians(data_dir: str | Path, **options) -> Market1501:
    """Loads the data set of default sizes; it is generated on first use.

    Args:
        data_dir: Its folder, made where it is missing.
        **options: As for `load_market1501`: `image_size` and the choice of labels.

    Returns:
        The data set.

    Raises:
        FileExistsError: The folder has something else in it.
        ValueError: An option has no such value.
    """
    return load_market1501(ensure(data_dir), published=None, name=NAME, **options)


def write(dest: str | Path, sizes: Sizes = DEFAULT_SIZES):
    """Generates the data set; it is there as a whole or not at all.

    Args:
        dest: Folder to make; it must not exist, or be empty.
        sizes: How much to generate.

    Raises:
        FileExistsError: There is something else in the folder.
    """
    with whole_folder(dest) as part:
        for folder in FOLDERS:
            (part / folder).mkdir()
        for folder, name, picture in _generate(sizes):
            picture.save(part / folder / name, quality=90)
        (part / _SETTINGS).write_text(json.dumps(dataclasses.asdict(sizes)) + "\n")


def ensure(dest: str | Path, sizes: Sizes = DEFAULT_SIZES) -> Path:
    """Generates the data set where it is not there yet.

    Args:
        dest: Its folder.
        sizes: How much to generate.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is something else in the folder, or a data set of other sizes.
    """
    dest = Path(dest).expanduser().absolute()
    settings = dest / _SETTINGS
    if not settings.exists():
        try:
            write(dest, sizes)
        except FileExistsError:
            if not settings.exists():  # no other process was faster
                raise
    if json.loads(settings.read_text()) != dataclasses.asdict(sizes):
        raise FileExistsError(f"{dest} was generated with other sizes: remove it or give another.")
    return dest


def _generate(sizes: Sizes) -> Iterator[tuple[str, str, Image.Image]]:
    """Yields each picture with its folder and name; the query's own are in two folders."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the data set from the command line.

    Args:
        argv: Arguments, those of the process by default.

    Returns:
        Exit status: 0 done, 1 refused; bad arguments exit with 2.
    """
    parser = argparse.ArgumentParser(
        "python -m dml_tf.data.pedestrians", description=__doc__.split("\n\n    ")[0]
    )
    parser.add_argument("dest", help="folder to make")
    for field in dataclasses.fields(Sizes):
        text = f"default {field.default}"
        parser.add_argument(f"--{field.name}", type=int, default=field.default, help=text)
    arguments = vars(parser.parse_args(argv))
    dest = arguments.pop("dest")
    try:
        sizes = Sizes(**arguments)
    except ValueError as error:
        parser.error(str(error))
    try:
        write(dest, sizes)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    counts = (f"{len(list((Path(dest) / folder).iterdir()))} in {folder}" for folder in FOLDERS)
    print(f"{dest}: {', '.join(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
