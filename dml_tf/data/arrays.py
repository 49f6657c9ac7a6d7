"""NumPy's `.npz` files, read without pickles and within bounds."""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

_MOST_MEMBERS = 100_000
_MOST_BYTES = 64 << 30  # of one file's arrays
_LONGEST_HEADER = 10_000


def read_npz(
    source: Path | BinaryIO, wanted: Collection[str] = (), optional: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Name -> array of a `.npz` file; no array is larger than what the file holds of it.

    Args:
        source: The file, or an open one.
        wanted: Arrays that the file must have; others are not read. Default: all that it has.
        optional: Further arrays, which it may have.

    Returns:
        The arrays.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged, lacks an array, or holds anything but arrays of plain types.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            names = _names(archive)
            missing = [name for name in wanted if name not in names]
            if missing:
                raise ValueError(f"without {', '.join(missing)}")
            chosen = [n for n in names if not wanted or n in wanted or n in optional]
            return {name: _array(archive, names[name]) for name in chosen}
    except (OSError, ValueError):
        raise
    except MemoryError as error:
        raise ValueError("larger than the memory") from error
    except Exception as error:  # damaged archives make zipfile and NumPy raise many types
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _names(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = archive.infolist()
    names = {member.filename.removesuffix(".npy"): member for member in members}
    if len(members) > _MOST_MEMBERS or len(names) < len(members):
        raise ValueError("too many members, or one name twice")
    if sum(member.file_size for member in members) > _MOST_BYTES:
        raise ValueError(f"arrays of more than {_MOST_BYTES >> 30} GiB")
    for member in members:
        if member.flag_bits & 1:
            raise ValueError(f"{member.filename} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} is packed in an unknown way")
        most = 2000 if member.compress_type == zipfile.ZIP_DEFLATED else 1
        if member.file_size > most * max(member.compress_size, 1):
            raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes")
    return names


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(stream, max_header_size=_LONGEST_HEADER)
        if dtype.hasobject or dtype.names or dtype.subdtype:
            raise ValueError(f"{member.filename} has type {dtype}, no plain one")
        count = math.prod(shape)
        held = member.file_size - stream.tell()
        if any(side < 0 for side in shape) or count * dtype.itemsize != held:
            raise ValueError(f"{member.filename} has shape {shape}, {dtype}, but {held} bytes")
        values = _read_into(np.empty(held, np.uint8), stream).view(dtype)
        return values.reshape(shape, order="F" if in_columns else "C")


def _read_into(content: np.ndarray, stream: BinaryIO) -> np.ndarray:
    filled = 0
    while filled < len(content):
        count = stream.readinto(memoryview(content)[filled:])
        if not count:
            raise ValueError("it ends early")
        filled += count
    stream.read(1)  # at the end the checksum is compared
    return content
