"""A disk that fails at its n-th change, and a small one that fills up."""

import builtins
import contextlib
import errno
import io
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

from dml_tf.errors import exit_status


class FailingDisk:
    """Context in which the n-th change below a folder fails, and each one after it.

    Changes are: a file opened to be written, each write, each flush to disk, each folder made, and
    each renaming. A write that fails has written half of its bytes. Only Python's own calls fail;
    the small disk below is for the others.

    Attributes:
        changes: The changes that have been asked for: the file or folder of each.
    """

    def __init__(self, folder: Path, at: float, number: int = errno.ENOSPC):
        self.changes: list[str] = []
        self._folder, self._at, self._number = str(folder), at, number
        self._open = io.open

    @property
    def has_failed(self) -> bool:
        return len(self.changes) >= self._at

    def change(self, place, do_half: Callable[[], object] = lambda: None):
        """Counts a change at a place; from the n-th on does half of it, and fails."""
        if not os.fspath(place).startswith(self._folder):
            return
        self.changes.append(os.fspath(place))
        if self.has_failed:
            do_half()
            self.fail(os.fspath(place))

    def fail(self, place: str):
        """Raises the system's error."""
        raise OSError(self._number, os.strerror(self._number), place)

    def __enter__(self):
        self._patches = contextlib.ExitStack()
        for module in (builtins, io):
            self._patches.enter_context(mock.patch.object(module, "open", self._opened))
        for name in ("mkdir", "rename", "replace", "fsync"):
            failing = self._failing(getattr(os, name))
            self._patches.enter_context(mock.patch.object(os, name, failing))
        return self

    def __exit__(self, *_):
        self._patches.close()

    def _failing(self, call: Callable) -> Callable:
        def failing(place, *args, **kwargs):
            of_file = isinstance(place, int)
            self.change(os.readlink(f"/proc/self/fd/{place}") if of_file else place)
            return call(place, *args, **kwargs)

        return failing

    def _opened(
        self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **more
    ):
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return self._open(file, mode, buffering, encoding, errors, newline, **more)
        self.change(file)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), self, **more)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    def __init__(self, file, mode: str, disk: FailingDisk, **more):
        super().__init__(file, mode, **more)
        self._disk = disk

    def write(self, data) -> int:
        half = partial(super().write, bytes(data)[: len(data) // 2])
        self._disk.change(self.name, half)
        return super().write(data)


def fail_each_change(
    folder: Path,
    command: Callable[[], object],
    is_intact: Callable[[bool], None],
    *,
    every: int = 1,
    number: int = errno.ENOSPC,
) -> int:
    """Does a command once for each of its changes, which fails; then does it again.

    Args:
        folder: What the command changes; it starts each time from what is in it now.
        command: To be called again after a failure.
        is_intact: Raises `AssertionError` if the folder is not as it should be; its argument says
            whether the command was done.
        every: Only each so many-th change fails.
        number: The system's number of the error.

    Returns:
        How many changes were made to fail.
    """
    start = folder.with_name(f"{folder.name}.start")
    shutil.copytree(folder, start)
    for count in itertools.count():
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        disk = FailingDisk(folder, 1 + count * every, number)
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), disk:
            status = exit_status("command", command)
        if not disk.has_failed:
            shutil.rmtree(start)
            return count
        message = stderr.getvalue()
        check_failure(folder, status, message, number)
        is_intact(False)
        command()
        is_intact(True)


def check_failure(folder: Path, status: int, message: str, number: int = errno.ENOSPC):
    """Raises `AssertionError` unless a command failed in one line with path, reason and remedy."""
    assert status == 1, (status, message)
    assert message.startswith(f"command: {folder}"), message
    assert os.strerror(number) in message and message.count("\n") == 1, message
    assert len(message.partition(os.strerror(number))[2]) > 20, f"no remedy: {message}"
    assert not list(folder.rglob(".part*")), message


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Context with a disk of so many bytes (as `400k`) in a folder; yields a call that resizes it.

    Raises:
        PermissionError: This user may mount no disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PermissionError(f"no disk can be mounted here: {error}") from error

    def resize(larger: str):
        options = f"remount,size={larger}"
        subprocess.run(["mount", "-o", options, str(folder)], check=True, capture_output=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", str(folder)], check=True)
