"""Checksums of tables and figures, as `sha256sum --check SHA256SUMS` in their folder reads them."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dml_tf.atomic import write_text
from dml_tf.runs.files import hold

SUMS = "SHA256SUMS"
_OF_ALL = "claims."  # renewed whatever the items


def altered(folder: Path) -> list[str]:
    """Names of the listed files that are missing, or no longer what was written."""
    return [name for name, kept in _read(folder).items() if _sum(folder / name) != kept]


@contextlib.contextmanager
def listed(folder: Path, items: Sequence[str]) -> Iterator[list[Path]]:
    """Context that yields a list for the files of some items that are written in it.

    A second process waits. Files that were altered before are named. Those to be written are off
    the list until all are, so that none is taken for altered.
    """
    written: list[Path] = []
    with hold(folder / "locks" / "report", None):
        for name in altered(folder):
            print(
                f"{folder / name} is damaged, missing, or was altered after it was written. What "
                "the records say is written in its place, if its table or figure is asked for."
            )
        renewed = (_OF_ALL, *(f"{item}{end}" for item in items for end in "._"))
        kept = {n: s for n, s in _read(folder).items() if not n.startswith(renewed)}
        _write(folder, kept)
        yield written
        _write(folder, kept | {file.name: _sum(file) for file in written})


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
