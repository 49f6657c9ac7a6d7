"""Two processes of one run, one of which dies at a chosen moment; and a program that dies so.

`python -m tests.processes MOMENT FLAGS...` is `train.py` that kills itself, in the process whose
index is 1, at that moment.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLAGS = ["--dataset=digits", "--net=resnet8:2", "--cohort=2", "--image_size=8", "--batch_size=16",
         "--train_images=32", "--epochs=3", "--placement=peers"]  # fmt: skip
MOMENTS = (
    "before it started", "before the first step", "between exchange and update",
    "while a checkpoint is written",
)  # fmt: skip
LONGEST_S = 60


def die():
    """Ends this process as SIGKILL does."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_alone():
    """Starts one of two processes; it ends in words."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*FLAGS, f"--results_dir={folder}", "--wait_minutes=0.1"]
        (alone,) = start_two(["train.py"], flags, started=1)
        _, message = alone.communicate(timeout=10 * LONGEST_S)
        assert alone.returncode == 1 and "no process of this run answered at" in message, message
        assert "Traceback" not in message and message.count("\n") == 1, message


def arm(moment: str):
    """Makes this process die at a moment."""
    import tensorflow as tf

    from dml_tf.runs import checkpoint
    from dml_tf.runs.parallel import loop
    from dml_tf.runs.parallel.placement import Placement

    if moment == "before the first step":
        loop.fit = lambda *args, **kwargs: die()
    elif moment == "while a checkpoint is written":
        checkpoint.save_state = lambda *args: die()
    else:
        exchange = Placement.exchange

        def exchange_and_die(self, outputs):
            found = exchange(self, outputs)
            first = next(iter(found[0].values()))
            dead = tf.numpy_function(lambda x: die() or x, [first], first.dtype)
            dead.set_shape(first.shape)
            return [{name: dead for name in found[0]}, *found[1:]]

        Placement.exchange = exchange_and_die


def main(moment: str, flags: list[str]) -> int:
    """`train.py` in one process, which dies if its index is 1."""
    import train

    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        from dml_tf.runs import quiet

        quiet.import_tensorflow()
        arm(moment)
    return train.main(flags)


def start_two(program: list[str], flags: list[str], started: int = 2) -> list[subprocess.Popen]:
    """The processes of a run on this machine, or only the first of them."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    addresses = [f"127.0.0.1:{port}" for port in ports]
    processes = []
    for index in range(started):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "PYTHONPATH": str(ROOT)}
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # TensorFlow's lines would count as messages
        processes.append(
            subprocess.Popen(
                [sys.executable, *program, *flags], cwd=ROOT, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    return processes


def lose(count: int) -> Counter:
    """Kills one of two processes at each moment; the other ends in words, and both resume."""
    ends = Counter()
    for moment in MOMENTS[:count]:
        if moment == "before it started":
            wait_alone()
            ends[f"lost {moment}"] += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            flags = [*FLAGS, f"--results_dir={folder}"]
            first, second = start_two(["-m", "tests.processes", moment], flags)
            second.communicate()
            died = time.monotonic()
            assert second.returncode == -signal.SIGKILL, (moment, second.returncode)
            _, message = first.communicate(timeout=10 * LONGEST_S)
            assert time.monotonic() - died < LONGEST_S, moment
            assert first.returncode == 1 and "another process of this run has ended" in message
            assert "Traceback" not in message, message
            for process in start_two(["train.py"], flags):
                out, message = process.communicate(timeout=10 * LONGEST_S)
                assert process.returncode == 0, out + message
        ends[f"lost {moment}, resumed"] += 1
    return ends


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
