"""Finds a finished run by its name, and shows pictures to its networks as in training."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dml_tf import home
from dml_tf.data import REID_DATASETS, STREAMED_DATASETS, Splits
from dml_tf.data.pictures import read_rgb, read_square
from dml_tf.data.stored import Pictures
from dml_tf.errors import FlagError, RecordMismatch, RunFailed
from dml_tf.runs import records
from dml_tf.runs.config import FIELDS, Config
from dml_tf.runs.files import RunFiles, record_beside

if TYPE_CHECKING:
    from dml_tf.method.cohort import Cohort

_LISTED = 10  # runs that a message names


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        record: What it left, as `results.make_record` makes it.
        files: Where its files are.
    """

    record: dict
    files: RunFiles

    @property
    def is_reid(self) -> bool:
        """Whether its networks are for re-identification."""
        return self.record["config"]["dataset"] in REID_DATASETS

    def load(self) -> "Cohort":
        """The trained cohort; `RunFailed` if its weights are gone."""
        if not self.files.model.exists():
            raise RunFailed(
                f"the weights of {self.files.run_id} are not in {self.files.model}. Train them "
                f"again: {self.record['command']} --overwrite"
            )
        from dml_tf.method.cohort import Cohort  # noqa: F401  Keras must know it
        from dml_tf.networks import trusted

        records.refuse_altered(self.files.model)
        return trusted.load_model(self.files.model)

    def load_data(self, data_dir: str = "") -> Splits:
        """The data that it was trained on.

        Args:
            data_dir: Where they are, as for training.

        Raises:
            RunFailed: They are refused.
            RecordMismatch: They are others.
        """
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.record["config"].items()
            if name in FIELDS
        }
        place = {"data_dir": data_dir, "results_dir": str(self.files.folder)}
        from dml_tf.runs import build

        config = Config(**settings | place)
        splits = build.load_data(config)
        records.refuse_other_data(self.record, config, self.files.record, splits)
        return splits

    def read(self, paths: Sequence[Path]) -> np.ndarray:
        """Pictures as the run's networks take them: pixels from 0 to 255.

        Returns:
            Shape `(pictures, height, width, channels)`, uint8.

        Raises:
            ValueError: Some pictures cannot be read; the message names them all.
        """
        return read_pictures(
            paths,
            self.record["input"]["shape"],
            central=self.record["config"]["dataset"] in STREAMED_DATASETS,
        )

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels as the run's networks were trained on them, float32."""
        mean, std = (np.array(self.record["input"][name]) for name in ("mean", "std"))
        return ((pixels / 255 - mean) / std).astype(np.float32)


def read_pictures(paths: Sequence[Path], shape: Sequence[int], central: bool = False) -> np.ndarray:
    """Pictures resized to `shape` (height, width, channels), of which one channel is grey."""
    pixels, unreadable = [], []
    for path in paths:
        try:
            pixels.append(_read(path, shape, central))
        except ValueError as error:
            unreadable.append(str(error))
    if unreadable:
        raise ValueError("\n  ".join(unreadable))
    return np.stack(pixels)


def _read(path: Path, shape: Sequence[int], central: bool) -> np.ndarray:
    height, width, channels = shape
    if central:
        pixels = Pictures.of_files([path], height).central(0)
    elif height == width:
        pixels = read_square(path, height)
    else:
        import tensorflow as tf

        resized = tf.image.resize(read_rgb(path), (height, width), antialias=True)
        pixels = np.rint(resized.numpy()).astype(np.uint8)
    if channels == 1:
        return np.rint(pixels.mean(axis=-1, keepdims=True)).astype(np.uint8)
    return pixels


def place_of(results_dir: str = "") -> Path:
    """Where runs are looked for: a results folder, or the one of all of them."""
    return Path(results_dir).expanduser() if results_dir else home.HOME / "results"


def record_files(results_dir: str = "") -> list[Path]:
    """The records of a results folder, or of every one under `results/`."""
    pattern = "runs/[!.]*.json" if results_dir else "**/runs/[!.]*.json"
    return sorted(place_of(results_dir).glob(pattern))


def is_named(name: str, folder: Path, run_id: str, results_dir: str = "") -> bool:
    """Whether a run's name, or that of its folder below the place of search, has a text in it."""
    return name in str(folder.relative_to(place_of(results_dir)) / run_id)


def find(name: str, results_dir: str = "") -> Trained:
    """A finished run.

    Args:
        name: Its record, its `.keras` file, its id, or a part of the id or of its folder's name. Of
            several such runs, the only one whose weights are there is taken.
        results_dir: Results folder to look in. Default: all under `results/`.

    Raises:
        FlagError: There is no such run, or there are several.
        RecordMismatch: Its record is damaged.
    """
    path = Path(name).expanduser()
    if path.suffix == ".keras" and (beside := finished_record(path)):
        return _trained(beside)
    if path.suffix == ".json" and path.is_file():
        return _trained(path)
    found = record_files(results_dir)
    exact = [file for file in found if file.stem == name]
    matching = exact or [f for f in found if is_named(name, f.parents[1], f.stem, results_dir)]
    usable = [f for f in matching if RunFiles(f.parents[1], f.stem).model.exists()]
    for files in (matching, usable):
        if len(files) == 1:
            return _trained(files[0])
    if not matching:
        where = place_of(results_dir)
        raise FlagError(f"there is no run {name} in {where}. `dml_tf runs` lists the runs.")
    matching = usable or matching
    more = ", ..." if len(matching) > _LISTED else ""
    raise FlagError(
        f"{name} is in the names of {len(matching)} runs; give one: "
        f"{', '.join(map(str, matching[:_LISTED]))}{more}"
    )


def finished_record(weights: Path) -> Path | None:
    """The record of a run's `models/<run id>.keras`, if there is one."""
    record = record_beside(weights.absolute())
    return record if weights.absolute().parent.name == "models" and record.is_file() else None


def expand(names: Sequence[str]) -> Iterator[Path]:
    """The pictures that files, folders and patterns such as `pictures/*.jpg` name, each once."""
    from dml_tf.data.pictures import readable_suffixes

    for name in dict.fromkeys(names):
        path = Path(name).expanduser()
        if path.is_dir():
            pictures = [
                file
                for file in sorted(path.rglob("*"))
                if file.is_file()
                and not file.name.startswith(".")  # as in training
                and file.suffix.lower() in readable_suffixes()
            ]
        elif path.exists():
            pictures = [path]
        else:
            found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
            pictures = sorted(file for file in found if file.is_file())
        if not pictures:
            raise FileNotFoundError(f"{name}: there are no pictures of this name.")
        yield from pictures


def _trained(record: Path) -> Trained:
    found = records.read_whole(record)
    if "run_id" not in found:
        raise RecordMismatch(f"{record} is not a run's record.")
    return Trained(found, RunFiles(record.absolute().parents[1], found["run_id"]))
