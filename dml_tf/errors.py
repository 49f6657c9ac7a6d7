"""What can go wrong in a run, and the exit status of each: the one table for all commands."""

import os
import sys
from collections.abc import Callable

DONE, FAILED, BAD_FLAGS, CUT = 0, 1, 2, 3  # CUT: stopped by a time limit, can be resumed
INTERRUPTED = "interrupted. To resume, repeat the command."


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


_FAILURES = (OSError, RunFailed, RecordMismatch, FileRefused, ExecutorError)


def exit_status(
    program: str, command: Callable[[], int | None], also: tuple[type[Exception], ...] = ()
) -> int:
    """Runs a command. A user's mistake or a failure becomes one line on stderr and a status.

    Args:
        program: Name of the command, for the message.
        command: Returns an exit status, or None for 0.
        also: Further exceptions that mean that the command failed.

    Returns:
        0 done; 1 the run failed, or data are missing or refused; 2 bad flags; or what `command`
        returned.
    """
    try:
        return command() or DONE
    except FlagError as error:
        return _say(program, error, BAD_FLAGS)
    except KeyboardInterrupt:
        return _say(program, INTERRUPTED, FAILED)
    except ProcessLost as error:
        _say(program, error, FAILED)
        sys.stdout.flush()
        os._exit(FAILED)  # an ordinary exit would wait for TensorFlow's threads, which hang
    except (*_FAILURES, *also) as error:
        return _say(program, error, FAILED)


def _say(program: str, reason: object, status: int) -> int:
    print(f"{program}: {reason}", file=sys.stderr)
    return status
