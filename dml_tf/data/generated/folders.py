"""Folders that appear whole or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(dest: str | Path) -> Iterator[Path]:
    """Yields a temporary folder to write to, which gets the name `dest` at the end."""
    dest = Path(dest).expanduser().absolute()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise FileExistsError(f"{dest} is not empty: give a new or empty folder.")
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    try:
        yield part
        part.chmod(0o755)
        part.rename(dest)  # replaces an empty folder, but not a full one
    except OSError as error:
        if dest.exists() and any(dest.iterdir()):
            raise FileExistsError(f"Another process has made {dest} meanwhile.") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
