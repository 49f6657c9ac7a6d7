"""Files of published archives, extracted or still packed, read without running what they hold."""

import gzip
import io
import lzma
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

_MOST_MEMBERS = 5_000_000
_MOST_OF_ONE = 1 << 30  # bytes of one file in an archive; CIFAR-100's largest has 154 million
_MOST_OF_ALL = 4 << 30
_MOST_MEMO = 10_000_000  # places that a pickle may number; the unpickler makes all up to the last
_NUMBERED = {"PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"}

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

    # A pickle may name any function, and unpickling calls it. `_codecs.encode` stands for what
    # Python 3 uses for bytes in old protocols.
    def find_class(self, module: str, name: str) -> object:
        if module in _NUMPY_MODULES and name in _CONSTRUCTORS:
            return _CONSTRUCTORS[name]
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise PermissionError(f"{module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise PermissionError(f"_codecs.encode with {encoding[:40]!r}")
    return text.encode("latin1")


def unpickle_arrays(data: bytes, path: str) -> dict:
    """Read a pickled dictionary of arrays, lists and strings, and nothing else; keys become str."""
    try:
        _check_numbers(data)
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except PermissionError as error:
        raise ValueError(
            f"{path} is refused: its pickle names {error}, which an archive of pictures does not "
            "need. Nothing was run; get the official archive."
        ) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path} cannot be read as a pickle ({str(error)[:200]}); get the official archive "
            "again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains no dictionary; get the official archive again.")
    return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}


def _check_numbers(data: bytes):
    """Refuses places so large that the unpickler would take all memory to make them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _NUMBERED and int(argument) > _MOST_MEMO:
            raise ValueError(f"it numbers an object {argument}")


def find_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """Paths of the files that exist, each plain or as `.gz`."""
    both = ((folder / name, folder / f"{name}.gz") for name in names)
    found = (next((path for path in each if path.is_file()), None) for each in both)
    return [path for path in found if path]


def read_folder(folder: Path, names: Sequence[str]) -> Mapping[str, bytes] | None:
    """Content by name of the files that exist, each plain or as `.gz`; None if there is none."""
    content = {}
    for path in find_files(folder, names):
        try:
            if path.name in names:
                content[path.name] = path.read_bytes()
            else:
                with gzip.open(path) as packed:
                    content[path.name.removesuffix(".gz")] = _at_most(packed, str(path))
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, error) from error
    return content or None


def read_tar(archive: Path, folder: str, names: Sequence[str]) -> Mapping[str, bytes] | None:
    """Content by name of files in a folder of a `.tar.gz`; None if there is no archive."""
    if not archive.is_file():
        return None
    wanted = {f"{folder}/{name}": name for name in names}
    return {wanted[name]: content for name, content in tar_files(archive, wanted.__contains__)}


def tar_files(
    archive: Path, is_wanted: Callable[[str], bool], mode: str = "r:gz"
) -> Iterator[tuple[str, bytes]]:
    """Name and content of some files of an archive, in its order. Nothing is extracted.

    Raises:
        ValueError: It is damaged, or has a member that leads out, a link, a device, or too much.
    """
    try:
        with tarfile.open(archive, mode) as members:
            for count, member in enumerate(members):
                name = member.name.removeprefix("./")
                _check_member(archive, member, count)
                if member.isfile() and is_wanted(name):
                    yield name, _at_most(members.extractfile(member), f"{archive}/{name}")
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise _damaged(archive, error) from error


def _check_member(archive: Path, member: tarfile.TarInfo, count: int):
    path = PurePosixPath(member.name)
    reason = ""
    if path.is_absolute() or ".." in path.parts:
        reason = "leads out of it"
    elif not (member.isreg() or member.isdir()) or member.issparse():
        reason = "is no plain file: a link, a device or a file with holes"
    elif member.size > _MOST_OF_ONE or member.offset > _MOST_OF_ALL or count > _MOST_MEMBERS:
        reason = "makes it larger than any archive of pictures"
    if reason:
        raise ValueError(
            f"{archive} is refused: its member {member.name[:200]!r} {reason}. Nothing was "
            "extracted; get the official archive."
        )


def _at_most(stream, name: str) -> bytes:
    content = stream.read(_MOST_OF_ONE + 1)
    if len(content) > _MOST_OF_ONE:
        raise ValueError(
            f"{name} is refused: it unpacks to more than {_MOST_OF_ONE >> 20} MiB, which no "
            "official file does; get it again."
        )
    return content


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); get the official archive again.")
