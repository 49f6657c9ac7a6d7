"""Writing a file whole: the one way in which the project writes results."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_whole(file: Path) -> Iterator[Path]:
    """Context that yields a path to write to; its file replaces `file` when it is complete.

    Nobody sees half of it, not even after a crash: it is flushed to disk before it is renamed. If
    the body raises, `file` stays as it was.

    Args:
        file: Where to write; its folder is made.

    Yields:
        A path in the same folder, with the same suffix.

    Raises:
        OSError: The disk is full, or the folder is not writable; the error names `file`.
    """
    part = file.with_name(f".part{os.getpid()}.{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(file)
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
