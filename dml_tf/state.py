"""The state of an unfinished run in one file: what a step reads and writes, and how far it came.

NumPy only, so that a machine without TensorFlow can go on with a run, and hand it back.
"""

import contextlib
import fcntl
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np


def save(file: Path, progress: dict, arrays: Sequence[np.ndarray]):
    """Writes a state so that at every moment one whole file is on disk.

    Args:
        file: Where to, ending in `.npz`; its folder is made.
        progress: How far the run came; JSON's types.
        arrays: Values of the run's variables, in their fixed order.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "state.npz"
        >>> save(file, {"epoch": 3}, [np.zeros(2)])
        >>> load(file)
        ({'epoch': 3}, [array([0., 0.])])
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".part{os.getpid()}.{file.name}")
    try:
        with part.open("wb") as stream:
            _write(stream, progress, arrays)
            stream.flush()
            os.fsync(stream.fileno())  # else a crash of the machine could leave an empty file
        part.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error  # names the file
    finally:
        part.unlink(missing_ok=True)


def to_bytes(progress: dict, arrays: Sequence[np.ndarray]) -> bytes:
    """A state to send elsewhere.

    Args:
        progress: How far the run came; JSON's types.
        arrays: Values of variables.

    Returns:
        What `from_bytes` reads.
    """
    stream = io.BytesIO()
    _write(stream, progress, arrays)
    return stream.getvalue()


def from_bytes(data: bytes) -> tuple[dict, list[np.ndarray]]:
    """Reads a state that was sent.

    Args:
        data: What `to_bytes` made.

    Returns:
        The progress and the variables' values.
    """
    with np.load(io.BytesIO(data)) as saved:
        return _parts(dict(saved))


def load(file: Path) -> tuple[dict, list[np.ndarray]]:
    """Reads a state.

    Args:
        file: What `save` wrote.

    Returns:
        The progress and the variables' values.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or no state.
    """
    saved = read_arrays(file)
    try:
        return _parts(saved)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} holds no state of a run ({error}); move it away.") from None


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a `.npz` file.

    Args:
        file: Its path.

    Returns:
        Name -> array.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as saved:
            return dict(saved)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}). Bring it again from where it was written, or move it "
            "away and start again."
        ) from error


@contextlib.contextmanager
def hold(file: Path, busy: Exception) -> Iterator[None]:
    """Holds a run against a second process; the system drops the lock of a dead one.

    Args:
        file: Lock file; it and its folder are made.
        busy: What to raise while another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


def _write(stream: BinaryIO, progress: dict, arrays: Sequence[np.ndarray]):
    named = {f"variable{i}": array for i, array in enumerate(arrays)}
    np.savez(stream, state=json.dumps(progress), **named)


def _parts(saved: dict[str, np.ndarray]) -> tuple[dict, list[np.ndarray]]:
    progress = json.loads(str(saved["state"]))
    return progress, [saved[f"variable{i}"] for i in range(len(saved) - 1)]
