"""The folder of an exported run: its four files, and the images and draws of the run.

No TensorFlow. `CONVENTIONS` is the description of the format for other runtimes.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dml_tf import data
from dml_tf.data import Split, draws
from dml_tf.data.pictures import resize
from dml_tf.data.sources import jpeg_copy
from dml_tf.data.splits import Source, choose
from dml_tf.data.stored import blocks
from dml_tf.errors import FlagError
from dml_tf.export.checked import MOST_PROGRAM, check_manifest, check_progress
from dml_tf.runs import files
from dml_tf.runs.config import Config, Schedule

PROGRAM = "step.mlir"
IMAGES = "images.npz"
STATE = "state.npz"
MANIFEST = "manifest.json"
NOT_FINITE = "not_finite.txt"  # why a run stopped for good: its loss was no number

# Where an operation comes from, in the text of a program.
_NOTES = re.compile(r'^#loc.*\n| loc\((?:[^()"]|"[^"]*"|\([^()]*\))*\)', re.MULTILINE)
_NAMES = re.compile(r"%\w+")
# It changes when what reads the folder must change. Version 0.2 wrote format 1 without a number.
FORMAT = 1
# Written into the manifest: how to use the program without this package.
CONVENTIONS = {
    "program": "step.mlir is StableHLO: main(images, labels, *variables) does one training step of "
    "all peers. It returns the new values of the variables that are `updated`, in their order. "
    "images: (batch, height, width, channels), float32, normalised. labels: (batch,), int64, -1 "
    "where unlabelled.",
    "state": "state.npz holds the values of the variables as variable0, variable1, ..., in the "
    "program's order, and the progress of the run as JSON in `state`.",
    "learning_rate": "Epochs count from 0. Before the first step of epoch e, set each variable at "
    "`learning_rate.places` to `learning_rate.by_epoch[e]`.",
    "metrics": "Name: places of its total and its count among the variables. Set both to 0 before "
    "each epoch. The metric is total / count.",
    "order": "For n images in epoch e, w is the first 2 n 64-bit words of Philox4x64-10 with key "
    "(seed, e) and counters 1, 2, .... Sort w[0] to w[n - 1] in ascending order: image i takes the "
    "place of w[i]. Cut the epoch into `steps_per_epoch` batches; do not use the rest.",
    "augmentation": "v = w[n + i] and s = 2 pad + 1, with pad = ceil(height / 8). For crop_flip, "
    "pad image i by reflection, without repeating the edge, and cut it from row v mod s and column "
    "floor(v / s) mod s. For flip and crop_flip, then mirror it left to right if v >= 2^63.",
    "normalisation": "A pixel's level x of 0 to 255 becomes x * (1 / (255 std)) - mean / std, in "
    "float32, with the `mean` and `std` of its channel from `images`.",
}


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported run: what its manifest says, and its files.

    Attributes:
        folder: Where `step.mlir`, `images.npz`, `state.npz` and `manifest.json` are.
        manifest: What to know about the run and its program:
            `conventions`: how to use the files, in words.
            `run_id`, `command`, `config`, `data_dir`, `results_dir`: the run.
            `steps`, `epochs`, `steps_per_epoch`: its length.
            `images`: `count`, `shape` of one, hashes of labels and pixels, `mean` and `std`.
            `variables`: `name`, `shape`, `dtype`, `updated` of each, in the program's order.
            `learning_rate`: its `places` among the variables, its values `by_epoch`.
            `metrics`: name -> places of its total and its count.
            `versions`: of the packages that exported it.
        config: The run's settings.
    """

    folder: Path
    manifest: dict
    config: Config

    @classmethod
    def read(cls, folder: Path) -> "Export":
        """Reads the manifest of a folder.

        Args:
            folder: What `python -m dml_tf.export write` wrote.

        Returns:
            The exported run.

        Raises:
            FileNotFoundError: There is no manifest.
            ValueError: The manifest is damaged or of another version.
        """
        file = folder / MANIFEST
        write = f"Write one with `python -m dml_tf.export write --dataset=... --net=... {folder}`."
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} holds no exported step: there is no {MANIFEST}. {write}"
            )
        try:
            manifest = json.loads(file.read_bytes())
            known = {field.name for field in dataclasses.fields(Config)}
            readable = manifest.get("format", 1) == FORMAT and manifest["config"].keys() <= known
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            readable = False
        if not readable:
            raise ValueError(
                f"{file} is damaged, or of another format than {FORMAT}, which this version of "
                f"dml_tf.export reads. {write}"
            )
        try:
            config = _config(manifest)
            check_manifest(manifest, config)
            if manifest.get("digest", _digest(manifest)) != _digest(manifest):
                raise ValueError("it has changed since it was written")
        except FlagError:
            raise
        except Exception as error:  # settings of other types make `Config` raise many types
            raise ValueError(f"{file} is damaged ({error}). {write}") from error
        return cls(folder, manifest, config)

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.manifest["run_id"]

    @property
    def schedule(self) -> Schedule:
        """Length of the run."""
        return self.config.schedule(self.manifest["images"]["count"])

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Context that holds the folder; `BlockingIOError` while another process holds it."""
        busy = f"Another process uses {self.folder}. Wait until it ends, or use another folder."
        return files.hold(self.folder / ".lock", BlockingIOError(busy))

    def read_state(self) -> tuple[dict, list]:
        """Reads how far the run is.

        Returns:
            The progress, and the values of the variables in the program's order.

        Raises:
            FileNotFoundError: There is no state.
            ValueError: The state is damaged, or of another step.
        """
        file = self.folder / STATE
        if not file.is_file():
            raise FileNotFoundError(f"There is no {file}: copy it too, or export the step again.")
        progress, arrays = files.load_state(file)
        try:
            check_progress(progress, self.config, self.manifest["images"]["count"])
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}): export the step again.") from error
        expected = [(tuple(v["shape"]), v["dtype"]) for v in self.manifest["variables"]]
        found = [(array.shape, array.dtype.name) for array in arrays]
        if progress.get("config") != self.manifest["config"] or found != expected:
            raise ValueError(
                f"{file} and the {MANIFEST} beside it belong to different steps: export again."
            )
        return progress, arrays

    def save_state(self, progress: dict, arrays: Sequence[np.ndarray]):
        """Writes what `read_state` returns, whole or not at all."""
        files.save_state(self.folder / STATE, progress, arrays)

    def training_set(self, data_dir: Path | None = None) -> Split:
        """The training images that the run's settings choose.

        Args:
            data_dir: Official archive, or the JPEG copy's archive or folder. Default: the images
                of the export.

        Returns:
            Pixels, shape `(images, height, width, channels)`, uint8, and labels, shape
            `(images,)`, int64.

        Raises:
            FileNotFoundError: There are none.
            ValueError: They are not the run's, or a file is damaged.
        """
        if data_dir is not None:
            train = self._published_images(data_dir)
            self.refuse_others(train, data_dir)
            return train
        train = self._own_images()
        self.refuse_others(train, self.folder)
        if describe(train)["pixels_sha256"] != self.manifest["images"]["pixels_sha256"]:
            raise ValueError(
                f"{self.folder / IMAGES} is damaged (its pixels have changed since they were "
                "written): export the step again."
            )
        return train

    def read_program(self) -> str:
        """The text of the program; ValueError if it has changed since it was written."""
        file = self.folder / PROGRAM
        if file.stat().st_size > MOST_PROGRAM:
            raise ValueError(f"{file} is damaged (it is too large): export the step again.")
        content = file.read_bytes()
        kept = self.manifest.get("program_sha256")  # version 0.3 wrote none
        if kept and kept != hashlib.sha256(content).hexdigest():
            raise ValueError(
                f"{file} is damaged (it has changed since it was written): export the step again."
            )
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is damaged ({error}): export the step again.") from error

    def has_step_of(self, other: "Export") -> bool:
        """Whether the programs do the same.

        Names and notes do not count. Two exports of one run may differ in the order of their
        operations, too; so with equal settings but for the seed, the operations are compared.
        """
        mine, theirs = (_body(export.read_program()) for export in (self, other))
        if mine == theirs:
            return True
        settings = [export.manifest["config"] | {"seed": 0} for export in (self, other)]
        operations = [sorted(_NAMES.sub("%", text).splitlines()) for text in (mine, theirs)]
        return settings[0] == settings[1] and operations[0] == operations[1]

    def refuse_others(self, train: Split, place: Path | str):
        """Refuses training images of another number, shape or labels than those of the export.

        Pixels are not compared: JPEG decoders differ a little.
        """
        found, expected = describe(train), self.manifest["images"]
        if any(found[key] != expected[key] for key in ("count", "shape", "labels_sha256")):
            raise ValueError(
                f"The training images of {place} are not those of the exported run. There are "
                f"{found['count']} of shape {found['shape']} where the run has "
                f"{expected['count']} of shape {expected['shape']}, or their labels differ. Give "
                "the same data with --data_dir."
            )

    def epoch_draws(self, epoch: int) -> draws.EpochDraws:
        """Order and augmentation of an epoch, counted from 0; each of shape `(steps, batch)`."""
        images = self.manifest["images"]
        return draws.epoch_draws(
            self.config.seed,
            epoch,
            images=images["count"],
            batch_size=self.config.batch_size,
            augment=self.config.augment,
            pad=draws.crop_pad(images["shape"][0]),
        )

    def _own_images(self) -> Split:
        file = self.folder / IMAGES
        if not file.exists():
            raise FileNotFoundError(
                f"There is no {file}: copy it from where the step was exported, or add "
                "--data_dir=PLACE with the official archive or the JPEG copy."
            )
        saved = files.read_arrays(file)
        images, labels = (saved.get(name, np.zeros(0)) for name in ("images", "labels"))
        is_set = images.ndim == 4 and labels.shape == images.shape[:1]
        if not is_set or (images.dtype, labels.dtype) != (np.uint8, np.int64):
            raise ValueError(f"{file} is damaged (it holds no images): export the step again.")
        return Split(images, labels)

    def _published_images(self, data_dir: Path) -> Split:
        config = self.config.replace(data_dir=str(data_dir))
        try:
            if config.dataset == "cifar10" and jpeg_copy.is_jpeg_copy(data_dir):
                train, _ = choose(_photographs(data_dir), config)
                return Split(resize(train.images, config.image_size), train.labels)
            return data.load(config).train.in_memory
        except ImportError as error:
            raise ValueError(
                f"Reading {config.dataset} at this size from {data_dir} takes {error.name}, which "
                f"is not installed. Copy {IMAGES} from where the step was exported and leave "
                "--data_dir out."
            ) from error


@functools.lru_cache(1)
def _photographs(place: Path) -> Source:
    """The JPEG copy, which several runs that train together take their images from."""
    return jpeg_copy.load_jpeg_copy(place)


def _body(program: str) -> str:
    return _NOTES.sub("", program).partition("module @")[2].partition(" ")[2]


def describe(train: Split) -> dict:
    """What distinguishes one training set from another."""
    pixels = hashlib.sha256()
    for block in blocks(train.images):
        pixels.update(block.tobytes())
    return {
        "count": len(train),
        "shape": list(train.images.shape[1:]),
        "labels_sha256": hashlib.sha256(train.labels.tobytes()).hexdigest(),
        "pixels_sha256": pixels.hexdigest(),
    }


def with_digest(manifest: dict) -> dict:
    """A manifest that says what its own hash is, so that a change is noticed."""
    return manifest | {"digest": _digest(manifest)}


def _digest(manifest: dict) -> str:
    others = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _config(manifest: dict) -> Config:
    places = {name: manifest[name] for name in ("data_dir", "results_dir")}
    settings = manifest["config"] | places
    # JSON has lists where a config has tuples.
    return Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
