"""pedestrians: a generated stand-in for Market-1501, in its folders and under its file names.

Drawn people walk past six cameras. Some of them differ from others in few attributes, so that
telling them apart takes attention to details; pose, framing, light and passers-by vary from picture
to picture. It shows that the machinery works and is no evidence about photographs.

    python -m dml_tf.data.pedestrians DEST [--seed=0] [--train_identities=100] ...
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dml_tf.data import pedestrian_figures as figures
from dml_tf.data import pedestrian_scenes as scenes
from dml_tf.data.market1501_tree import FOLDERS, GALLERY, MULTI_QUERY, QUERY, TRAIN

_FAMILY = 4  # people who resemble each other
_CHANGES = 4  # attributes drawn anew from one of a family to the next
_LEAST_DIFFERENCES = 2  # visible attributes in which any two people differ
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
    """

    seed: int = 0
    train_identities: int = 100
    test_identities: int = 100
    queries: int = 2
    distractors: int = 150
    junk: int = 150


def write(dest: str | Path, sizes: Sizes = Sizes()):  # noqa: B008 - frozen
    """Generates the data set; it is there as a whole or not at all.

    Args:
        dest: Folder to make; it must not exist, or be empty.
        sizes: How much to generate.

    Raises:
        FileExistsError: There is something else in the folder.
    """
    dest = Path(dest).expanduser()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise FileExistsError(f"{dest} is not empty: give a new folder, or remove what is there.")
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    try:
        for folder in FOLDERS:
            (part / folder).mkdir()
        for folder, name, picture in _generate(sizes):
            picture.save(part / folder / name, quality=90)
        (part / _SETTINGS).write_text(json.dumps(dataclasses.asdict(sizes)) + "\n")
        part.chmod(0o755)
        part.rename(dest)  # an empty folder is replaced, a full one is an error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def ensure(dest: str | Path, sizes: Sizes = Sizes()) -> Path:  # noqa: B008 - frozen
    """Generates the data set where it is not there yet.

    Args:
        dest: Its folder.
        sizes: How much to generate.

    Returns:
        The folder.

    Raises:
        FileExistsError: There is something else in the folder, or a data set of other sizes.
    """
    dest = Path(dest).expanduser()
    settings = dest / _SETTINGS
    if not settings.exists():
        try:
            write(dest, sizes)
        except OSError:
            if not settings.exists():  # nor was another process faster
                raise
    if json.loads(settings.read_text()) != dataclasses.asdict(sizes):
        raise FileExistsError(f"{dest} was generated with other sizes: remove it or give another.")
    return dest


def _generate(sizes: Sizes) -> Iterator[tuple[str, str, Image.Image]]:
    """Yields each picture with its folder and name; the query's own are in two folders."""
    rng = np.random.default_rng(sizes.seed)
    studio = _Studio(rng)
    people = _people(sizes.train_identities + sizes.test_identities, rng)
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
        walk = studio.walk(figures.random_person(rng), rng.integers(1, 7))
        yield GALLERY, *studio.take(walk, 0, "detected" if number % 2 else "missed")
    for _ in range(sizes.junk):
        person = people[learners + rng.integers(sizes.test_identities)]
        yield GALLERY, *studio.take(studio.walk(person, rng.integers(1, 7)), -1, "partial")


def _people(count: int, rng: np.random.Generator) -> list[figures.Person]:
    """Draws people in families, any two of whom differ in what can be seen of them."""
    people, seen = [], []
    while len(people) < count:
        first = len(people) % _FAMILY == 0
        person = (
            figures.random_person(rng)
            if first
            else figures.lookalike(people[-(len(people) % _FAMILY)], rng, _CHANGES)
        )
        look = figures.appearance(person)
        different = (sum(a != b for a, b in zip(look, o, strict=True)) for o in seen)
        if all(differences >= _LEAST_DIFFERENCES for differences in different):
            people.append(person)
            seen.append(look)
    return people


@dataclasses.dataclass(frozen=True)
class _Walk:
    """One person's way past one camera."""

    person: figures.Person
    camid: int
    sequence: int
    yaw: float
    left: float
    top: float
    zoom: float
    brightness: float


class _Studio:
    """The six cameras, what stands before them, and how many frames each has taken."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.places = [scenes.scene(camera, rng) for camera in scenes.CAMERAS]
        self.frames = [0] * len(scenes.CAMERAS)

    def walks(self, person: figures.Person) -> Iterator[_Walk]:
        """A person's ways past three to six of the cameras."""
        count = self.rng.integers(3, len(self.places) + 1)
        for index in self.rng.permutation(len(self.places))[:count]:
            yield self.walk(person, index + 1)

    def walk(self, person: figures.Person, camid: int) -> _Walk:
        """A person's way past a camera."""
        rng = self.rng
        back = np.pi * (rng.random() < 0.5)
        return _Walk(
            person=person,
            camid=int(camid),
            sequence=int(rng.integers(1, 4)),
            yaw=scenes.CAMERAS[camid - 1].yaw + back + rng.normal(0, 0.5),
            left=rng.random(),
            top=rng.random(),
            zoom=rng.uniform(0.8, 1.2),
            brightness=rng.uniform(0.85, 1.15),
        )

    def take(self, walk: _Walk, pid: int, framing: str) -> tuple[str, Image.Image]:
        """A picture of a person on the way, and its name."""
        rng, camera = self.rng, scenes.CAMERAS[walk.camid - 1]
        self.frames[walk.camid - 1] += int(rng.integers(3, 30))
        box = 0 if framing == "drawn" else rng.integers(1, 7)
        frame = self.frames[walk.camid - 1]
        pid = f"{pid:04d}" if pid >= 0 else str(pid)
        name = f"{pid}_c{walk.camid}s{walk.sequence}_{frame:06d}_{box:02d}.jpg"
        left, top = np.clip([walk.left, walk.top] + rng.normal(0, 0.02, 2), 0, 1)
        canvas = scenes.view(self.places[walk.camid - 1], left, top, walk.zoom)
        self._populate(canvas, walk, camera, _framed(framing, rng))
        return name, scenes.expose(canvas, camera, walk.brightness * rng.uniform(0.95, 1.05), rng)

    def _populate(self, canvas, walk: _Walk, camera: scenes.Camera, frame: tuple):
        """Paints the person, and now and then someone behind or something in front."""
        rng, (x, top, height) = self.rng, frame
        pose = figures.Pose(
            yaw=walk.yaw + rng.normal(0, 0.2),
            phase=rng.uniform(0, 2 * np.pi),
            stride=rng.uniform(0.2, 0.5),
            x=x,
            top=top,
            height=height,
            elevation=camera.elevation + rng.normal(0, 0.04),
        )

        def passer_by(aside, smaller):
            other = dataclasses.replace(
                pose,
                yaw=rng.uniform(0, 2 * np.pi),
                x=x + rng.choice([-1, 1]) * rng.uniform(*aside),
                top=top + rng.uniform(*smaller) * height,
                height=height * rng.uniform(0.8, 1.0),
            )
            figures.draw(canvas, figures.random_person(rng), other, camera.light)

        if rng.random() < 0.12:
            passer_by((16, 34), (0, 0.05))
        figures.draw(canvas, walk.person, pose, camera.light)
        chance = rng.random()
        if chance < 0.06:
            passer_by((20, 34), (0.05, 0.15))
        elif chance < 0.11:  # a pole
            left, wide = rng.integers(0, scenes.WIDTH), rng.integers(3, 9)
            canvas[:, left : left + wide] = rng.uniform(0.2, 0.7)
        elif chance < 0.17:  # a bin, a bicycle's basket, a low wall
            low, left = rng.integers(80, 110), rng.integers(-20, 40)
            canvas[low:, max(left, 0) : left + 40] = rng.uniform(0.15, 0.7, 3) * 0.5 + 0.15


def _framed(framing: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Where a person stands in the box: middle, crown and height in pixels."""
    tall, wide = scenes.HEIGHT, scenes.WIDTH
    if framing == "drawn":
        height = tall * rng.uniform(0.9, 0.97)
        return wide / 2 + rng.normal(0, 1), (tall - height) / 2 + rng.normal(0, 1), height
    if framing == "detected":
        height = tall * rng.uniform(0.82, 1.06)
        return wide / 2 + rng.normal(0, 3), (tall - height) / 2 + rng.normal(0, 3), height
    height = tall * rng.uniform(0.7, 1.7)
    far = (0.25, 0.4) if framing == "partial" else (0.6, 1.2)  # of the box
    sign = rng.choice([-1, 1], 2)
    x, y = sign * rng.uniform(*far, 2) * [wide, tall * 0.6]
    return wide / 2 + x, (tall - height) / 2 + y, height


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the data set from the command line.

    Args:
        argv: Arguments, those of the process by default.

    Returns:
        Exit status: 0 done, 1 refused.
    """
    parser = argparse.ArgumentParser("python -m dml_tf.data.pedestrians", description=__doc__)
    parser.add_argument("dest", help="folder to make")
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int, default=field.default, help="%(default)s")
    arguments = vars(parser.parse_args(argv))
    dest = arguments.pop("dest")
    try:
        write(dest, Sizes(**arguments))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    counts = (f"{len(list((Path(dest) / folder).iterdir()))} in {folder}" for folder in FOLDERS)
    print(f"{dest}: {', '.join(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
