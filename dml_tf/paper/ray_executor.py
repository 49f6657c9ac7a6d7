"""Tasks on the machines of a Ray cluster: `run_all.sh --executor=ray`. Only this imports Ray."""

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dml_tf import home
from dml_tf.atomic import write_whole
from dml_tf.errors import ExecutorError, reason
from dml_tf.paper import workers
from dml_tf.paper.workers import Event, Executor, Task

# How often a task is started again if its node or process is lost; not if it fails.
RETRIES = 3
_TIMEOUT_S = 10.0  # Ray itself tries a dead address for minutes
_POLL_S = 0.5


@contextlib.contextmanager
def connect(address: str, *, cpus: int = 1, gpus: float = 0) -> Iterator[Executor]:
    """Connects to a cluster for as long as the context lasts.

    This machine sends the package and its flag files to the nodes; what the package imports must be
    installed on them. Paths are the same on all machines. Files that a task names are copied to a
    node with its own disk, and back. On a shared disk a task that is moved to another node also
    finds what the first node left, such as a checkpoint.

    Args:
        address: The cluster's head, `HOST:PORT`; `auto` for the cluster that this machine belongs
            to; `local` for a new one in this process.
        cpus: Processors that a task needs; TensorFlow gets as many threads.
        gpus: GPUs that a task needs; a fraction shares one.

    Yields:
        An executor. If it has no room for a task now (0 slots), tasks wait for a node.

    Raises:
        ExecutorError: No cluster at the address, or one of another version.
    """
    environment = {
        "working_dir": str(home.PACKAGE.parent),
        "excludes": ["/*", "!/.", "!/dml_tf", "!/flags"],
        "env_vars": {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # or the first task takes all of a shared GPU
            "TF_NUM_INTRAOP_THREADS": str(cpus),
            "TF_NUM_INTEROP_THREADS": str(cpus),
        },
    }
    try:
        _reach(address)
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="warning")
    except (OSError, ValueError, RuntimeError) as error:
        raise ExecutorError(
            f"--ray_address={address}: {error}\nStart Ray on the head with `ray start --head`, on "
            "each other machine with `ray start --address=HEAD:6379`, and give HEAD:6379. A "
            "cluster with tokens needs RAY_AUTH_MODE=token and the same ~/.ray/auth_token on all "
            "machines."
        ) from error
    try:
        yield Executor(_slots(cpus, gpus), partial(_run, cpus=cpus, gpus=gpus))
    finally:
        ray.shutdown()


def _reach(address: str):
    """Raises OSError if nothing listens at HOST:PORT."""
    host, colon, port = address.rpartition("/")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), _TIMEOUT_S).close()


def _slots(cpus: int, gpus: float) -> int:
    """How many tasks fit on the nodes that are alive now."""
    wanted = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min(node.get(kind, 0) / n for kind, n in wanted.items())) for node in nodes)


def _run(tasks: Sequence[Task], cpus: int, gpus: float) -> Iterator[Event]:
    """Runs tasks as the cluster has room for them; see `workers.Executor`."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
    work = ray.remote(_work).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
    upload = cache(lambda file: ray.put(file.read_bytes()))
    left, started = {}, set()
    for i, task in enumerate(tasks):
        inputs = {file: upload(file) for file in task.reads if file.exists()}
        left[work.remote(mailbox, i, task, inputs)] = i
    while left:
        ended, _ = ray.wait(list(left), timeout=_POLL_S)
        news = ray.get(mailbox.take.remote())  # has all news of the ended tasks
        for ref in ended:
            i = left.pop(ref)
            news.append((i, *_outcome(ref, tasks[i])))
        for i, kind, text in news:
            if i not in started and kind != "started":  # it was lost before it could report
                yield Event("started", tasks[i])
            elif i in started and kind == "started":
                kind, text = "progress", "again, its node or process was lost"
            started.add(i)
            yield Event(kind, tasks[i], text)


class _Mailbox:
    """An actor on this machine that keeps the tasks' news until `take` is called."""

    def __init__(self):
        self._news = []

    def put(self, index: int, kind: str, text: str):
        self._news.append((index, kind, text))

    def take(self) -> list[tuple[int, str, str]]:
        news, self._news = self._news, []
        return news


def _work(mailbox, index: int, task: Task, inputs: Mapping[Path, ray.ObjectRef]):
    """Does a task on a node: kind and text of its last event, and the files that it leaves."""

    def report(text: str, kind: str = "progress"):
        ray.get(mailbox.put.remote(index, kind, text))

    report("", "started")
    for file in set(task.writes) - set(inputs):
        file.unlink(missing_ok=True)  # left by an earlier run, and deleted on the driver's machine
    _place({file: ray.get(content) for file, content in inputs.items()})
    kind, text = workers.perform(task, report)
    left = [file for file in (*task.writes, task.log) if file.exists()]
    return kind, text, {file: file.read_bytes() for file in left}


def _outcome(ref: ray.ObjectRef, task: Task) -> tuple[str, str]:
    """Puts an ended task's files in place; returns kind and text of its last event."""
    try:
        kind, text, left = ray.get(ref)
    except ray.exceptions.RayError as error:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("a") as log:
            print(error, file=log)
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        return "failed", str(cause).strip().partition("\n")[0]
    try:
        _place(left)
    except OSError as error:
        return "failed", reason(error)
    return kind, text


def _place(contents: Mapping[Path, bytes]):
    """Writes files, each whole or not at all; on a shared disk they already exist."""
    for file, content in contents.items():
        if file.exists() and file.read_bytes() == content:
            continue
        with write_whole(file) as part:
            part.write_bytes(content)
