"""shapes100: 100 generated classes, twenty shapes in five patterns, 32 by 32 pixels in colour.

It stands in for CIFAR-100 where nothing may be downloaded. The super-class is the shape, the fine
class is the pattern that fills it, so classes of one super-class are alike. Place, size, turn,
colours, light, background, clutter and noise vary from image to image, whatever the class.
"""

import functools
from typing import Any

import numpy as np

from dml_tf.data.draws import Purpose, philox
from dml_tf.data.splits import Source, Split

TRAIN_IMAGES = 10_000
TEST_IMAGES = 2_000
SIZE = 32
PATTERNS = ("plain", "rimmed", "barred", "striped", "checked")
_PLACES = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
# Weights of a linear interpolation from 4 places to 32, one row per pixel.
_SPREAD = np.maximum(0, 1 - np.abs(np.linspace(0, 3, SIZE)[:, np.newaxis] - np.arange(4)))
_SPREAD = _SPREAD.astype(np.float32)
_CHUNK = 250  # images drawn at a time, few enough for the processor's cache


def _disc(u, v, radius=0.95):
    return np.hypot(u, v) - radius


def _box(u, v, width, height):
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def _triangle(u, v):
    return np.maximum(0.87 * np.abs(u) - 0.5 * v - 0.48, v - 0.75)


def _plus(u, v):
    return np.minimum(_box(u, v, 1.0, 0.32), _box(u, v, 0.32, 1.0))


def _rosette(u, v, petals, depth):
    return np.hypot(u, v) - 0.68 - depth * np.cos(petals * np.arctan2(u, -v))


def _heart(u, v):
    return np.hypot(u, v + 0.7 * np.sqrt(np.abs(u)) - 0.2) - 0.85


def _arrow(u, v):
    head = np.maximum(0.71 * (np.abs(u) - v) - 0.68, v)
    return np.minimum(head, _box(u, v - 0.45, 0.3, 0.5))


# Distance to the outline, negative inside, in a frame of half-width 1: u to the right, v down.
SHAPES = {
    "disc": _disc,
    "ring": lambda u, v: np.abs(_disc(u, v, 0.68)) - 0.26,
    "crescent": lambda u, v: np.maximum(_disc(u, v), -_disc(u - 0.5, v, 0.75)),
    "half-disc": lambda u, v: np.maximum(_disc(u, v - 0.4, 1.05), v - 0.4),
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "frame": lambda u, v: np.abs(_box(u, v, 0.64, 0.64)) - 0.24,
    "diamond": lambda u, v: 0.71 * (np.abs(u) + np.abs(v)) - 0.72,
    "triangle": _triangle,
    "wedge": lambda u, v: _triangle(u, -v),
    "hourglass": lambda u, v: np.maximum(0.71 * (np.abs(u) - np.abs(v)) - 0.08, np.abs(v) - 0.9),
    "arrow": _arrow,
    "bar": lambda u, v: _box(u, v, 1.05, 0.45),
    "plus": _plus,
    "saltire": lambda u, v: _plus(0.71 * (u + v), 0.71 * (u - v)),
    "corner": lambda u, v: np.minimum(_box(u + 0.5, v, 0.32, 0.9), _box(u, v - 0.6, 0.85, 0.32)),
    "tee": lambda u, v: np.minimum(_box(u, v + 0.6, 0.95, 0.32), _box(u, v, 0.32, 0.92)),
    "dumbbell": lambda u, v: np.minimum(_disc(np.abs(u) - 0.6, v, 0.45), _box(u, v, 0.6, 0.16)),
    "flower": lambda u, v: _rosette(u, v, 4, 0.27),
    "star": lambda u, v: _rosette(u, v, 5, 0.3),
    "heart": _heart,
}


def load_shapes100(config: Any) -> Source:
    """Draw 10,000 training and 2,000 test images, the same for every seed."""
    return _drawn()


@functools.cache  # the runs of one process share it
def _drawn() -> Source:
    return Source(
        name="shapes100 (generated)",
        train=generate(TRAIN_IMAGES, part=0),
        test=generate(TEST_IMAGES, part=1),
        class_names=tuple(f"{pattern} {shape}" for shape in SHAPES for pattern in PATTERNS),
    )


def generate(count: int, *, part: int) -> Split:
    """Images `i`, each a function of `i` and the part alone: 0 for training, 1 for test."""
    labels = np.arange(count) % (len(SHAPES) * len(PATTERNS))  # 5 * shape + pattern
    scenes, grains = philox(0, Purpose.SHAPES, 2 * part), philox(0, Purpose.SHAPES, 2 * part + 1)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for start in range(0, count, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        scene = _draw(labels[chunk], _Choices(scenes, len(labels[chunk])))
        images[chunk] = np.rint(255 * np.clip(scene + _grain(grains, len(scene)), 0, 1))
    return Split(images, labels)


class _Choices:
    """Uniform random numbers for some images, up to 128 for each."""

    def __init__(self, words: np.random.Philox, images: int):
        self._left = (words.random_raw(images * 128) >> 11).reshape(images, 128) * 2.0**-53

    def __call__(self, low: float, high: float, *shape: int) -> np.ndarray:
        """The next ones, between `low` and `high`, shape `(images, *shape)`, float32."""
        count = int(np.prod(shape))
        taken, self._left = self._left[:, :count], self._left[:, count:]
        return (low + (high - low) * taken).astype(np.float32).reshape(-1, *shape)


def _draw(labels: np.ndarray, choose: _Choices) -> np.ndarray:
    """Images without grain, shape `(images, 32, 32, 3)`, float32, about 0 to 1."""
    ground, fill, second = (choose(low, low + 0.6, 1, 1, 3) for low in (0.05, 0.4, 0))
    u, v, radius = _frame(choose)
    distance = np.empty_like(u)
    for index, shape in enumerate(SHAPES.values()):
        rows = labels // len(PATTERNS) == index
        distance[rows] = shape(u[rows], v[rows])
    body = _blend(fill, second, _pattern(labels % len(PATTERNS), u, v, distance * radius, choose))
    light = 1 + choose(-0.3, 0.3, 1, 1) * u + choose(-0.3, 0.3, 1, 1) * v
    canvas = _clouds(ground, choose)
    for _ in range(2):
        canvas = _blend(canvas, *_line(choose))
    canvas = _blend(canvas, body * light[..., np.newaxis], 0.5 - distance * radius)
    return _blend(canvas, *_line(choose))


def _blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    return under + np.clip(share, 0, 1)[..., np.newaxis] * (over - under)


def _frame(choose: _Choices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of each pixel in the frame of its object, and the object's radius in pixels."""
    radius, stretch = choose(8.5, 13, 1, 1), choose(0.85, 1.18, 1, 1)
    turn = choose(-0.25, 0.25, 1, 1)
    x = (_PLACES - choose(-4, 4, 1, 1)) / radius
    y = (_PLACES[:, np.newaxis] - choose(-4, 4, 1, 1)) / radius
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    return u * stretch, v / stretch, radius


def _pattern(patterns, u, v, depth, choose: _Choices) -> np.ndarray:
    """Share of the second colour at each pixel, shape `(images, 32, 32)`; `depth` is in pixels."""
    kind = np.array(PATTERNS)[patterns][:, np.newaxis, np.newaxis]
    pitch, shift = choose(6.5, 8.5, 1, 1), choose(0, 2 * np.pi, 2, 1, 1)
    rows = np.where(np.isin(kind, ("barred", "checked")), np.sin(pitch * v + shift[:, 0]), 1)
    columns = np.where(np.isin(kind, ("striped", "checked")), np.sin(pitch * u + shift[:, 1]), 1)
    share = np.where(kind == "rimmed", 0.5 + depth + 3, 0.5 + 2.5 * rows * columns)
    return np.where(kind == "plain", 0, share).astype(np.float32)


def _clouds(ground: np.ndarray, choose: _Choices) -> np.ndarray:
    """A background that changes smoothly around its colour, shape `(images, 32, 32, 3)`."""
    coarse = choose(-0.3, 0.3, 4, 4, 3).reshape(-1, 4, 12)
    rows = (_SPREAD @ coarse).reshape(-1, SIZE, 4, 3)
    return ground + _SPREAD @ rows


def _line(choose: _Choices) -> tuple[np.ndarray, np.ndarray]:
    """The colour of a straight line across each image, and its share of each pixel."""
    turn, offset, width = choose(0, np.pi, 1, 1), choose(-14, 14, 1, 1), choose(0.2, 1, 1, 1)
    away = np.cos(turn) * _PLACES + np.sin(turn) * _PLACES[:, np.newaxis] - offset
    return choose(0, 1, 1, 1, 3), width + 0.5 - np.abs(away)


def _grain(words: np.random.Philox, images: int) -> np.ndarray:
    """Noise of every pixel and channel, one byte each, shape `(images, 32, 32, 3)`."""
    grain = words.random_raw(images * SIZE * SIZE * 3 // 8).astype("<u8").view(np.uint8)
    return (grain.reshape(-1, SIZE, SIZE, 3) / np.float32(255) - 0.5) * 0.2
