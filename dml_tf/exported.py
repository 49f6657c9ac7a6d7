"""An exported training step on disk, and the images and draws of its run. No TensorFlow.

`dml_tf.export_step` writes the folder, `dml_tf.run_step` trains with it where JAX is, and
`dml_tf.import_weights` takes the result back.
"""

import argparse
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dml_tf.data import draws, jpeg_copy, load
from dml_tf.data.resizing import resize
from dml_tf.data.splits import choose

PROGRAM = "step.mlir"
IMAGES = "images.npz"
STATE = "state.npz"
_MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: dict):
    """Writes the manifest, the last file of an export: without it a folder holds no step.

    Args:
        folder: Where the step goes.
        manifest: What `read_manifest` returns.
    """
    text = json.dumps(manifest, indent=1, allow_nan=False)
    (folder / _MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict:
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


def training_set(
    folder: Path, manifest: dict, data_dir: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The training images that the run's flags choose.

    Args:
        folder: What `dml_tf.export_step` wrote.
        manifest: What `read_manifest` returned.
        data_dir: Official archive, or the JPEG copy's archive or folder; None for the folder's
            own images.

    Returns:
        Pixels, shape `(images, height, width, channels)`, uint8, and labels, shape `(images,)`,
        int64.

    Raises:
        FileNotFoundError: There are none.
        ValueError: They are not the run's, or a file is damaged.
    """
    config = SimpleNamespace(**manifest["config"], data_dir=str(data_dir or ""))
    if data_dir is None:
        file = folder / IMAGES
        if not file.exists():
            raise FileNotFoundError(
                f"There is no {file}: bring it from where the step was exported, or add "
                "--data_dir=PLACE with the official archive or the JPEG copy."
            )
        with np.load(file) as saved:
            images, labels = saved["images"], saved["labels"]
    elif config.dataset == "cifar10" and jpeg_copy.is_jpeg_copy(data_dir):
        split, _ = choose(jpeg_copy.load_jpeg_copy(data_dir), config)
        images, labels = resize(split.images, config.image_size), split.labels
    else:
        split = load(config).train
        images, labels = split.images, split.labels
    found, expected = describe(images, labels), manifest["images"]
    if found != expected | {"pixels_sha256": found["pixels_sha256"]}:
        raise ValueError(
            f"The images of {data_dir or folder} are not those that the step was exported for: "
            f"there are {found['count']} of shape {found['shape']} where the run has "
            f"{expected['count']} of shape {expected['shape']}, or their labels differ."
        )
    if found != expected:
        print("The pixels differ a little from those of the export: another JPEG decoder.")
    return images, labels


def epoch_draws(manifest: dict, epoch: int) -> draws.EpochDraws:
    """Order and augmentation of an epoch.

    Args:
        manifest: What `read_manifest` returned.
        epoch: Its index, from 0.

    Returns:
        The draws, each of shape `(steps, batch)`.
    """
    config, images = manifest["config"], manifest["images"]
    return draws.epoch_draws(
        config["seed"],
        epoch,
        images=images["count"],
        batch_size=config["batch_size"],
        augment=config["augment"],
        pad=draws.crop_pad(images["shape"][0]),
    )


def add_arguments(parser: argparse.ArgumentParser):
    """Adds what every command on an exported step takes: its folder, and where the images are.

    Args:
        parser: Command line to add to.
    """
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="what export_step wrote")
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="official archive, or the JPEG copy's archive or folder; default OUT_DIR/images.npz",
    )
