"""The dress rehearsal of a scale: a few steps of each distinct setting, before the runs begin."""

from collections.abc import Callable, Iterable, Sequence

from dml_tf.paper import plan
from dml_tf.paper.estimate import Estimate, kind_of, rehearsed_seconds, train_images
from dml_tf.paper.progress import Clock, follow
from dml_tf.paper.scales import Scale
from dml_tf.paper.workers import Executor, Task
from dml_tf.runs import records
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles
from dml_tf.runs.words import duration
from dml_tf.version import __version__

ALL, SMALLEST = "all", "smallest"
_STEPS = 2  # at each place of the schedule
_SLOW_S = 20.0  # a step that takes longer is made once at each place
_START_S = 25.0  # building, tracing, measuring, saving; for the order and the progress bar only


def settings(runs: Iterable[Config]) -> list[Config]:
    """The runs that differ in more than seed and teacher's seed; of each, the first."""
    chosen: dict[str, Config] = {}
    for run in runs:
        chosen.setdefault(run.replace(seed=0, teacher="").run_id, run)
    return list(chosen.values())


def smallest(
    scale: Scale, items: Sequence[str], estimate: Estimate, results_dir: str, data_dir: str = ""
) -> list[Config]:
    """A setting for each item: one that another item has, too, or that with the shortest step."""
    chosen: dict[str, Config] = {}
    for item in items:
        runs = plan.runs(scale, (item,), results_dir=results_dir, data_dir=data_dir, seeds=1)
        if runs and chosen.keys().isdisjoint(run.run_id for run in runs):
            least = min(runs, key=lambda run: estimate.step_s(run) or float("inf"))
            chosen[least.run_id] = least
    return list(chosen.values())


def find(run: Config) -> dict | None:
    """What was measured, if this version rehearsed these settings."""
    file = RunFiles.of(run).rehearsal
    if not file.exists():
        return None
    record = records.read(file)
    if record["versions"]["dml_tf"] != __version__ or records.differing(record["config"], run):
        return None
    return record


def left(runs: Sequence[Config], estimate: Estimate) -> list[Config]:
    """The settings that were not rehearsed on this kind of machine; short ones come first."""
    missing = [run for run in runs if not (record := find(run)) or kind_of(record) != estimate.kind]
    return sorted(missing, key=lambda run: seconds(run, estimate))


def run_all(
    runs: Sequence[Config], estimate: Estimate, executor: Executor
) -> list[tuple[Task, str]]:
    """Rehearses some settings; returns the tasks that failed, with the reasons."""
    tasks = _tasks(runs, estimate)
    expected = [seconds(run, estimate) for run in runs]
    names = [task.name for task in tasks]
    clock = Clock(names, dict(zip(names, expected, strict=True)), max(executor.slots, 1))
    return follow(executor.run(tasks), clock)


def _tasks(runs: Sequence[Config], estimate: Estimate) -> list[Task]:
    return [
        Task(
            f"rehearsal of {run.run_id}",
            _rehearse,
            (run, train_images(run), _steps(run, estimate)),
            RunFiles.of(run).log.with_name(f"rehearsal-{run.run_id}.log"),
            writes=(RunFiles.of(run).rehearsal,),
        )
        for run in runs
    ]


def _steps(run: Config, estimate: Estimate) -> int:
    """Steps at each place of the schedule."""
    return 1 if (estimate.step_s(run) or 0) > _SLOW_S else _STEPS


def seconds(run: Config, estimate: Estimate) -> float:
    """About how long a rehearsal takes on one core."""
    inner = run.langevin_steps if run.optimizer == "entropy_sgd" else 1
    made = 3 * inner * _steps(run, estimate) + 1  # at three places, and the measures
    return _START_S + made * (estimate.step_s(run) or 0)


def _rehearse(report: Callable[[str], None], run: Config, images: int, steps: int):
    """A worker's task: rehearses one setting, and writes what it measured."""
    from dml_tf.runs import rehearse

    report(f"{steps} steps at the start, the middle and the end")
    records.write(rehearse.rehearse(run, images=images, steps=steps), RunFiles.of(run).rehearsal)


def lines(rehearsed: Sequence[tuple[Config, dict]], estimate: Estimate) -> list[str]:
    """What was measured, in words: four lines for each setting, then what was replaced."""
    described = [line for run, record in rehearsed for line in _describe(run, record, estimate)]
    reasons = [reason for _, record in rehearsed for reason in record["replaced"]]
    return [*described, *(f"Note: {reason}" for reason in dict.fromkeys(reasons))]


def _describe(run: Config, record: dict, estimate: Estimate) -> list[str]:
    sizes = " + ".join(f"{count / 1e6:.2f}M" for count in record["parameters"].values())
    memory = ", ".join(
        f"{peak / 2**30:.1f} GiB {place}" for place, peak in record["peak_memory"].items()
    )
    total = f"{duration(rehearsed_seconds(record))} on {record['machine']}"
    for kind in set(estimate.kinds) - {kind_of(record)}:
        total += f", {duration(estimate.seconds(run, kind))} on {kind or 'a processor'}"
    places = record["places"].values()
    rates = ", ".join(f"{place['learning_rate']:.3g}" for place in places)
    updates = ", ".join(f"{place['update']:.2g}" for place in places)
    return [
        record["command"],
        f"  {sizes} parameters; {record['step_s']:.3g} s a step; peak memory {memory}",
        f"  learning rate {rates}; largest update of a kernel relative to the kernel {updates}",
        f"  {record['steps']:,} steps: {total}",
    ]
