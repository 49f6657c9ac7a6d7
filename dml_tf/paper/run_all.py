"""Everything in the paper at one scale: `python -m dml_tf.run_all --scale=mini`."""

import argparse
import contextlib
import functools
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from dml_tf import home
from dml_tf.paper import items as experiments
from dml_tf.paper import scales, tables
from dml_tf.paper.estimate import Estimate
from dml_tf.paper.report import write as write_report
from dml_tf.paper.workers import Executor, ExecutorError, Task, run_tasks
from dml_tf.runs import files, flag_files, records
from dml_tf.runs.config import Config
from dml_tf.runs.errors import FlagError, RecordMismatch
from dml_tf.runs.files import RunFiles, needed_weights


def main(argv: Sequence[str]) -> int:
    """Trains what is missing and writes tables, figures and the page.

    Args:
        argv: Command-line arguments.

    Returns:
        Exit status: 0 done; 1 a run failed or was refused; 2 (by argparse) bad arguments.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(line_buffering=True)  # a log shows how far it is
    options = _parse(argv)
    # Whole paths: a worker may be at home elsewhere.
    folder = Path(options.results_dir or home.HOME / "results" / options.scale).absolute()
    data_dir = options.data_dir and str(Path(options.data_dir).expanduser().absolute())
    scale = scales.SCALES[options.scale].available(folder, data_dir)
    try:
        runs = experiments.runs(
            scale,
            options.only,
            results_dir=str(folder),
            data_dir=data_dir,
            seeds=options.seeds,
        )
        index, count = options.shard
        runs = runs[index::count]
        there = [(run, records.find(run)) for run in runs]
    except (FlagError, RecordMismatch) as error:
        print(f"run_all: {error}", file=sys.stderr)
        return 1
    todo = [run for run, record in there if record is None]
    estimate = Estimate([(run, record) for run, record in there if record])
    if options.dry_run:
        _list(runs, todo, estimate, options.jobs)
        return 0
    busy = BlockingIOError(
        f"another one is at work in {folder}; wait for it, or use another --results_dir."
    )
    try:
        with files.hold(folder / "locks" / "run_all", busy):
            with _executor(options) as executor:
                failures = _train(folder, todo, len(runs), estimate, options.only, executor)
            written = write_report(scale, folder, _measured(scale, folder, options.only))
    except (BlockingIOError, ExecutorError, KeyboardInterrupt, RecordMismatch) as error:
        reason = str(error) or "interrupted; the same command goes on where it was."
        print(f"run_all: {reason}", file=sys.stderr)
        return 1
    print(f"wrote {len(written) - 1} tables and figures, and all of it on one page: {written[-1]}")
    for task, reason in failures:
        print(f"FAILED {task.name}: {reason}\n  log: {task.log}", file=sys.stderr)
    return 1 if failures else 0


def train_one(report: Callable[[str], None], run: Config):
    """Trains one run in a worker.

    Args:
        report: Takes the run's progress.
        run: Its settings.
    """
    import keras

    from dml_tf.runs import train

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            report(f"{epoch + 1}/{self.params['epochs']} epochs")

    train.run(run, verbose=2, callbacks=[Report()])
    keras.backend.clear_session()


def count_parameters(report: Callable[[str], None], file: Path):
    """Writes Table 1's measurements: the paper's networks are built, and not trained.

    Args:
        report: Takes the progress.
        file: Where to write them.
    """
    from dml_tf import networks

    counts = {}
    for title, name in scales.PAPER_NETWORKS.items():
        report(name)
        network = networks.build(name, num_classes=100, input_shape=(32, 32, 3))
        counts[title] = networks.count_parameters(network)
    records.write(counts, file)


@contextlib.contextmanager
def _executor(options: argparse.Namespace) -> Iterator[Executor]:
    if options.executor == "local":
        yield Executor(options.jobs, functools.partial(run_tasks, jobs=options.jobs, threads=1))
        return
    try:
        from dml_tf.paper import ray_executor
    except ModuleNotFoundError as error:
        raise ExecutorError(
            f"--executor=ray: {error}. Install Ray here and on every machine of the cluster: "
            "python -m pip install -r requirements-cluster.txt"
        ) from None
    resources = {"cpus": options.task_cpus, "gpus": options.task_gpus}
    with ray_executor.connect(options.ray_address, **resources) as executor:
        yield executor


def _task(folder: Path, run: Config) -> Task:
    own = (RunFiles.of(run).record, RunFiles.of(run).model)
    reads = (*needed_weights(run), *own)  # its own, if they lack but the analysis
    log = folder / "logs" / f"{run.run_id}.log"
    return Task(run.run_id, train_one, (run,), log, reads, own)


def _train(
    folder: Path,
    todo: Sequence[Config],
    planned: int,
    estimate: Estimate,
    items: Sequence[str],
    executor: Executor,
) -> list[tuple[Task, str]]:
    """Does what is left to do and returns what failed, with the reasons."""
    waves = [[_task(folder, run) for run in wave] for wave in experiments.waves(todo) or [[]]]
    sizes = folder / tables.PARAMETERS
    if "table1" in items and not sizes.exists():
        log = folder / "logs" / "table1.log"
        waves[0].insert(0, Task("table 1", count_parameters, (sizes,), log, writes=(sizes,)))
    print(
        f"{planned} runs: {planned - len(todo)} done, {len(todo)} to do, {executor.slots} at a time"
    )
    expected = {run.run_id: seconds for run in todo if (seconds := estimate.seconds(run))}
    failures, started = [], {}
    names = [task.name for wave in waves for task in wave]
    clock = _Clock(names, expected, max(executor.slots, 1))
    line = functools.partial(tqdm, disable=not sys.stdout.isatty(), dynamic_ncols=True)
    events = itertools.chain.from_iterable(map(executor.run, waves))
    with (
        line(total=clock.total, bar_format="{percentage:3.0f}%|{bar}| {desc}") as bar,
        line(bar_format="{desc}", leave=False) as running,
    ):
        bar.set_description_str(str(clock))
        for event in events:
            name = event.task.name
            if event.kind == "started":
                started[name] = ""
                clock.start(name)
            elif event.kind == "progress":
                started[name] = event.text
            else:
                del started[name]
                took = clock.end(name)
                bar.update(clock.expected(name))
                bar.set_description_str(str(clock))
                if event.kind == "failed":
                    failures.append((event.task, event.text))
                tqdm.write(f"{clock}  {event.kind:6} {took:5.0f} s  {name}")
            running.set_description_str(
                "; ".join(f"{run}: {text or 'starting'}" for run, text in started.items())
            )
    return failures


class _Clock:
    """Says how many tasks are done, and how long the others will take.

    Args:
        names: The tasks.
        expected: Seconds expected of those of which something is known; the others count as their
            mean.
        jobs: How many are done at a time.
    """

    def __init__(self, names: Sequence[str], expected: dict[str, float], jobs: int):
        mean = sum(expected.values()) / len(expected) if expected else 1.0
        self._expected = {name: expected.get(name, mean) for name in names}
        self._known, self._jobs = bool(expected), jobs
        self._started: dict[str, float] = {}
        self._took: dict[str, float] = {}

    @property
    def total(self) -> float:
        """Seconds expected of all."""
        return sum(self._expected.values())

    def expected(self, name: str) -> float:
        return self._expected[name]

    def start(self, name: str):
        self._started[name] = time.monotonic()

    def end(self, name: str) -> float:
        self._took[name] = time.monotonic() - self._started.pop(name)
        return self._took[name]

    def __str__(self) -> str:
        count = f"{len(self._took)}/{len(self._expected)}"
        done = sum(map(self.expected, self._took))
        if not (done or self._known):
            return count
        slower = sum(self._took.values()) / done if done else 1.0
        return f"{count}, {_duration(slower * (self.total - done) / self._jobs)} left"


def _measured(scale: scales.Scale, folder: Path, asked: Sequence[str]) -> list[str]:
    """The items that were asked for, and others that have records: what a clone brings stays."""
    return [
        item
        for item in experiments.ITEMS
        if item in asked
        or any(tables.found(cell, scale, folder) for cell in experiments.cells([item]))
    ]


def _list(runs: Sequence[Config], todo: Sequence[Config], estimate: Estimate, jobs: int):
    """Prints what would be done."""
    missing = {run.run_id for run in todo}
    for run in runs:
        seconds = estimate.seconds(run)
        takes = f"{_duration(seconds)}" if seconds else ""
        print(f"{'to do' if run.run_id in missing else 'done':5} {takes:>8}  {run.command}")
    for dataset, scale in dict.fromkeys((run.dataset, run.scale) for run in runs):
        print(f"--dataset={dataset} is {' '.join(flag_files.lines_of(dataset, scale))}")
    print(f"{len(runs)} runs, {len(todo)} to do")
    if left := estimate.total(todo, jobs):
        where = "this machine" if estimate.measured_here else estimate.machine
        print(f"{_duration(left)} left with --jobs={jobs}, by steps measured on {where}")


def _duration(seconds: float) -> str:
    """Some time in words: `40 s`, `5 min`, `3.5 h`, `12 days`."""
    for size, unit, least in ((86400, "days", 3), (3600, "h", 2), (60, "min", 2), (1, "s", 0)):
        if seconds >= least * size:
            digits = 1 if unit == "h" and seconds < 10 * size else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return "0 s"


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run_all.sh", description=__doc__)
    parser.add_argument("--scale", choices=scales.SCALES, default="mini")
    parser.add_argument(
        "--only", type=_items, default=tuple(experiments.ITEMS), help="tables, comma-separated"
    )
    parser.add_argument("--seeds", type=int, default=0, help="seeds of each run; 0: the scale's")
    parser.add_argument("--data_dir", default="", help="folder or archive with the data")
    parser.add_argument("--results_dir", default="", help="default: results/<scale>")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="where")
    address = os.environ.get("RAY_ADDRESS", "auto")
    parser.add_argument("--ray_address", default=address, help="HOST:PORT of the cluster's head")
    parser.add_argument("--task_cpus", type=int, default=1, help="ray: processors for each run")
    parser.add_argument("--task_gpus", type=float, default=0, help="ray: GPUs for each run")
    parser.add_argument("--shard", type=_shard, default=(0, 1), help="i/n: every n-th run from i")
    parser.add_argument("--dry_run", action="store_true", help="list the runs and stop")
    options = parser.parse_args(argv)
    if options.jobs < 1 or options.seeds < 0:
        parser.error("--jobs must be at least 1 and --seeds at least 0")
    if options.task_cpus < 1 or options.task_gpus < 0:
        parser.error("--task_cpus must be at least 1 and --task_gpus at least 0")
    return options


def _items(text: str) -> tuple[str, ...]:
    items = tuple(text.split(","))
    for item in items:
        if item not in experiments.ITEMS:
            accepted = ", ".join(experiments.ITEMS)
            raise argparse.ArgumentTypeError(f"no item {item!r}; there are {accepted}")
    return items


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 0 to n-1")
    return int(index), int(count)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
