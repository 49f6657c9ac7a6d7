"""The files of a run: their paths, its state in one file, and its lock.

NumPy only, so that a machine without TensorFlow can resume a run and hand it back.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dml_tf.atomic import write_whole
from dml_tf.data.arrays import read_npz

STATE, PREVIOUS = "state.npz", "previous.npz"  # in the folder of a checkpoint
_SUM = "variables_sha256"  # in a state
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The paths of one run, made once from its config.

    Attributes:
        folder: Results folder.
        run_id: The run's name.
    """

    folder: Path
    run_id: str

    @classmethod
    def of(cls, config) -> "RunFiles":
        """The paths of the run of a `Config`."""
        return cls(Path(config.results_dir).expanduser(), config.run_id)

    @property
    def record(self) -> Path:
        """What was measured: `runs/<run_id>.json`."""
        return self.folder / "runs" / f"{self.run_id}.json"

    @property
    def model(self) -> Path:
        """The trained cohort: `models/<run_id>.keras`."""
        return self.weights(self.run_id)

    @property
    def rehearsal(self) -> Path:
        """What a rehearsal measured: `rehearsals/<run_id>.json`."""
        return self.folder / "rehearsals" / f"{self.run_id}.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's summaries."""
        return self.folder / "tensorboard" / self.run_id

    @property
    def log(self) -> Path:
        """What the run prints when a worker of `run_all.sh` trains it."""
        return self.folder / "logs" / f"{self.run_id}.log"

    def checkpoint(self, process: str = "") -> Path:
        """Folder of the unfinished run's state, one for each process that trains it."""
        return self.folder / "checkpoints" / (self.run_id + process)

    def lock(self, process: str = "") -> Path:
        """Lock file against a second process at the same run."""
        return self.folder / "locks" / (self.run_id + process)

    def weights(self, source: str) -> Path:
        """Weights that a flag names: a `.keras` or `.h5` file, or a run of the results folder."""
        if source.endswith((".keras", ".h5")):
            return Path(source).expanduser()
        return self.folder / "models" / f"{source}.keras"


def named_weights(config) -> list[Path]:
    """Files with trained weights that a run's flags name."""
    files = RunFiles.of(config)
    named = [source for source in (config.teacher, config.pretrained) if source]
    return [files.weights(source) for source in named if source != "imagenet"]


def needed_weights(config) -> list[Path]:
    """Files with trained weights that a run starts from or learns from."""
    needed = named_weights(config)
    if config.method == "distill" and not config.teacher:
        needed.append(RunFiles.of(config.default_teacher).model)
    return needed


def record_beside(weights: Path) -> Path:
    """The record of the run that left these weights, if they lie in a results folder."""
    return weights.parent.parent / "runs" / f"{weights.stem}.json"


def save_state(file: Path, progress: dict, arrays: Sequence[np.ndarray]):
    """Writes the state of an unfinished run.

    Args:
        file: Where to write, ending in `.npz`.
        progress: How far the run came; JSON's types.
        arrays: Values of the run's variables, in their fixed order.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "state.npz"
        >>> save_state(file, {"epoch": 3}, [np.zeros(2)])
        >>> load_state(file)
        ({'epoch': 3}, [array([0., 0.])])
    """
    with write_whole(file) as part, part.open("wb") as stream:
        _write(stream, progress, arrays)


def state_to_bytes(progress: dict, arrays: Sequence[np.ndarray]) -> bytes:
    """A state as bytes, to send to another process; see `save_state`."""
    stream = io.BytesIO()
    _write(stream, progress, arrays)
    return stream.getvalue()


def state_from_bytes(data: bytes) -> tuple[dict, list[np.ndarray]]:
    """Progress and variables from what `state_to_bytes` made."""
    return _parts(read_npz(io.BytesIO(data)))


def load_state(file: Path) -> tuple[dict, list[np.ndarray]]:
    """Progress and variables that `save_state` wrote; ValueError if the file is damaged."""
    saved = read_arrays(file)
    try:
        return _parts(saved)
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} holds no state of a run ({error}); move it away.") from None


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Name -> array of a `.npz` file; ValueError if it is damaged."""
    try:
        return read_npz(file)
    except Exception as error:  # a damaged file can raise anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # it cannot be read; a place outside the file is EINVAL
        raise ValueError(
            f"{file} is damaged ({error}). Bring it again from where it was written, or move it "
            "away and start again."
        ) from error


@contextlib.contextmanager
def hold(file: Path, busy: Exception | None) -> Iterator[None]:
    """Context that holds a lock; the system releases the lock of a dead process.

    Where the disk has no locks, or cannot be written, there is none. Two processes may then do
    the same work, and each file is that of one of them, whole.

    Args:
        file: Lock file; it and its folder are made.
        busy: What to raise while another process holds it; None waits.
    """
    with contextlib.ExitStack() as opened:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stream = opened.enter_context(file.open("w"))
            fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise busy from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


def refuse_read_only(folder: Path):
    """Raises `OSError` if nothing can be written into a folder, before hours are spent on it."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise OSError(errno.EROFS, "It cannot be written", str(folder))


def _write(stream: BinaryIO, progress: dict, arrays: Sequence[np.ndarray]):
    arrays = [np.asarray(array) for array in arrays]
    named = {f"variable{i}": array for i, array in enumerate(arrays)}
    np.savez(stream, state=json.dumps({**progress, _SUM: _checksum(arrays)}), **named)


def _parts(saved: dict[str, np.ndarray]) -> tuple[dict, list[np.ndarray]]:
    progress = json.loads(str(saved["state"]))
    if not isinstance(progress, dict):
        raise ValueError("its progress is no dictionary")
    arrays = [saved[f"variable{i}"] for i in range(len(saved) - 1)]
    kept = progress.pop(_SUM, None)  # an old file has none
    if kept not in (None, _checksum(arrays)):
        raise ValueError("its variables do not have the checksum that stands in it")
    return progress, arrays


def _checksum(arrays: Sequence[np.ndarray]) -> str:
    """A hash of the values; each variable of a zip file has one of its own, their number has none.

    Bytes that are lost from its list of variables would go unnoticed.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
