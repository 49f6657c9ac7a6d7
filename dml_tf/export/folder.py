"""An exported training step on disk, and the images and draws of its run. No TensorFlow.

`dml_tf.export_step` writes the folder, `dml_tf.run_step` trains with it where JAX is, and
`dml_tf.import_weights` takes the result back.
"""

import argparse
import contextlib
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dml_tf.data import draws, load
from dml_tf.data.pictures import resize
from dml_tf.data.sources import jpeg_copy
from dml_tf.data.splits import choose
from dml_tf.runs import files

PROGRAM = "step.mlir"
IMAGES = "images.npz"
STATE = "state.npz"
MANIFEST = "manifest.json"

# For the manifest: all that one must know to run the program without this package.
CONVENTIONS = {
    "program": "step.mlir, StableHLO: main(images, labels, *variables) returns the new values of "
    "the variables that are `updated`, in their order. images: (batch, height, width, channels), "
    "float32, normalised; labels: (batch,), int64, -1 where unlabelled.",
    "learning_rate": "Before the steps of epoch e, from 0, each variable at `learning_rate.places` "
    "is set to `learning_rate.by_epoch[e]`.",
    "metrics": "Name: places of its total and its count, both set to 0 before an epoch. The metric "
    "is total / count.",
    "order": "w is the first 2 n 64-bit words of Philox4x64-10 with key (seed, e) and counters 1, "
    "2, ..., for n images in epoch e. Image i stands where w[i] stands in the ascending order of "
    "w[0] to w[n - 1]. The epoch is cut into `steps_per_epoch` batches; the rest is left out.",
    "augmentation": "v = w[n + i] and s = 2 pad + 1, with pad = ceil(height / 8). For crop_flip, "
    "image i is padded by reflection, without repeating the edge, and cut from row v mod s and "
    "column floor(v / s) mod s on. For flip and crop_flip it is then mirrored left to right where "
    "v >= 2^63.",
    "normalisation": "A pixel's level x of 0 to 255 becomes x * (1 / (255 std)) - mean / std, in "
    "float32, with its channel's `mean` and `std` from `images`.",
}


def write_manifest(folder: Path, manifest: dict):
    """Writes the manifest, the last file of an export: without it a folder holds no step.

    Args:
        folder: Where the step goes.
        manifest: What `read_manifest` returns.
    """
    text = json.dumps(manifest, indent=1, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict:
    """Reads what is known of an exported step.

    Args:
        folder: What `dml_tf.export_step` wrote.

    Returns:
        `conventions`: how to use all this, in words.
        `run_id`, `command`, `config`, `data_dir`, `results_dir`: the run and its places.
        `images`: `describe`'s result for the training images, and their `mean` and `std`.
        `steps` of the whole run and `steps_per_epoch`.
        `variables`: `name`, `shape`, `dtype` and `updated` of each, in the program's order.
        `learning_rate`: its `places` among the variables and its values `by_epoch`.
        `metrics`: name -> where its total and its count are among the variables.
        `versions` of what wrote it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not an export's.
    """
    file = folder / MANIFEST
    make_one = f"Make one with `python -m dml_tf.export_step --dataset=... --net=... {folder}`."
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no exported step: there is no {MANIFEST}. {make_one}"
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["conventions"] == CONVENTIONS:
            return manifest
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{file} was not written by this version of export_step. {make_one}")


def read_state(folder: Path, manifest: dict) -> tuple[dict, list[np.ndarray]]:
    """Reads how far a run came.

    Args:
        folder: What `dml_tf.export_step` wrote.
        manifest: What `read_manifest` returned.

    Returns:
        The progress and the variables' values, in the program's order.

    Raises:
        FileNotFoundError: There is no state.
        ValueError: It is damaged, or another step's.
    """
    file = folder / STATE
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}: bring it too, or export the step again.")
    progress, arrays = files.load_state(file)
    expected = [(tuple(v["shape"]), v["dtype"]) for v in manifest["variables"]]
    found = [(array.shape, array.dtype.name) for array in arrays]
    if progress.get("config") != manifest["config"] or found != expected:
        raise ValueError(f"{file} belongs to another step than {MANIFEST} beside it: export again.")
    return progress, arrays


def hold(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Holds a folder against a second process that would write to it.

    Args:
        folder: What `dml_tf.export_step` wrote, or will.

    Returns:
        A context manager; entering it raises `BlockingIOError` while another process is inside.
    """
    busy = f"Another process is at {folder}. Wait for it, or use another folder."
    return files.hold(folder / ".lock", BlockingIOError(busy))


def exists(folder: Path) -> bool:
    """Whether a folder holds an exported step."""
    return (folder / MANIFEST).is_file()


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
    if data_dir is None:
        file = folder / IMAGES
        if not file.exists():
            raise FileNotFoundError(
                f"There is no {file}: bring it from where the step was exported, or add "
                "--data_dir=PLACE with the official archive or the JPEG copy."
            )
        saved = files.read_arrays(file)
        images, labels = saved["images"], saved["labels"]
    else:
        images, labels = _load(manifest["config"], data_dir)
    refuse_others(images, labels, manifest, data_dir or folder)
    return images, labels


def refuse_others(images: np.ndarray, labels: np.ndarray, manifest: dict, place: Path | str):
    """Refuses training images that are not those of an exported step.

    Pixels are not compared: JPEG decoders differ a little.

    Args:
        images: Pixels, shape `(images, height, width, channels)`, uint8.
        labels: Classes, shape `(images,)`, int64.
        manifest: What `read_manifest` returned.
        place: Where they come from, for the message.

    Raises:
        ValueError: Their number, shape or labels, in order, are others.
    """
    found, expected = describe(images, labels), manifest["images"]
    if any(found[key] != expected[key] for key in ("count", "shape", "labels_sha256")):
        raise ValueError(
            f"The training images of {place} are not those that the step was exported for: there "
            f"are {found['count']} of shape {found['shape']} where the run has "
            f"{expected['count']} of shape {expected['shape']}, or their labels differ. Give the "
            "same data with --data_dir."
        )


def _load(settings: dict, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training images that a run's settings choose from published files."""
    config = SimpleNamespace(**settings, data_dir=str(data_dir))
    try:
        if config.dataset == "cifar10" and jpeg_copy.is_jpeg_copy(data_dir):
            split, _ = choose(jpeg_copy.load_jpeg_copy(data_dir), config)
            return resize(split.images, config.image_size), split.labels
        split = load(config).train
    except ImportError as error:
        raise ValueError(
            f"To read {config.dataset} at this size from {data_dir} takes {error.name}. Bring "
            f"{IMAGES} from where the step was exported and leave --data_dir out."
        ) from error
    return split.images, split.labels


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
