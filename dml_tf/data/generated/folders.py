"""Generated data sets as folders of files: there as a whole or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(dest: str | Path) -> Iterator[Path]:
    """Makes a folder that nobody sees before it is full.

    Args:
        dest: Folder to make; it must not exist, or be empty.

    Yields:
        A folder beside it to write to, which takes its name at the end.

    Raises:
        FileExistsError: There is something else in the folder.
    """
    dest = Path(dest).expanduser().absolute()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise FileExistsError(f"{dest} is not empty: give a new folder, or remove what is there.")
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    try:
        yield part
        part.chmod(0o755)
        part.rename(dest)  # takes an empty folder's place, but not that of a full one
    except OSError as error:
        if dest.exists() and any(dest.iterdir()):
            raise FileExistsError(f"{dest} was made by another process meanwhile.") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
