"""What can go wrong in a run, and the exit status of each: the one table for all commands."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

DONE, FAILED, BAD_FLAGS, CUT = 0, 1, 2, 3  # CUT: stopped by a time limit, can be resumed
STOPPED = 128  # plus the number of the signal that stopped the command
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class FlagError(ValueError):
    """A flag that is unknown, malformed, out of range or contradicts another."""


class RunFailed(RuntimeError):
    """A run that cannot continue; the message says what to do."""


class RecordMismatch(RuntimeError):
    """A record or checkpoint of the same name was made with other settings."""


class FileRefused(RuntimeError):
    """A model or weights that are damaged, or contain what no model of this project needs."""


class DataWarning(UserWarning):
    """Something in the data was skipped or converted; `--strict` refuses it."""


class ExecutorError(RuntimeError):
    """No workers can be reached; the message says what to do."""


class ProcessLost(ConnectionError):
    """Another process of the run has ended, or cannot be reached."""


class Stopped(KeyboardInterrupt):
    """A signal that stops a command; its argument is the signal's number."""


_FAILURES = (OSError, MemoryError, RunFailed, RecordMismatch, FileRefused, ExecutorError)
_REPEAT = "then repeat the command; what had finished is kept"
# Number of a system's error -> what to do.
_REMEDIES = {
    errno.ENOSPC: f"Make room there or use another folder, {_REPEAT}.",
    errno.EDQUOT: f"Make room in your quota or use another folder, {_REPEAT}.",
    errno.EFBIG: f"Raise the limit on the size of files (`ulimit -f`), {_REPEAT}.",
    errno.EROFS: "Use a folder that can be written.",
    errno.EACCES: "Change the permissions, or use another folder.",
    errno.EPERM: "Change the permissions, or use another folder.",
    errno.EIO: f"The disk has an error: use another one, {_REPEAT}.",
    errno.ESTALE: f"The shared folder was lost: mount it again, {_REPEAT}.",
    errno.ENOENT: f"The file or its folder is gone: bring it back, {_REPEAT}.",
    errno.ENOTDIR: "A file has the name of the folder: move it away, or use another folder.",
    errno.EEXIST: "A file has the name of the folder: move it away, or use another folder.",
    errno.EISDIR: "A folder has the name of the file: move it away.",
    errno.ENAMETOOLONG: "The name is too long for this disk: name fewer networks.",
    errno.EMFILE: f"Raise the limit on open files (`ulimit -n`), {_REPEAT}.",
    errno.ENOMEM: f"Free some memory, {_REPEAT}.",
}


def exit_status(
    program: str, command: Callable[[], int | None], also: tuple[type[Exception], ...] = ()
) -> int:
    """Runs a command. A user's mistake or a failure becomes one line on stderr and a status.

    SIGTERM is taken as Ctrl-C is: the command ends where it is, and what had finished is kept.

    Args:
        program: Name of the command, for the message.
        command: Returns an exit status, or None for 0.
        also: Further exceptions that mean that the command failed.

    Returns:
        0 done; 1 the run failed, or data are missing or refused; 2 bad flags; 128 and the number of
        the signal that stopped it; or what `command` returned.
    """
    try:
        with _signals_raise():
            return command() or DONE
    except FlagError as error:
        return _say(program, error, BAD_FLAGS)
    except KeyboardInterrupt as error:
        number = error.args[0] if isinstance(error, Stopped) else signal.SIGINT
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        what = f"stopped by {name}; what had finished is kept. To resume, repeat the command."
        return _say(program, what, STOPPED + number)
    except ProcessLost as error:
        _say(program, error, FAILED)
        sys.stdout.flush()
        os._exit(FAILED)  # an ordinary exit would wait for TensorFlow's threads, which hang
    except (*_FAILURES, *also) as error:
        return _say(program, reason(error), FAILED)


def reason(error: BaseException) -> str:
    """What a failure is, in words; an error of the system gets what to do about it.

    Examples:
        >>> reason(OSError(errno.EROFS, "Read-only file system", "results/a.json"))
        'results/a.json: Read-only file system. Use a folder that can be written.'
    """
    if isinstance(error, MemoryError):
        return "There is too little memory. Give a smaller --batch_size, network or data set."
    if not isinstance(error, OSError) or error.errno is None:
        return str(error) or type(error).__name__
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}. {_REMEDIES.get(error.errno, '')}".strip()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Context that a signal waits for, such as the writing of a checkpoint."""
    waiting = []
    with handled_by(lambda number, frame: waiting.append(number)):
        yield
    if waiting:
        signal.raise_signal(waiting[0])


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    def stop(number, frame):
        raise Stopped(number)

    with handled_by(stop):
        yield


@contextlib.contextmanager
def handled_by(handler: Callable | signal.Handlers) -> Iterator[None]:
    """Context with another handler of the signals that stop a command; ignored ones stay so."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _STOPPING}
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _say(program: str, reason: object, status: int) -> int:
    print(f"{program}: {reason}", file=sys.stderr)
    return status
