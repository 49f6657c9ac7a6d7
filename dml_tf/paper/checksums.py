"""Checksums of tables and figures, as `sha256sum --check SHA256SUMS` in their folder reads them."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from dml_tf.atomic import write_text

SUMS = "SHA256SUMS"


def altered(folder: Path) -> list[str]:
    """Names of the listed files that are missing, or no longer what was written."""
    return [name for name, kept in _read(folder).items() if _sum(folder / name) != kept]


def drop(folder: Path, files: Iterable[Path]):
    """Takes files off the list before they are written, so that none is taken for altered."""
    kept, names = _read(folder), {file.name for file in files}
    if names & kept.keys():
        _write(folder, {name: value for name, value in kept.items() if name not in names})


def add(folder: Path, files: Iterable[Path]):
    """Lists files that have been written."""
    _write(folder, _read(folder) | {file.name: _sum(file) for file in files})


def _read(folder: Path) -> dict[str, str]:
    file = folder / SUMS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {line[66:]: line[:64] for line in lines if len(line) > 66}


def _write(folder: Path, sums: Mapping[str, str]):
    write_text(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def _sum(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
