"""Takes pictures of people who walk past six cameras."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from dml_tf.data.generated import bodies, scenes
from dml_tf.data.generated.people import Person, random_person


@dataclass(frozen=True)
class Walk:
    """One person's walk past one camera."""

    person: Person
    camid: int  # 1 to 6
    sequence: int  # recording of the camera
    yaw: float  # where the person faces, in radians, see `Pose`
    left: float  # place in the scene, as in `view`
    top: float
    zoom: float  # pixels of the picture per pixel of the scene
    brightness: float


class Studio:
    """The six cameras, the scene before each, and the number of frames each has taken."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.places = [scenes.scene(camera, rng) for camera in scenes.CAMERAS]
        self.frames = [0] * len(scenes.CAMERAS)

    def walks(self, person: Person) -> Iterator[Walk]:
        """Yields a person's walks past three to six of the cameras, in random order."""
        count = self.rng.integers(3, len(self.places) + 1)
        for index in self.rng.permutation(len(self.places))[:count]:
            yield self.walk(person, index + 1)

    def walk(self, person: Person, camid: int) -> Walk:
        """One walk of a person past a camera."""
        rng = self.rng
        back = np.pi * (rng.random() < 0.5)
        return Walk(
            person=person,
            camid=int(camid),
            sequence=int(rng.integers(1, 4)),
            yaw=scenes.CAMERAS[camid - 1].yaw + back + rng.normal(0, 0.5),
            left=rng.random(),
            top=rng.random(),
            zoom=rng.uniform(0.8, 1.2),
            brightness=rng.uniform(0.85, 1.15),
        )

    def take(self, walk: Walk, pid: int, framing: str) -> tuple[str, Image.Image]:
        """File name and picture; the framing is `drawn`, `detected`, `partial` or `missed`."""
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

    def _populate(self, canvas, walk: Walk, camera: scenes.Camera, frame: tuple):
        """Paints the person, and sometimes a passer-by behind or an object in front."""
        rng, (x, top, height) = self.rng, frame
        pose = bodies.Pose(
            yaw=walk.yaw + rng.normal(0, 0.2),
            phase=rng.uniform(0, 2 * np.pi),
            stride=rng.uniform(0.2, 0.5),
            x=x,
            top=top,
            height=height,
            elevation=camera.elevation + rng.normal(0, 0.04),
        )

        def passer_by(aside, smaller):
            other = replace(
                pose,
                yaw=rng.uniform(0, 2 * np.pi),
                x=x + rng.choice([-1, 1]) * rng.uniform(*aside),
                top=top + rng.uniform(*smaller) * height,
                height=height * rng.uniform(0.8, 1.0),
            )
            bodies.draw(canvas, random_person(rng), other, camera.light)

        if rng.random() < 0.12:
            passer_by((16, 34), (0, 0.05))
        bodies.draw(canvas, walk.person, pose, camera.light)
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
    """Place of a person in the box: middle, crown and height in pixels."""
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
