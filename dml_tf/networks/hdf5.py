"""Checks that an HDF5 file holds numbers and nothing else, before Keras reads it.

HDF5 can name other files: by external links, by external storage, and by virtual data sets. It can
also declare arrays that are much larger than the file, where filters unpack them or nothing is
stored (CVE-2026-0897, -1669, -12480).
"""

from pathlib import Path

import h5py

from dml_tf.errors import FileRefused

_MOST_OBJECTS = 200_000
_DEEPEST = 64
_NUMBERS = "biuf"  # kinds of NumPy types


def check(file: Path, name: str) -> int:
    """Refuses a file with anything but groups and plain arrays of numbers.

    Args:
        file: The HDF5 file.
        name: What messages call it.

    Returns:
        Number of elements of all its arrays.

    Raises:
        FileRefused: It is damaged, or has something else; the message says what and where.
    """
    try:
        with h5py.File(file, "r") as opened:
            return _Walk(name).size(opened, "")
    except FileRefused:
        raise
    except Exception as error:  # damaged HDF5 can raise anything
        raise FileRefused(
            f"{name} cannot be read as HDF5 ({_first_line(error)}): it is damaged. Get it again."
        ) from error


class _Walk:
    """One walk through a file; it ends although links may lead in a circle."""

    def __init__(self, name: str):
        self._name = name
        self._seen = set()

    def size(self, group: h5py.Group, path: str, depth: int = 0) -> int:
        if depth > _DEEPEST:
            self._refuse(path, f"is more than {_DEEPEST} groups deep")
        total = 0
        for key in group:
            inner = f"{path}/{key}"
            found = self._follow(group, key, inner)
            if isinstance(found, h5py.Group):
                total += self.size(found, inner, depth + 1)
            else:
                total += self._array(found, inner)
        return total

    def _follow(self, group: h5py.Group, key: str, path: str) -> h5py.HLObject:
        link = group.get(key, getlink=True)
        if type(link) is not h5py.HardLink:
            self._refuse(path, f"is a link to another place or file ({type(link).__name__})")
        found = group[key]
        if not isinstance(found, (h5py.Group, h5py.Dataset)):
            self._refuse(path, f"is neither a group nor an array ({type(found).__name__})")
        info = h5py.h5o.get_info(found.id)
        if info.addr in self._seen:
            self._refuse(path, "stands in the file a second time, under another name")
        self._seen.add(info.addr)
        if len(self._seen) > _MOST_OBJECTS:
            self._refuse(path, f"is one of more than {_MOST_OBJECTS} groups and arrays")
        return found

    def _array(self, array: h5py.Dataset, path: str) -> int:
        if array.external:
            self._refuse(path, "keeps its numbers in another file (external storage)")
        if array.is_virtual:
            self._refuse(path, "is put together from other files (a virtual data set)")
        if array.dtype.kind not in _NUMBERS or array.dtype.hasobject:
            self._refuse(path, f"is of type {array.dtype}, not of numbers")
        if array.id.get_create_plist().get_nfilters():
            self._refuse(path, "is compressed, which Keras's own files are not")
        if array.shape is None or array.id.get_storage_size() != array.nbytes:
            self._refuse(path, f"declares the shape {array.shape}, but stores less than that")
        return array.size

    def _refuse(self, path: str, what: str):
        raise FileRefused(
            f"{self._name} is refused: in it, {path[:200]!r} {what}. Use weights as Keras writes "
            "them."
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
