"""Writing a file whole: the one way in which the project writes results.

A part of a file, or of a folder, that a killed process left behind is removed by the next write
into the same folder. Its name says which process it is of.
"""

import contextlib
import errno
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_HOST = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
_PART = re.compile(r"\.part(\d+)(?:-(\w{8}))?\.")
_LONGEST_S = 24 * 3600  # for a part of another machine, whose processes cannot be seen
_NO_SUCH_CALL = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # flushing a folder, on some systems


@contextlib.contextmanager
def write_whole(file: Path) -> Iterator[Path]:
    """Context that yields a path to write to; its file replaces `file` when it is complete.

    Nobody sees half of it, not even after a crash: it is flushed to disk before it is renamed, and
    its folder after that. If the body raises, `file` stays as it was.

    Args:
        file: Where to write; its folder is made.

    Yields:
        A path in the same folder, with the same suffix.

    Raises:
        OSError: The disk is full, or the folder is not writable; the error names `file`.
    """
    part = part_of(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
        yield part
        flush(part)
        part.replace(file)
        flush(file.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part), part):
            raise  # it is about another file
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(file: Path, text: str):
    """Writes a text file whole, in UTF-8."""
    with write_whole(file) as part:
        part.write_text(text, encoding="utf-8")


def part_of(place: Path) -> Path:
    """The path beside a file or folder under which this process makes it."""
    return place.with_name(f".part{os.getpid()}-{_HOST}.{place.name}")


def flush(place: Path):
    """Returns when a file, or a folder's list of files, is on disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL or not place.is_dir():
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path):
    """Removes the parts in a folder whose processes have ended."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PART.match(entry.name)
            if found and _is_abandoned(int(found[1]), found[2], entry):
                with contextlib.suppress(OSError):
                    shutil.rmtree(entry) if entry.is_dir() else os.unlink(entry)


def _is_abandoned(process: int, host: str | None, entry: os.DirEntry) -> bool:
    if time.time() - entry.stat().st_mtime > _LONGEST_S:
        return True
    if host not in (None, _HOST):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is another user's
        return False
    return False
