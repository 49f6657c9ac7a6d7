"""Six cameras, each with its own scene, light, colours, view and sharpness."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

HEIGHT, WIDTH = 128, 64
_SCENE_HEIGHT, _SCENE_WIDTH = 176, 512


@dataclass(frozen=True)
class Camera:
    """What a camera sees, and how."""

    ground: tuple[float, float, float]  # colours from 0 to 1
    wall: tuple[float, float, float]
    horizon: float  # where ground and wall meet, as a fraction of the height
    clutter: int  # number of things along the wall
    gains: tuple[float, float, float]  # brightness of red, green and blue
    gamma: float  # above 1, dark parts are darker
    light: float  # where the light comes from, -1 left to 1 right
    elevation: float  # how far the camera looks down, see `Pose`
    yaw: float  # where people walk, in radians; half of them walk the other way
    blur: float  # Gaussian, in pixels
    noise: float  # standard deviation of a pixel, in levels of 255


CAMERAS = (
    Camera(
        ground=(0.62, 0.61, 0.58), wall=(0.55, 0.5, 0.45), horizon=0.3, clutter=9,
        gains=(1.05, 1.0, 0.93), gamma=1.0, light=0.7, blur=0.5, noise=3,
        elevation=0.15, yaw=0.3,
    ),
    Camera(
        ground=(0.5, 0.53, 0.46), wall=(0.33, 0.42, 0.28), horizon=0.42, clutter=14,
        gains=(0.92, 1.03, 0.95), gamma=1.15, light=-0.5, blur=0.6, noise=4,
        elevation=0.25, yaw=1.2,
    ),
    Camera(
        ground=(0.7, 0.66, 0.6), wall=(0.66, 0.63, 0.6), horizon=0.22, clutter=6,
        gains=(1.16, 1.08, 1.0), gamma=0.85, light=-0.8, blur=0.5, noise=3,
        elevation=0.35, yaw=-0.5,
    ),
    Camera(
        ground=(0.42, 0.43, 0.46), wall=(0.38, 0.4, 0.46), horizon=0.36, clutter=10,
        gains=(0.74, 0.8, 0.95), gamma=1.15, light=0.2, blur=0.8, noise=6,
        elevation=0.2, yaw=0.9,
    ),
    Camera(
        ground=(0.58, 0.54, 0.49), wall=(0.48, 0.38, 0.33), horizon=0.28, clutter=12,
        gains=(1.08, 0.95, 0.82), gamma=1.05, light=0.9, blur=0.5, noise=4,
        elevation=0.1, yaw=1.5,
    ),
    Camera(
        ground=(0.56, 0.57, 0.57), wall=(0.52, 0.56, 0.52), horizon=0.34, clutter=10,
        gains=(0.9, 0.93, 0.9), gamma=0.95, light=-0.3, blur=1.3, noise=5,
        elevation=0.45, yaw=0.0,
    ),
)  # fmt: skip


def scene(camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Draws the place that a camera sees, float32 from 0 to 1, larger than one picture."""
    height, width = _SCENE_HEIGHT, _SCENE_WIDTH
    edge = int(camera.horizon * height)
    place = np.empty((height, width, 3), np.float32)
    place[:edge], place[edge:] = camera.wall, camera.ground
    place[edge - 3 : edge] *= 0.7
    for _ in range(camera.clutter):
        _stand_something(place, edge, rng)
    _pave(place, edge, rng)
    place *= 1 + 0.10 * _clouds(rng, (height, width), 40)[..., None]
    place *= 1 + 0.07 * _clouds(rng, (height, width), 3)[..., None]
    return place


def _stand_something(place: np.ndarray, edge: int, rng: np.random.Generator):
    """Draws a door, a pillar, a car or a bush: a block that ends a little in front of the wall."""
    height, width, _ = place.shape
    wide, tall = rng.integers(5, 60), rng.integers(10, edge + 5)
    left, foot = rng.integers(width - 5), edge + rng.integers(-6, 14)
    right, top = left + wide, max(foot - tall, 0)
    colour = np.clip(rng.normal(0.42, 0.2) + rng.normal(0, 0.07, 3), 0.05, 0.95)
    place[top:foot, left:right] = colour
    if rng.random() < 0.5:  # window panes, slats or leaves
        pitch = rng.integers(4, 12)
        place[top:foot, left:right][:, ::pitch] *= 0.75
        place[top:foot:pitch, left:right] *= 0.75
    place[foot : foot + 4, left:right] *= 0.8


def _pave(place: np.ndarray, edge: int, rng: np.random.Generator):
    """Draws the joints of the paving, closer together in the distance."""
    height, width, _ = place.shape
    y = np.arange(edge, height)[:, None]
    near = (y - edge + 12) / 60
    x = np.arange(width)[None] - width / 2
    across = np.abs((x / near / 26) % 1 - 0.5) < 0.025 / near
    along = np.abs((6 / near + rng.random()) % 1 - 0.5) < 0.05
    place[edge:][across | along] *= 0.88


def _clouds(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise of about unit deviation, shape `shape`."""
    coarse = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def view(place: np.ndarray, left: float, top: float, zoom: float) -> np.ndarray:
    """The part of a scene behind a person, `(128, 64, 3)`; left and top are fractions, 0 to 1."""
    tall, wide = int(np.ceil(HEIGHT / zoom)), int(np.ceil(WIDTH / zoom))
    y, x = int(top * (place.shape[0] - tall)), int(left * (place.shape[1] - wide))
    rows = y + (np.arange(HEIGHT) / zoom).astype(int)
    columns = x + (np.arange(WIDTH) / zoom).astype(int)
    return place[rows[:, None], columns]


def expose(
    canvas: np.ndarray, camera: Camera, brightness: float, rng: np.random.Generator
) -> Image.Image:
    """Takes the picture: gives the canvas the camera's colours, contrast, blur and noise."""
    seen = np.clip(canvas, 0, 1) ** camera.gamma * np.asarray(camera.gains, np.float32) * brightness
    seen = 255 * (0.04 + 0.92 * np.clip(seen, 0, 1))
    picture = Image.fromarray(seen.astype(np.uint8)).filter(ImageFilter.GaussianBlur(camera.blur))
    grain = camera.noise * rng.standard_normal((HEIGHT, WIDTH, 1), np.float32)
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
