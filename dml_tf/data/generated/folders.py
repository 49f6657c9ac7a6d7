"""Folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dml_tf.atomic import flush, part_of, sweep


@contextlib.contextmanager
def whole_folder(dest: str | Path) -> Iterator[Path]:
    """Yields a temporary folder to write to, which gets the name `dest` at the end."""
    dest = Path(dest).expanduser().absolute()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise FileExistsError(f"{dest} is not empty: give a new or empty folder.")
    dest.parent.mkdir(parents=True, exist_ok=True)
    sweep(dest.parent)
    part = Path(tempfile.mkdtemp(prefix=f"{part_of(dest).name}.", dir=dest.parent))
    try:
        yield part
        part.chmod(0o755)
        _flush_all(part)
        part.rename(dest)  # replaces an empty folder, but not a full one
        flush(dest.parent)
    except OSError as error:
        if dest.exists() and any(dest.iterdir()):
            raise FileExistsError(f"Another process has made {dest} meanwhile.") from error
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(dest)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def ensure_folder(dest: str | Path, sign: str, write: Callable[[Path], object]) -> Path:
    """Writes a folder unless it has the file `sign`; returns it."""
    dest = Path(dest).expanduser().absolute()
    if not (dest / sign).exists():
        try:
            write(dest)
        except FileExistsError:
            if not (dest / sign).exists():  # otherwise another process was faster
                raise
    return dest


def _flush_all(folder: Path):
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))
