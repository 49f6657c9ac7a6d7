"""Measures where the time of a whole run goes: steps, tracing, evaluation, and everything else.

Examples, from the root of the repository:
  python -m benchmarks.run_time --datasets=digits
  python -m benchmarks.run_time --sweep=mini

Each run is a pair at mini or cpu scale, or all runs of a scale. `dml_tf.runs.train.run` trains it
in this process, as in a worker of `run_all.sh`. Stopwatches stand around the parts of a run. A
second counts for the innermost part only, so that the parts add up to the whole. The first call of
a function, which traces it, counts as tracing.
"""

import argparse
import contextlib
import functools
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import keras

from benchmarks import harness
from dml_tf import data
from dml_tf.measures import analysis, evaluate
from dml_tf.paper import plan, scales
from dml_tf.runs import (
    build,
    callbacks,
    checkpoint,
    config,
    memory,
    progress,
    quiet,
    records,
    results,
    session,
    summaries,
    train,
    words,
)

RUNS = {
    "digits": {"scale": "mini", "net": ("resnet8:16",)},
    "cifar10": {"scale": "cpu", "net": ("resnet8:16",)},
    "pedestrians": {"scale": "mini", "net": ("mobilenet_short:0.5",)},
}
WANTED = ("steps", "tracing", "evaluation")
OTHER = ("building", "data", "checkpoints", "summaries", "messages", "checks", "results", "rest")
PARTS = (*WANTED, *OTHER)
COLUMNS = (
    "run", "steps", "CPU, s", *PARTS, "steps, tracing and evaluation", "the same, wall-clock",
)  # fmt: skip
CALLBACKS = {
    checkpoint.Checkpoint: "checkpoints",
    summaries.Summaries: "summaries",
    progress.Progress: "messages",
    callbacks.StopAtNaN: "checks",
    callbacks.Warn: "checks",
}
FUNCTIONS = {
    (build, "load_data"): "data",
    (data, "train_batches"): "tracing",  # of the functions that make a batch
    (build, "build_cohort"): "building",
    (train, "settle_statistics"): "steps",  # forward passes over training batches
    (memory, "refuse_too_large"): "checks",
    (records, "reusable"): "checks",
    (evaluate, "measure"): "evaluation",
    (evaluate, "measure_reid"): "evaluation",
    (evaluate, "extract_features"): "evaluation",
    (analysis, "analyse"): "evaluation",
    (results, "save_model"): "results",
    (records, "write"): "results",
}


class Stopwatch:
    """CPU time and wall-clock of each part; while an inner part runs, the outer one's stand still.

    Attributes:
        cpu: Seconds of all threads, by part.
        wall: Seconds of wall-clock, by part.
    """

    def __init__(self):
        self.cpu, self.wall = Counter(), Counter()
        self._running: list[str] = []
        self._since = _now()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context whose time belongs to a part."""
        self._note()
        self._running.append(name)
        try:
            yield
        finally:
            self._note()
            self._running.pop()

    def around(self, name: str, call: Callable) -> Callable:
        """The same function, with its time counted for a part."""

        @functools.wraps(call)
        def timed(*args, **options):
            with self.part(name):
                return call(*args, **options)

        return timed

    def after_first(self, name: str, call: Callable) -> Callable:
        """The same function; its first call counts as tracing, the others for a part."""
        parts = iter(["tracing"])

        def timed(*args):
            with self.part(next(parts, name)):
                return call(*args)

        return timed

    def _note(self):
        now = _now()
        if self._running:
            self.cpu[self._running[-1]] += now[0] - self._since[0]
            self.wall[self._running[-1]] += now[1] - self._since[1]
        self._since = now


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = parse(argv)
    quiet.import_tensorflow(args.threads)
    if args.sweep:
        rows = [measure_sweep(args)]
    else:
        rows = [_middle([measure(n, args) for _ in range(args.repeats)]) for n in args.datasets]
    record = harness.record("run_time", argv, args, rows=rows)
    tables = [harness.table(COLUMNS, map(_cells, rows))]
    shown = f"the run of the median CPU time of {args.repeats}"
    if args.sweep:
        shown = "two seeds of each setting were trained"
    title = "Where the CPU time of a run goes, in percent"
    harness.finish(record, title, tables, args.out, shown)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("run_time", __doc__, repeats=1, has_batches=False)
    parser.add_argument("--datasets", type=harness.names, default=list(RUNS), help=", ".join(RUNS))
    parser.add_argument("--data_dir", default="", help="folder with CIFAR-10")
    parser.add_argument("--sweep", default="", help="a scale: all of its runs, in place of pairs")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0: the whole run")
    parser.add_argument("--threads", type=harness.positive, default=1, help="of TensorFlow")
    args = parser.parse_args(argv)
    if unknown := set(args.datasets) - set(RUNS):
        parser.error(f"--datasets: no run of {', '.join(sorted(unknown))}")
    if args.sweep and args.repeats > 1:
        parser.error("--sweep trains each setting once: leave --repeats out")
    if args.sweep not in ("", *scales.BY_NAME):
        parser.error(f"--sweep: give one of {', '.join(scales.BY_NAME)}")
    return args


def measure(dataset: str, args: argparse.Namespace) -> dict:
    """Trains one pair; returns its steps, seconds, and seconds of each part."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        flags = {**RUNS[dataset], "cohort": 2, "results_dir": folder}
        if dataset == "cifar10":
            flags["data_dir"] = args.data_dir
        if args.steps:
            flags |= {"steps": args.steps, "epochs": 0}
        asked = config.load(dataset=dataset, **flags)
        # This draws generated pictures. Those of another seed are loaded, so that the run loads
        # its own.
        build.load_data(asked.replace(seed=asked.seed + 1))
        with _watched(watch):
            steps = _train(watch, asked)
    session.clear()
    return _row(f"{dataset}, {asked.scale}: {' + '.join(asked.net)}", steps, watch.cpu, watch.wall)


def measure_sweep(args: argparse.Namespace) -> dict:
    """All runs of a scale by one worker, from the first two seeds of each setting.

    The first seed of a setting is traced. The others take over its trace, and count as the second.
    """
    watch, cpu, wall, steps = Stopwatch(), Counter(), Counter(), 0
    with tempfile.TemporaryDirectory() as folder, _watched(watch):
        settings = _settings(args.sweep, folder, args.data_dir)
        for dataset in {runs[0].dataset: runs[0] for runs in settings}.values():
            build.load_data(dataset)
        for runs in settings:
            for run, times in zip(runs, (1, len(runs) - 1), strict=False):
                watch.cpu.clear()
                watch.wall.clear()
                asked = run.replace(steps=args.steps, epochs=0) if args.steps else run
                steps += times * _train(watch, asked)
                for total, own in ((cpu, watch.cpu), (wall, watch.wall)):
                    total.update({part: times * seconds for part, seconds in own.items()})
    session.clear()
    count = sum(map(len, settings))
    return _row(f"all {count} runs of the scale {args.sweep}", steps, cpu, wall)


def _settings(scale: str, folder: str, data_dir: str) -> list[list[config.Config]]:
    """The runs of a scale, all seeds of a setting together; those with teachers last."""
    runs = plan.runs(scales.BY_NAME[scale], results_dir=folder, data_dir=data_dir)
    settings = defaultdict(list)
    for run in [run for wave in plan.waves(runs) for run in wave]:
        settings[words.title(run.replace(seed=0))].append(run)
    return list(settings.values())


def _train(watch: Stopwatch, asked: config.Config) -> int:
    """Trains a run on the watch; returns its steps."""
    with watch.part("rest"), session.one_of_several(asked):
        return train.run(asked, verbose=2)["steps"]


def _row(name: str, steps: int, cpu: Counter, wall: Counter) -> dict:
    """Steps, seconds of each part, and the share of what a run is for."""
    return {
        "run": name,
        "steps": steps,
        "cpu_s": {part: cpu[part] for part in PARTS},
        "wall_s": {part: wall[part] for part in PARTS},
        "wanted": sum(cpu[part] for part in WANTED) / sum(cpu.values()),
        "wanted_wall": sum(wall[part] for part in WANTED) / sum(wall.values()),
    }


@contextlib.contextmanager
def _watched(watch: Stopwatch) -> Iterator[None]:
    """Puts a watch around the parts of a run, and takes it off again."""
    with contextlib.ExitStack() as stack:
        for (place, name), part in FUNCTIONS.items():
            stack.enter_context(_replaced(place, name, functools.partial(watch.around, part)))
        for kind, part in CALLBACKS.items():
            for name in [name for name in vars(kind) if name.startswith("on_")]:
                stack.enter_context(_replaced(kind, name, functools.partial(watch.around, part)))
        for function, part in (
            ("train", "steps"),
            ("test", "evaluation"),
            ("predict", "evaluation"),
        ):
            stack.enter_context(_replaced_function(watch, function, part))
        yield


@contextlib.contextmanager
def _replaced(place: object, name: str, wrap: Callable[[Callable], Callable]) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, wrap(before))
    try:
        yield
    finally:
        setattr(place, name, before)


def _replaced_function(watch: Stopwatch, name: str, part: str):
    """Keras makes its functions of a step once a model: those get a watch."""
    attribute = f"{name}_function"

    def wrap(make):
        def made(model, force=False):
            new = force or getattr(model, attribute) is None
            make(model, force)
            if new:
                setattr(model, attribute, watch.after_first(part, getattr(model, attribute)))

        return made

    return _replaced(keras.Model, f"make_{attribute}", wrap)


def _middle(rows: Sequence[dict]) -> dict:
    """The run of the median CPU time."""
    return sorted(rows, key=lambda row: sum(row["cpu_s"].values()))[len(rows) // 2]


def _cells(row: dict) -> list[str]:
    total = sum(row["cpu_s"].values())
    shares = [f"{100 * row['cpu_s'][part] / total:.1f}" for part in PARTS]
    wanted = [f"{100 * row[name]:.1f}" for name in ("wanted", "wanted_wall")]
    return [row["run"], f"{row['steps']:,}", f"{total:.1f}", *shares, *wanted]


if __name__ == "__main__":
    main(sys.argv[1:])
