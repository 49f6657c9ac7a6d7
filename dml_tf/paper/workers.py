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
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from dml_tf.errors import reason
from dml_tf.runs import quiet


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
    """

    name: str
    function: Callable
    arguments: tuple
    log: Path
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    title: str = ""

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


def run_tasks(tasks: Sequence[Task], jobs: int, threads: int) -> Iterator[Event]:
    """Runs tasks in several processes and yields the events as they happen.

    A process that dies fails only its own task; a new process replaces it.

    Args:
        tasks: What to do, in this order.
        jobs: How many processes.
        threads: TensorFlow's threads in each.

    Yields:
        Events; for each task a `started` first, and a `done` or a `failed` last.
    """
    context = multiprocessing.get_context("spawn")
    waiting, busy = deque(tasks), {}

    def start_worker():
        parent_end, worker_end = context.Pipe()
        process = context.Process(target=_work, args=(worker_end, threads), daemon=True)
        process.start()
        worker_end.close()
        return parent_end, process

    idle = [start_worker() for _ in range(min(jobs, len(tasks)))]
    try:
        while waiting or busy:
            while idle and waiting:
                connection, process = idle.pop()
                task = waiting.popleft()
                connection.send(task)
                busy[connection] = (process, task)
                yield Event("started", task)
            for connection in wait(list(busy)):
                process, task = busy[connection]
                try:
                    kind, text = connection.recv()
                except EOFError:
                    process.join()
                    kind, text = "failed", f"its process ended with status {process.exitcode}"
                    del busy[connection]
                    if waiting:
                        idle.append(start_worker())
                else:
                    if kind != "progress":
                        del busy[connection]
                        idle.append((connection, process))
                yield Event(kind, task, text)
    finally:
        for connection, process in [*idle, *((c, p) for c, (p, _) in busy.items())]:
            connection.close()
            process.terminate()


def perform(task: Task, report: Callable[[str], None]) -> tuple[str, str]:
    """Does a task in this process; returns kind and text of its last event."""
    with _output_to(task.log):
        try:
            task.function(report, *task.arguments)
        except Exception as error:  # whatever it is, only this task has failed
            traceback.print_exc()
            return "failed", reason(error)
    return "done", ""


def _work(connection: Connection, threads: int):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet.import_tensorflow(threads)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(perform(task, lambda text: connection.send(("progress", text))))


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
        sys.stdout.flush()
        for stream_number, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, stream_number)
            os.close(descriptor)
