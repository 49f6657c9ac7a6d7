"""The processes that train one run together, by TensorFlow's collectives.

Only TensorFlow's runtime opens connections: `tf.distribute` starts its server from the environment
variable TF_CONFIG. All that the processes exchange goes through gathers. What peers exchange in a
training step is in `placement.py`.
"""

import contextlib
import faulthandler
import functools
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from dml_tf.errors import FlagError, ProcessLost, RunFailed, handled_by
from dml_tf.runs import quiet

_EXAMPLE = (
    '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")  # in the order of TensorFlow's collectives
# Group keys of our gathers, far from those of tf.distribute, which count up from 1.
_DEVICES, _HOSTS = 10_001, 10_002
# What collectives raise when a process has ended.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class Cluster:
    """The processes of one run. Each must call the same methods in the same order.

    Args:
        addresses: `host:port` of each process; not needed for one process.
        rank: Index of this process. The first is the chief, which writes record and model.

    Attributes:
        rank: Index of this process.
        size: Number of processes.

    Examples:
        >>> Cluster().share(b"alone")
        [b'alone']
    """

    def __init__(self, addresses: Sequence[str] = ("",), rank: int = 0):
        self.rank, self.size = rank, len(addresses)
        self._addresses = tuple(addresses)
        self._key = 0
        self._strategy = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the record and the model."""
        return self.rank == 0

    def connect(self, seconds: float) -> tf.distribute.MultiWorkerMirroredStrategy:
        """Waits for the other processes and starts TensorFlow's server.

        It must come before any other use of TensorFlow. Further calls return the same strategy.

        Args:
            seconds: The longest wait.

        Returns:
            The strategy that mirrors variables over all processes.

        Raises:
            ProcessLost: TensorFlow's server cannot start, or the others do not connect.
            RunFailed: The port of this process is taken.
        """
        if self._strategy:
            return self._strategy
        self._meet(seconds)
        try:
            with quiet.quiet(), _interruptible(), _ended_after(seconds):
                self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise ProcessLost(
                f"worker {self.rank} could not start at {self._addresses[self.rank]}, or the other "
                f"processes did not connect ({error.message}). TF_CONFIG must list the same "
                "addresses in every process, each free on its own host."
            ) from error
        return self._strategy

    def _meet(self, seconds: float):
        """Waits until all others answer at their addresses: TensorFlow itself waits for ever."""
        silent = [a for i, a in enumerate(self._addresses) if i != self.rank]
        print(
            f"worker {self.rank} of {self.size}: waiting for {', '.join(silent)}, {seconds:g} s at "
            "most",
            flush=True,
        )
        last = time.monotonic() + seconds
        with self._listening():
            while silent := [address for address in silent if not _answers(address)]:
                if time.monotonic() > last:
                    raise ProcessLost(
                        f"worker {self.rank} of {self.size}: no process of this run answered at "
                        f"{', '.join(silent)} within {seconds:g} s. Start all processes with the "
                        "same command, each with its own TF_CONFIG; --wait_minutes gives them "
                        "more time."
                    )
                time.sleep(0.1)

    def _listening(self) -> socket.socket:
        """Context that answers at this process's address, as TensorFlow's server does later."""
        address = self._addresses[self.rank]
        both = {"family": socket.AF_INET6, "dualstack_ipv6": True}
        try:
            return socket.create_server(
                ("", _host_and_port(address)[1]), **(both if socket.has_dualstack_ipv6() else {})
            )
        except OSError as error:  # TensorFlow itself might share the port with another program
            raise RunFailed(
                f"TF_CONFIG gives worker {self.rank} the address {address}, and its port is "
                f"not free ({error.strerror}). Name another one, in every process."
            ) from error

    def gather(self, value: tf.Tensor) -> tf.Tensor:
        """The values of all processes, stacked: shape `(processes, *value.shape)`.

        The shape and dtype must be the same in all processes.
        """
        return self._gather(value, _DEVICES)

    def share(self, data: bytes) -> list[bytes]:
        """The bytes that each process passes, of any length, in the order of the processes."""
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), np.int32)
        with tf.device("CPU:0"):
            lengths = self._gather(tf.constant(len(data), tf.int64), _HOSTS).numpy()
            padded = np.zeros(max(lengths) // 4 + 1, np.int32)
            padded[: len(words)] = words
            gathered = self._gather(tf.constant(padded), _HOSTS).numpy()
        return [row.tobytes()[:length] for row, length in zip(gathered, lengths, strict=True)]

    def least(self, number: int) -> int:
        """The smallest of the numbers that the processes pass."""
        if self.size == 1:
            return number
        return min(int(theirs) for theirs in self.share(str(number).encode()))

    def from_chief(self, make: Callable[..., dict | None], *arguments) -> dict | None:
        """What `make` returns in the chief, the only one to call it; JSON's types."""
        if self.size == 1:
            return make(*arguments)
        made = make(*arguments) if self.is_chief else None
        return json.loads(self.share(json.dumps(made).encode())[0])

    def refuse_differences(self, what: str, describe: Callable[..., dict], *arguments):
        """Refuses processes that would train different runs, or wait for each other for ever.

        Args:
            what: What is compared, for the message.
            describe: Called if there are several processes; returns JSON's types.
            *arguments: Its arguments.

        Raises:
            FlagError: Some values differ.
        """
        if self.size == 1:
            return
        ours = describe(*arguments)
        all_of_them = [json.loads(part) for part in self.share(json.dumps(ours).encode())]
        first = all_of_them[0]
        known = {name for theirs in all_of_them for name in theirs}  # another version has others
        names = sorted(
            n for n in known if any(theirs.get(n) != first.get(n) for theirs in all_of_them)
        )
        if names:
            raise FlagError(
                f"the processes of this run have different {what} ({', '.join(names)}): all need "
                "the same flags, versions and data."
            )

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Context that raises ProcessLost when another process of the run has ended."""
        try:
            yield
        except _LOST as error:
            if self.size == 1:
                raise
            # Other tasks in the message may be this process.
            named = re.search(r"remote target /job:(\w+)/replica:0/task:(\d+)", error.message)
            who = f"{named[1]} {named[2]}" if named else "one"
            raise ProcessLost(
                f"another process of this run has ended, or cannot be reached ({who} of "
                f"{', '.join(self._addresses)}): see its messages. To resume after the last epoch "
                "that all have finished, start all processes again with the same command. "
                f"TensorFlow's message: {error.message.strip().partition(chr(10))[0]}"
            ) from error

    def _gather(self, value: tf.Tensor, group: int) -> tf.Tensor:
        if self.size == 1:
            return value[tf.newaxis]
        self._key += 1  # one for each gather that is traced: the same in every process
        return tf.raw_ops.CollectiveGatherV2(
            input=value[tf.newaxis],
            group_size=self.size,
            group_key=group,
            instance_key=self._key,
            ordering_token=[],
        )


def _answers(address: str) -> bool:
    """Whether a program listens there."""
    try:
        socket.create_connection(_host_and_port(address), timeout=1).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """Ends this process if TensorFlow still waits, for another one that has ended meanwhile."""
    # Only this watchdog runs while TensorFlow holds Python's lock; it prints where each thread is.
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM also end a process in TensorFlow, where Python's handlers never run."""
    with handled_by(signal.SIG_DFL):
        yield


def from_environment() -> Cluster:
    """The cluster that TF_CONFIG describes; without TF_CONFIG, this process alone.

    Raises:
        FlagError: TF_CONFIG is malformed.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return Cluster()
    try:
        setting = json.loads(text)
        jobs, task = setting["cluster"], setting["task"]
        if not set(jobs) <= set(_JOBS):
            raise ValueError(f"the jobs {', '.join(jobs)} are not all among {', '.join(_JOBS)}")
        before = sum(len(jobs.get(job, ())) for job in _JOBS[: _JOBS.index(task["type"])])
        addresses = [address for job in _JOBS for address in jobs.get(job, [])]
        if not all(isinstance(job, list) for job in jobs.values()):
            raise ValueError("a job is a list of addresses")
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"an address is listed twice among {', '.join(addresses)}")
        if task["index"] not in range(len(jobs[task["type"]])):
            raise ValueError(f"there is no {task['type']} {task['index']}")
        for address in addresses:
            _host_and_port(address)  # refuses one without a port
        return _cluster(tuple(addresses), before + task["index"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FlagError(f"TF_CONFIG is not of the form {_EXAMPLE}: {error!r}.") from None


# One object for all runs of a process: its count of gathers must go on.
_cluster = functools.cache(Cluster)
