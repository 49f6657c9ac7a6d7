"""Files of published archives, extracted or still packed, read without running what they hold."""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# What NumPy's own pickles call: made for every NumPy that wrote one, under its old and new names.
_CONSTRUCTORS = {
    "_reconstruct": np.zeros(1).__reduce__()[0],
    "_frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    "scalar": np.uint8(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_MODULES += ("numpy.core.numeric", "numpy._core.numeric")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if module in _NUMPY_MODULES and name in _CONSTRUCTORS:
            return _CONSTRUCTORS[name]
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise PermissionError(f"{module}.{name}")


def unpickle_arrays(data: bytes, path: str) -> dict:
    """Read a pickled dictionary of arrays, lists and strings, and nothing else.

    A pickle may name any function and have it called. Here the names are limited to NumPy's array
    constructors and `_codecs.encode`, which Python 3 uses for the bytes of old protocols; any
    other name ends the reading before the function behind it is even imported.

    Args:
        data: The pickle, written by Python 2 or 3.
        path: Where it came from, for error messages.

    Returns:
        The dictionary, its keys as str.

    Raises:
        ValueError: The pickle names another global, or cannot be read.

    Example:
        >>> unpickle_arrays(pickle.dumps({b"labels": [3, 1]}), "batch")
        {'labels': [3, 1]}
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except PermissionError as error:
        raise ValueError(
            f"{path} is refused: its pickle names {error}, which an archive of pictures does not "
            "need. Nothing of it was run; get the official archive."
        ) from None
    except Exception as error:  # A damaged pickle can raise anything.
        raise ValueError(
            f"{path} cannot be read as a pickle ({error}); get the official archive again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no dictionary; get the official archive again.")
    return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}


def read_folder(folder: Path, names: Sequence[str]) -> Mapping[str, bytes] | None:
    """Read files from a folder, each plain or with `.gz` behind its name.

    Args:
        folder: Where to look.
        names: File names.

    Returns:
        Content by name, of those that are there; None where none is.

    Raises:
        ValueError: A `.gz` file is damaged.
    """
    content = {}
    for name in names:
        plain, packed = folder / name, folder / f"{name}.gz"
        if plain.is_file():
            content[name] = plain.read_bytes()
        elif packed.is_file():
            try:
                content[name] = gzip.decompress(packed.read_bytes())
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(packed, error) from error
    return content or None


def read_tar(archive: Path, folder: str, names: Sequence[str]) -> Mapping[str, bytes] | None:
    """Read files from a `.tar.gz`, into memory alone: nothing is extracted, whatever its paths.

    Args:
        archive: The packed archive.
        folder: The folder that holds the files in the archive.
        names: File names.

    Returns:
        Content by name, of those that are there; None where there is no archive.

    Raises:
        ValueError: The archive is damaged.
    """
    if not archive.is_file():
        return None
    content = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                parent, _, name = member.name.removeprefix("./").rpartition("/")
                if parent == folder and name in names and member.isfile():
                    content[name] = members.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _damaged(archive, error) from error
    return content


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); get the official archive again.")
