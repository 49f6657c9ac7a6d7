"""Trains everything in the paper at one scale, and writes tables, figures and the page."""

import argparse
import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dml_tf.errors import DONE, FAILED, ExecutorError, exit_status
from dml_tf.paper import items as paper_items
from dml_tf.paper import machine, over_seeds, page, plan, rehearsal, scales
from dml_tf.paper.estimate import Estimate
from dml_tf.paper.items import ITEMS
from dml_tf.paper.machine import Machine
from dml_tf.paper.progress import Clock, follow
from dml_tf.paper.workers import Executor, Task, run_tasks
from dml_tf.runs import files, flag_files, records, words
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles, named_weights, needed_weights, record_beside
from dml_tf.runs.words import duration

_SHORT = 60  # seconds of a run whose tracing matters; of longer ones the order of the seeds does


def main(argv: Sequence[str]) -> int:
    """The command `python -m dml_tf.paper run`, or `bash run_all.sh`; returns its exit status."""
    sys.stdout.reconfigure(line_buffering=True)  # so that a log shows the progress
    return exit_status("run_all", functools.partial(_run_all, _parse(argv)))


def _run_all(options: argparse.Namespace) -> int:
    # Absolute paths: workers may run in another directory.
    scale = scales.EXPLORED.get(options.exploratory) or scales.BY_NAME[options.scale]
    scale = scale.with_seeds(options.seeds)
    folder = Path(options.results_dir or scale.results_dir).expanduser().absolute()
    data_dir = options.data_dir and str(Path(options.data_dir).expanduser().absolute())
    if data_dir and not Path(data_dir).exists():
        raise FileNotFoundError(f"--data_dir={options.data_dir}: there is no such file or folder.")
    scale = scale.available(folder, data_dir)
    items = tuple(filter(scale.has, options.only))
    runs = plan.runs(scale, items, results_dir=str(folder), data_dir=data_dir)
    index, count = options.shard
    find = records.find if options.dry_run or options.rehearse else records.reusable
    found = [(run, find(run)) for run in _shard_of(runs, index, count)]
    finished = [(run, record) for run, record in found if record]
    settings = rehearsal.settings(runs)
    rehearsed = [(run, record) for run in settings if (record := rehearsal.find(run))]
    here = machine.share(
        machine.find(), os.cpu_count(), jobs=options.jobs, gpu_jobs=options.gpu_jobs
    )
    estimate = Estimate(finished, rehearsed, here.kind)
    if options.rehearse:
        if options.rehearse == rehearsal.SMALLEST:
            settings = rehearsal.smallest(scale, items, estimate, str(folder), data_dir)
        return _rehearse(folder, settings[index::count], estimate, here, options)
    todo = [run for run, record in found if record is None]
    if options.dry_run:
        _list([run for run, _ in found], todo, estimate, here.jobs)
        return DONE
    _refuse_lost_weights(todo)
    with _alone(folder):
        with _executor(options, here) as executor:
            print(
                f"{len(found)} runs: {len(finished)} done, {len(todo)} to do, "
                f"{executor.slots} at a time"
            )
            failures = _train(_waves(folder, todo, items, estimate), todo, estimate, executor)
        written = page.write(scale, folder, _measured(scale, folder, items))
    print(f"wrote {len(written) - 1} tables and figures, and all of it on one page: {written[-1]}")
    print(page.opening(scale, folder))
    return _status(failures)


def _shard_of(runs: Sequence[Config], index: int, count: int) -> list[Config]:
    """Every n-th run, and those that these learn or start from: a shard has a folder of its own."""
    own = runs[index::count]
    needed = {file for run in own for file in needed_weights(run)}
    return [run for run in runs if run in own or RunFiles.of(run).model in needed]


def _refuse_lost_weights(todo: Sequence[Config]):
    """Refuses runs that name weights which only left a record, as in a clone of a repository."""
    trained = {RunFiles.of(run).model for run in todo}
    # A run whose own weights are here lacks its analysis only.
    untrained = [run for run in todo if not RunFiles.of(run).model.exists()]
    needed = {file for run in untrained for file in named_weights(run)} - trained
    lost = sorted(file for file in needed if record_beside(file).exists() and not file.exists())
    if lost:
        raise FileNotFoundError(
            f"{len(lost)} trained networks that these runs learn or start from are missing, as "
            f"{lost[0]}. Their records are there, so they are not trained again in this folder. "
            "Give another --results_dir: all that is needed is trained there."
        )


def _rehearse(
    folder: Path,
    settings: Sequence[Config],
    estimate: Estimate,
    here: Machine,
    options: argparse.Namespace,
) -> int:
    """Rehearses the settings that are left; prints what was measured of all."""
    left = rehearsal.left(settings, estimate)
    print(f"{len(settings)} settings: {len(settings) - len(left)} rehearsed, {len(left)} to do")
    if options.dry_run:
        for run in left:
            print(f"{duration(rehearsal.seconds(run, estimate)):>8}  {run.command}")
        return DONE
    with _alone(folder), _executor(options, here, one_task_each=True) as executor:
        failures = rehearsal.run_all(left, estimate, executor)
    measured = [(run, record) for run in settings if (record := rehearsal.find(run))]
    print("\n".join(rehearsal.lines(measured, estimate)))
    return _status(failures)


def _status(failures: Sequence[tuple[Task, str]]) -> int:
    """Names the tasks that failed; returns the exit status."""
    for task, reason in failures:
        print(f"FAILED {task.name}: {reason}\n  log: {task.log}", file=sys.stderr)
    return FAILED if failures else DONE


def _alone(folder: Path) -> contextlib.AbstractContextManager:
    """Context that keeps other processes of this command away from a results folder."""
    busy = BlockingIOError(
        f"another run_all is at work in {folder}. Wait for it, or use another --results_dir."
    )
    return files.hold(folder / "locks" / "run_all", busy)


def train_one(report: Callable[[str], None], run: Config):
    """A worker's task: trains one run and reports its epochs."""
    import keras

    from dml_tf.runs import session, train

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            report(f"{epoch + 1}/{self.params['epochs']} epochs")

    with session.one_of_several(run):
        train.run(run, verbose=2, callbacks=[Report()])


def count_parameters(report: Callable[[str], None], file: Path):
    """A worker's task: builds the paper's networks, and writes their sizes for Table 1."""
    from dml_tf import networks

    counts = {}
    for title, name in scales.PAPER_NETWORKS.items():
        report(name)
        network = networks.build(name, num_classes=100, input_shape=(32, 32, 3))
        counts[title] = networks.count_parameters(network)
    records.write(counts, file)


@contextlib.contextmanager
def _executor(
    options: argparse.Namespace, here: Machine, one_task_each: bool = False
) -> Iterator[Executor]:
    if options.executor == "local":
        shares = {"jobs": here.jobs, "threads": here.threads, "gpus": here.gpus}
        run = functools.partial(run_tasks, **shares, one_task_each=one_task_each)
        yield Executor(here.jobs, run)
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


def _waves(
    folder: Path, todo: Sequence[Config], items: Sequence[str], estimate: Estimate
) -> list[list[Task]]:
    """What is left to do, in groups that run one after the other."""
    waves = [[_task(run, estimate) for run in wave] for wave in plan.waves(todo) or [[]]]
    sizes = folder / over_seeds.PARAMETERS
    if "table1" in items and not sizes.exists():
        log = folder / "logs" / "table1.log"
        waves[0].insert(0, Task("table 1", count_parameters, (sizes,), log, writes=(sizes,)))
    return waves


def _task(run: Config, estimate: Estimate) -> Task:
    """A run's task. All seeds of a short run go to one worker, which need not trace them all."""
    seconds = estimate.seconds(run)
    kind = words.title(run.replace(seed=0)) if seconds and seconds < _SHORT else ""
    run_files = RunFiles.of(run)
    own = (run_files.record, run_files.model)
    weights = needed_weights(run)
    # A record says on which data a teacher was trained. Its own: perhaps only an analysis lacks.
    reads = (*weights, *map(record_beside, weights), *own)
    return Task(run.run_id, train_one, (run,), run_files.log, reads, own, words.title(run), kind)


def _train(
    waves: Sequence[Sequence[Task]], todo: Sequence[Config], estimate: Estimate, executor: Executor
) -> list[tuple[Task, str]]:
    """Does the tasks; returns those that failed, with the reasons."""
    estimates = {run.run_id: seconds for run in todo if (seconds := estimate.seconds(run))}
    names = [task.name for wave in waves for task in wave]
    events = itertools.chain.from_iterable(map(executor.run, waves))
    return follow(events, Clock(names, estimates, max(executor.slots, 1)))


def _measured(scale: scales.Scale, folder: Path, asked: Sequence[str]) -> list[str]:
    """The items that were asked for, and all that have records, so that those stay complete."""
    return [
        item
        for item in ITEMS
        if item in asked
        or any(over_seeds.found(cell, scale, folder) for cell in paper_items.cells([item]))
    ]


def _list(runs: Sequence[Config], todo: Sequence[Config], estimate: Estimate, jobs: int):
    """Prints the commands of all runs, the flag files behind them, and how long they take."""
    missing = {run.run_id for run in todo}
    for run in runs:
        seconds = estimate.seconds(run)
        takes = duration(seconds) if seconds else ""
        print(f"{'to do' if run.run_id in missing else 'done':5} {takes:>8}  {run.command}")
    for dataset, scale in dict.fromkeys((run.dataset, run.scale) for run in runs):
        print(f"--dataset={dataset} is {' '.join(flag_files.lines_of(dataset, scale))}")
    print(f"{len(runs)} runs, {len(todo)} to do")
    if left := estimate.total(todo, jobs):
        where = (estimate.kind or "this machine") if estimate.measured_here else estimate.machine
        print(f"{duration(left)} left with --jobs={jobs}, by steps measured on {where}")
    if estimate.kind and not estimate.measured_here:
        print(f"No run was measured on {estimate.kind} yet: --rehearse measures all of them.")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run_all.sh", description=__doc__, allow_abbrev=False)
    parser.add_argument("--scale", choices=scales.BY_NAME, default="mini")
    parser.add_argument(
        "--only", type=_items, default=tuple(ITEMS), help="some items, as in table2,figure3a"
    )
    parser.add_argument(
        "--exploratory",
        default="",
        choices=scales.EXPLORED,
        help="with --scale=cpu: a study that decides nothing, in results/cpu/NAME",
    )
    parser.add_argument("--seeds", type=int, default=0, help="seeds of each run; 0: the scale's")
    parser.add_argument("--data_dir", default="", help="folder or archive with the data")
    parser.add_argument("--results_dir", default="", help="default: results/<scale>")
    parser.add_argument(
        "--jobs", type=int, help="runs at a time; default: one on each GPU or, without, each core"
    )
    parser.add_argument(
        "--gpu_jobs", type=int, default=1, help="runs at a time on each GPU; 0: use no GPU"
    )
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="processes, or a Ray cluster"
    )
    address = os.environ.get("RAY_ADDRESS", "auto")
    parser.add_argument("--ray_address", default=address, help="HOST:PORT of the cluster's head")
    parser.add_argument("--task_cpus", type=int, default=1, help="ray: processors for each run")
    parser.add_argument("--task_gpus", type=float, default=0, help="ray: GPUs for each run")
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), help="i/n: every n-th run, from the i-th on"
    )
    parser.add_argument("--dry_run", action="store_true", help="list the runs and stop")
    parser.add_argument(
        "--rehearse",
        nargs="?",
        const=rehearsal.ALL,
        choices=(rehearsal.ALL, rehearsal.SMALLEST),
        help="make a few steps of every distinct setting, or of each item's smallest, and stop",
    )
    options = parser.parse_args(argv)
    if (options.jobs is not None and options.jobs < 1) or options.seeds < 0:
        parser.error("--jobs must be at least 1 and --seeds at least 0")
    if options.exploratory and options.scale != "cpu":
        parser.error("--exploratory: only --scale=cpu has exploratory runs")
    if options.gpu_jobs < 0:
        parser.error("--gpu_jobs must be at least 0")
    if options.task_cpus < 1 or options.task_gpus < 0:
        parser.error("--task_cpus must be at least 1 and --task_gpus at least 0")
    return options


def _items(text: str) -> tuple[str, ...]:
    items = tuple(text.split(","))
    for item in items:
        if item not in ITEMS:
            accepted = ", ".join(ITEMS)
            raise argparse.ArgumentTypeError(f"no item {item!r}; there are {accepted}")
    return items


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 0 to n-1")
    return int(index), int(count)
