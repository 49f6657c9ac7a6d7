"""SIGTERM and Ctrl-C: what has finished is kept, and a command ends with 128 and their number."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dml_tf import errors
from dml_tf.errors import exit_status, uninterrupted

ROOT = Path(__file__).parent.parent


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # a handler runs between two lines


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_a_stopped_command_says_how_to_resume_and_ends_with_128_and_the_signal(
    number, name, capsys
):
    before = signal.getsignal(number)
    assert exit_status("train.py", lambda: send(number)) == 128 + number
    expected = f"stopped by {name}; what had finished is kept. To resume, repeat the command.\n"
    assert capsys.readouterr().err == f"train.py: {expected}"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_until_a_checkpoint_is_written(number):
    done = []

    def command():
        with uninterrupted():
            send(number)
            done.append("written")
        done.append("never reached")

    assert exit_status("train.py", command) == 128 + number
    assert done == ["written"]


def test_a_failure_while_a_signal_waits_is_what_is_told(capsys):
    def command():
        with uninterrupted():
            send(signal.SIGTERM)
            raise errors.RunFailed("the reason")

    assert exit_status("train.py", command) == errors.FAILED
    assert capsys.readouterr().err == "train.py: the reason\n"


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert exit_status("train.py", lambda: send(signal.SIGINT)) == errors.DONE
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone():
    before, ends = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: ends.append(exit_status("train.py", int)))
    thread.start()
    thread.join()
    assert ends == [0] and signal.getsignal(signal.SIGTERM) is before


def test_processes_that_are_killed_in_each_phase_leave_the_same_results():
    """A sample, in processes without TensorFlow, of `python -m tests.faults kills --all`."""
    command = [sys.executable, "-m", "tests.faults", "kills"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count(" in ") == 5


def test_too_little_memory_is_a_failure_in_words(capsys):
    def command():
        raise MemoryError

    assert exit_status("train.py", command) == errors.FAILED
    assert "too little memory. Give a smaller --batch_size" in capsys.readouterr().err
