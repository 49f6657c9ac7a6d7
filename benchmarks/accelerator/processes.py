"""Processes that end in time, together with all that they started: they hold a GPU's memory."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dml_tf.errors import CUT, DONE

_GRACE_S = 10.0  # in which training saves its state


def run(
    command: Sequence[str], seconds: float, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Runs a command and keeps what it prints; its status is `CUT` after so many seconds."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            printed = process.communicate(timeout=seconds)
            return subprocess.CompletedProcess(command, process.returncode, *printed)
        except subprocess.TimeoutExpired:
            late = f"it took more than {seconds:.0f} s"
            return subprocess.CompletedProcess(command, CUT, stdout="", stderr=late)
        finally:
            if process.returncode != DONE:
                _kill(process)


def run_until(
    until: float,
    command: Sequence[str],
    log: Path,
    env: dict[str, str] | None,
    each_minute: Callable[[], None],
) -> int:
    """Runs a command that saves its state at SIGTERM.

    Args:
        until: When to end it, by `time.monotonic`.
        command: Program and arguments.
        log: Where to add what it prints.
        env: Its environment.
        each_minute: Called meanwhile.

    Returns:
        Its status; `CUT` if it had to be ended.
    """
    with log.open("a") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=env, start_new_session=True
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(min(60, max(until - time.monotonic(), 0)))
                if time.monotonic() >= until:
                    return CUT
                each_minute()
        finally:
            _end(process)


def wait_for_all(processes: Sequence[subprocess.Popen]) -> list[int]:
    """Waits for processes and returns their statuses; if one fails, the others are killed."""
    try:
        while True:
            statuses = [process.poll() for process in processes]
            if None not in statuses or set(statuses) - {None, DONE}:
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    return [process.wait() for process in processes]


def _end(process: subprocess.Popen):
    """Asks a process to end, and kills what is left of its group after a while."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    if process.returncode != DONE:
        _kill(process)


def _kill(process: subprocess.Popen):
    """Kills a process and its group, which has its number."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
