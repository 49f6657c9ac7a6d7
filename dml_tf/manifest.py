"""The folder of an exported training step: which file holds what. NumPy only."""

import hashlib
import json
from pathlib import Path

import numpy as np

PROGRAM = "step.mlir"
IMAGES = "images.npz"
STATE = "state.npz"
_MANIFEST = "manifest.json"


def write(folder: Path, manifest: dict):
    """Writes the manifest, the last file of an export: without it a folder holds no step.

    Args:
        folder: Where the step goes.
        manifest: What `read` returns.
    """
    text = json.dumps(manifest, indent=1, allow_nan=False)
    (folder / _MANIFEST).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict:
    """Reads what is known of an exported step.

    Args:
        folder: What `dml_tf.export_step` wrote.

    Returns:
        `run_id`, `command`, `config`, `data_dir`, `results_dir`: the run and its places.
        `images`: `describe`'s result for the training images.
        `steps` of the whole run and `steps_per_epoch`.
        `variables`: `name`, `shape`, `dtype` and `updated` of each, in the program's order.
        `metrics`: name -> where its total and its count are among the variables.
        `versions` of what wrote it.

    Raises:
        FileNotFoundError: There is none.
    """
    file = folder / _MANIFEST
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no exported step: there is no {_MANIFEST}. Make one with "
            f"`python -m dml_tf.export_step --dataset=... --net=... {folder}`."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def exists(folder: Path) -> bool:
    """Whether a folder holds an exported step."""
    return (folder / _MANIFEST).is_file()


def describe(images: np.ndarray, labels: np.ndarray) -> dict:
    """What tells a training set from another.

    Args:
        images: Pixels, shape `(images, height, width, channels)`, uint8.
        labels: Classes, shape `(images,)`, int64.

    Returns:
        `count`, `shape` of one image, and the sums `labels_sha256` and `pixels_sha256`.

    Example:
        >>> describe(np.zeros((2, 8, 8, 1), np.uint8), np.arange(2))["shape"]
        [8, 8, 1]
    """
    return {
        "count": len(labels),
        "shape": list(images.shape[1:]),
        "labels_sha256": hashlib.sha256(labels.tobytes()).hexdigest(),
        "pixels_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
    }
