"""Files of published archives, extracted or still packed, read without running what they hold."""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# The functions that NumPy's own pickles name, in modules of older and newer versions of NumPy.
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
    """Refuses all functions but NumPy's array constructors, before they are even imported."""

    # A pickle may name any function, and unpickling calls it. `_codecs.encode` is allowed because
    # Python 3 uses it for bytes in old protocols.
    def find_class(self, module: str, name: str) -> object:
        if module in _NUMPY_MODULES and name in _CONSTRUCTORS:
            return _CONSTRUCTORS[name]
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise PermissionError(f"{module}.{name}")


def unpickle_arrays(data: bytes, path: str) -> dict:
    """Read a pickled dictionary of arrays, lists and strings, and nothing else; keys become str."""
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except PermissionError as error:
        raise ValueError(
            f"{path} is refused: its pickle names {error}, which an archive of pictures does not "
            "need. Nothing was run; get the official archive."
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path} cannot be read as a pickle ({error}); get the official archive again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains no dictionary; get the official archive again.")
    return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}


def find_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """Paths of the files that exist, each plain or as `.gz`."""
    both = ((folder / name, folder / f"{name}.gz") for name in names)
    found = (next((path for path in each if path.is_file()), None) for each in both)
    return [path for path in found if path]


def read_folder(folder: Path, names: Sequence[str]) -> Mapping[str, bytes] | None:
    """Content by name of the files that exist, each plain or as `.gz`; None if there is none."""
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
    """Content by name of files in a folder of a `.tar.gz`; None if there is no archive."""
    # Files are read into memory and never extracted, so paths in the archive cannot do harm.
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
