"""Worker processes. Each does many tasks: importing TensorFlow costs as much as a small run."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from dml_tf.errors import ExecutorError, reason
from dml_tf.runs import quiet

NO_GPU = "-1"  # as CUDA_VISIBLE_DEVICES has it
_UNUSABLE = "unusable"


class Task(NamedTuple):
    """Something to do in a worker.

    Attributes:
        name: Its name in messages.
        function: Importable by the worker; called with `report`, a function that takes a string,
            and `arguments`. If it raises, the task has failed.
        arguments: Anything that pickles.
        log: File for what it prints, and the traceback of its failure.
        reads: Files that it uses if they exist.
        writes: Files that it leaves. Files are copied to and from a worker on another machine;
            paths are the same on all machines.
        title: What people are shown in place of the name, if anything.
        kind: Tasks of one kind are quicker one after the other in one worker. Empty for a task
            whose order must be kept.
    """

    name: str
    function: Callable
    arguments: tuple
    log: Path
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    title: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return self.title or self.name


class Event(NamedTuple):
    """A message about a task.

    Attributes:
        kind: `started`, `progress`, `done` or `failed`.
        task: Which task.
        text: The progress, or the reason of the failure.
    """

    kind: str
    task: Task
    text: str = ""


class Executor(NamedTuple):
    """What runs tasks.

    Attributes:
        slots: How many it runs side by side.
        run: Takes tasks and yields events; for each task a `started` first, and a `done` or a
            `failed` last.
    """

    slots: int
    run: Callable[[Sequence[Task]], Iterator[Event]]


class _Worker:
    """A process that does tasks on one GPU, or on the processor."""

    def __init__(self, threads: int, gpu: str | None):
        context = multiprocessing.get_context("spawn")
        self.gpu = gpu
        self.kind = ""  # of its last task
        self.connection, worker_end = context.Pipe()
        arguments = (worker_end, threads, gpu)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        worker_end.close()

    def end(self):
        self.connection.close()
        self.process.terminate()


def run_tasks(
    tasks: Sequence[Task],
    jobs: int,
    threads: int,
    gpus: Sequence[str | None] = (None,),
    one_task_each: bool = False,
) -> Iterator[Event]:
    """Runs tasks in several processes and yields the events as they happen.

    A process that dies fails only its own task; a new process replaces it.

    Args:
        tasks: What to do, in this order, but for tasks of one kind.
        jobs: How many processes.
        threads: TensorFlow's threads in each.
        gpus: GPUs of the processes, in turn, as `CUDA_VISIBLE_DEVICES` names them; None leaves
            that to the environment, `-1` is no GPU.
        one_task_each: Whether each task has a process of its own, as for its peak memory.

    Yields:
        Events; for each task a `started` first, and a `done` or a `failed` last.

    Raises:
        ExecutorError: TensorFlow does not see a worker's GPU.
    """
    waiting, busy = deque(tasks), {}
    start = partial(_Worker, threads)
    idle = [start(gpus[i % len(gpus)]) for i in range(min(jobs, len(tasks)))]
    try:
        while waiting or busy:
            while idle and waiting:
                worker = idle.pop()
                task = _next_task(waiting, worker.kind, {each.kind for each, _ in busy.values()})
                worker = _given(worker, task, start)
                busy[worker.connection] = (worker, task)
                yield Event("started", task)
            for connection in wait(list(busy)):
                worker, task = busy[connection]
                event = _next_event(worker, task)
                if event.kind == _UNUSABLE:
                    raise ExecutorError(event.text)
                if event.kind != "progress":
                    del busy[connection]
                    if one_task_each or not worker.process.is_alive():
                        worker.end()
                        worker = start(worker.gpu) if waiting else None
                    if worker:
                        idle.append(worker)
                yield event
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


def _next_task(waiting: deque[Task], last: str, elsewhere: set[str]) -> Task:
    """Takes the first task of the kind that a worker did last; else of a kind no other is at."""

    def distance(task: Task) -> int:
        if task.kind and task.kind == last:
            return 0
        return 2 if task.kind and task.kind in elsewhere else 1

    task = min(waiting, key=distance)  # the first of several
    waiting.remove(task)
    return task


def _given(worker: _Worker, task: Task, start: Callable[[str | None], _Worker]) -> _Worker:
    """The worker that got a task: a new one, if this one has died without work."""
    try:
        worker.connection.send(task)
    except ConnectionError:
        worker.end()
        worker = start(worker.gpu)
        worker.connection.send(task)
    worker.kind = task.kind
    return worker


def _next_event(worker: _Worker, task: Task) -> Event:
    """A worker's message; that its task has failed if its process has ended."""
    try:
        kind, text = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        kind, text = "failed", f"its process ended with status {worker.process.exitcode}"
    return Event(kind, task, text)


def perform(task: Task, report: Callable[[str], None]) -> tuple[str, str]:
    """Does a task in this process; returns kind and text of its last event."""
    try:
        with _output_to(task.log):
            try:
                task.function(report, *task.arguments)
            except Exception:
                traceback.print_exc()
                raise
    except Exception as error:  # whatever it is, only this task has failed
        return "failed", reason(error)
    return "done", ""


def _work(connection: Connection, threads: int, gpu: str | None):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    quiet.import_tensorflow(threads)
    problem = _problem(gpu)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        if problem:
            connection.send((_UNUSABLE, problem))
        else:
            connection.send(perform(task, lambda text: connection.send(("progress", text))))


def _problem(gpu: str | None) -> str:
    """Why TensorFlow cannot use the worker's GPU; empty if it can, or if there is none."""
    import tensorflow as tf

    if gpu in (None, NO_GPU) or tf.config.list_physical_devices("GPU"):
        return ""
    return (
        f"TensorFlow does not see GPU {gpu}, which this machine has. Install its CUDA libraries, "
        'as with `.venv/bin/python -m pip install "tensorflow[and-cuda]"`, or give --gpu_jobs=0 to '
        "train on the processor."
    )


def _end_with_parent():
    """Ends this process when its parent has ended: otherwise it would keep its run locked."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[Any]:
    """Sends file descriptors 1 and 2 to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(1), os.dup(2)
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the disk of the log is full
            sys.stdout.flush()
        for stream_number, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, stream_number)
            os.close(descriptor)
