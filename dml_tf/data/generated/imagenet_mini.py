"""imagenet_mini: generated pictures in ImageNet's class folders, in its place at mini scale.

Twenty classes, the shapes of shapes100 in all its patterns, as JPEG files of many sizes. It shows
that loading and training work; it is no part of ImageNet and no evidence about photographs.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from dml_tf.data.draws import Purpose, philox
from dml_tf.data.generated.folders import ensure_folder, whole_folder
from dml_tf.data.generated.shapes100 import PATTERNS, SHAPES, generate

NAME = "imagenet_mini (generated)"
TRAIN_IMAGES = 2000
TEST_IMAGES = 500
SIDES = (96, 128)
_NOTE = "README.txt"
# Parts 0 and 1 are shapes100's own.
_PARTS = {"train": (2, TRAIN_IMAGES), "validation": (3, TEST_IMAGES)}


def write(dest: str | Path):
    """Generates the data set in a new or empty folder."""
    with whole_folder(dest) as folder:
        for name, (part, count) in _PARTS.items():
            _write_part(folder / name, name, part, count)
        names = (f"{_wnid(label)} {shape}\n" for label, shape in enumerate(SHAPES))
        (folder / _NOTE).write_text(f"{__doc__}\n{''.join(names)}")


def ensure(dest: str | Path) -> Path:
    """Generates the data set if its folder does not have it yet; returns the folder."""
    return ensure_folder(dest, _NOTE, write)


def _write_part(folder: Path, name: str, part: int, count: int):
    """Writes pictures `<class>/<class>_<number>.JPEG`, height and width drawn from `SIDES`."""
    split = generate(count, part=part)
    low, high = SIDES
    words = philox(0, Purpose.IMAGENET_MINI, part).random_raw(2 * count).reshape(count, 2)
    sides = low + (words % np.uint64(high - low + 1)).astype(int)
    for number, label in enumerate(split.labels // len(PATTERNS)):
        wnid = _wnid(label)
        file = folder / wnid / f"{wnid}_{number}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        height, width = sides[number].tolist()
        picture = Image.fromarray(split.images[number])
        picture.resize((width, height), Image.Resampling.BICUBIC).save(file, quality=90)


def _wnid(label: int) -> str:
    return f"n{label:08d}"
