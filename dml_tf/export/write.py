"""Writes the training step of a run as a program that needs no TensorFlow.

The program is one mini-batch of Algorithm 1 for all peers, forwards, backwards and updates, as
StableHLO: `main(images, labels, *variables) -> new values of the variables that it updates`. The
variables are the cohort's weights, with BatchNorm's statistics, and its seed generators' states;
each student's optimizer, first its count of steps; each student's learning rate; and each metric's
total and count. `folder.CONVENTIONS` describes the rest.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dml_tf.atomic import write_text, write_whole
from dml_tf.data import STREAMED_DATASETS, Split, Splits
from dml_tf.errors import FlagError
from dml_tf.export.folder import (
    CONVENTIONS,
    FORMAT,
    IMAGES,
    MANIFEST,
    PROGRAM,
    Export,
    describe,
    with_digest,
)
from dml_tf.method.cohort import Cohort
from dml_tf.runs import build, checkpoint, memory, train
from dml_tf.runs.config import Config
from dml_tf.version import __version__


def export_seeds(config: Config, folder: Path, seeds: Sequence[int]) -> list[Export]:
    """Writes the runs of several seeds, which have one program, into `seed0`, `seed1`, ...

    A seed that stands in the program, as entropy_sgd's, is noticed between the first two.

    Args:
        config: The settings of all runs.
        folder: Where the runs' folders are made.
        seeds: The seeds.

    Returns:
        The exported runs.

    Raises:
        FlagError, FileNotFoundError, RunFailed: As `export`.
    """
    configs = [config.replace(seed=seed) for seed in seeds]
    folders = [folder / f"seed{seed}" for seed in seeds]
    for each, place in zip(configs, folders, strict=True):
        _check(each, place)
    exported = []
    for i, (each, place) in enumerate(zip(configs, folders, strict=True)):
        like = exported[0] if i > 1 and exported[0].has_step_of(exported[1]) else None
        exported.append(export(each, place, like))
    return exported


def export(config: Config, folder: Path, like: Export | None = None) -> Export:
    """Writes the step, the initial state and the images of a run.

    With dropout the seed generators pass through the same states as in Keras, but XLA draws other
    masks from them than TensorFlow's kernels do.

    Args:
        config: The run's settings.
        folder: Where to write. A folder that holds a step is refused unless `overwrite` is set.
        like: An exported run that has the same program; by default the step is traced.

    Returns:
        The exported run.

    Raises:
        FlagError: The folder holds a step, or a setting is not for an exported step.
        FileNotFoundError: Data or the teacher are missing.
        RunFailed: Data are refused.
    """
    build.check_network_names(config)
    _check(config, folder)
    memory.refuse_too_large(config)
    splits = build.load_data(config)
    build.check_fit(config, splits)
    train.ensure_teacher(config)
    cohort = build.build_cohort(config, splits)
    variables = _variables(cohort, learning_rates(cohort))
    batch_shape = (config.batch_size, *splits.train.images.shape[1:])
    if like is None:
        program, updated = lower(cohort, variables, batch_shape)
    else:
        program = like.read_program()
        updated = [i for i, v in enumerate(like.manifest["variables"]) if v["updated"]]
    rates = _rates_by_epoch(config, len(splits.train))
    manifest = _describe_run(config, splits)
    manifest |= _describe_program(cohort, variables, updated, rates)
    exported = Export(folder, manifest, config)
    _write(exported, program, splits.train, checkpoint.values(variables))
    return exported


def _check(config: Config, folder: Path):
    if (folder / MANIFEST).is_file() and not config.overwrite:
        raise FlagError(f"{folder} holds a step already: name another, or add --overwrite.")
    if config.dataset in STREAMED_DATASETS:
        raise FlagError(
            f"--dataset={config.dataset}: an exported step takes its images from memory, and "
            "these stay on disk; use train.py."
        )
    if config.augment == "randaugment" or config.mixup or config.patience:
        raise FlagError(
            "--augment=randaugment, --mixup and --patience are not for an exported step: leave "
            "them out."
        )
    if config.own_views or config.stale_steps:
        raise FlagError(
            "--own_views and --stale_steps are not for an exported step, which has one view of an "
            "image and no copies of peers: leave them out."
        )
    if config.stored_size not in (0, config.image_size):
        raise FlagError(
            f"--stored_size={config.stored_size}: an exported step takes its images as large as "
            "they are in memory; add --stored_size=0 to store them at --image_size."
        )
    for name in ("placement", "steps_per_execution", "jit_compile"):
        value, default = getattr(config, name), getattr(Config, name)
        if value != default:
            raise FlagError(
                f"--{name}={value}: an exported step is compiled for one device by the machine "
                f"that runs it; leave the flag at {default}."
            )
    if config.precision == "mixed_float16":
        raise FlagError(
            "--precision=mixed_float16: its loss scale takes a branch, which an exported step has "
            "not; use mixed_bfloat16."
        )


def learning_rates(cohort: Cohort) -> list[keras.Variable]:
    """Makes each student's learning rate a variable, so that the program takes it as an input."""
    for optimizer in cohort.optimizers:
        rate = optimizer.learning_rate
        if not isinstance(rate, keras.Variable):  # a schedule's value
            rate = keras.Variable(rate, trainable=False, name="learning_rate")
            optimizer.learning_rate = lambda rate=rate: rate
    return [optimizer.learning_rate for optimizer in cohort.optimizers]


def _variables(cohort: Cohort, rates: Sequence) -> list:
    """All that a step reads or writes, each once, in the program's order."""
    metrics = [v for metric in cohort.metrics for v in (metric.total, metric.count)]
    return list({id(v): v for v in (*checkpoint.variables(cohort), *rates, *metrics)}.values())


def lower(cohort: Cohort, variables: Sequence, image_shape: Sequence[int]) -> tuple[str, list[int]]:
    """The training step as StableHLO, and the places of the variables that it returns.

    `variables` must be all that the step reads or writes; their order is the program's.
    """

    @tf.function(jit_compile=True, autograph=False)
    def step(images, labels):
        for variable in variables:  # a program's arguments come in the order of the first reads
            tf.identity(variable)
        cohort.train_step((images, labels))

    batch = (
        tf.TensorSpec(image_shape, tf.float32, name="images"),
        tf.TensorSpec(image_shape[:1], tf.int64, name="labels"),
    )
    captured = step.get_concrete_function(*batch).captured_inputs
    if [id(handle) for handle in captured] != [id(v.value.handle) for v in variables]:
        raise RuntimeError(f"The step reads {len(captured)} variables, not {len(variables)}.")
    text = step.experimental_get_compiler_ir(*batch)(stage="stablehlo")
    # Result i is the new value of the variable with which it shares its memory.
    alias = r"parameter_number = (\d+) : i64\}, output_index = array<i64: (\d+)>"
    places = {int(result): int(place) - len(batch) for place, result in re.findall(alias, text)}
    return _without_xla(text), [places[result] for result in range(len(places))]


def _without_xla(text: str) -> str:
    """The program without XLA's own operations, which other readers of StableHLO refuse."""
    text = text.replace("mhlo.copy", "stablehlo.optimization_barrier")
    text = re.sub(r"^(module @\S+) attributes \{.*\} \{$", r"\1 {", text, flags=re.MULTILINE)
    return re.sub(r" \{mhlo\.frontend_attributes = \{[^}]*\}\}", "", text)


def _describe_run(config: Config, splits: Splits) -> dict:
    """The manifest's part about the run."""
    normalisation = {"mean": splits.mean.tolist(), "std": splits.std.tolist()}
    return {
        "format": FORMAT,
        "conventions": CONVENTIONS,
        "run_id": config.run_id,
        "command": config.command,
        "config": config.comparable(),
        "data_dir": config.data_dir,
        "results_dir": config.results_dir,
        "images": describe(splits.train) | normalisation,
        **config.schedule(len(splits.train))._asdict(),
        "versions": {"dml_tf": __version__, "tensorflow": tf.__version__},
    }


def _describe_program(
    cohort: Cohort, variables: Sequence, updated: Sequence[int], rates: Sequence[float]
) -> dict:
    """The manifest's part about the program, and the learning rates of its epochs."""
    place = {id(v): i for i, v in enumerate(variables)}
    return {
        "variables": [
            {"name": v.path, "shape": list(v.shape), "dtype": v.dtype, "updated": i in updated}
            for i, v in enumerate(variables)
        ],
        "learning_rate": {
            "places": [place[id(optimizer.learning_rate)] for optimizer in cohort.optimizers],
            "by_epoch": rates,
        },
        "metrics": {m.name: [place[id(m.total)], place[id(m.count)]] for m in cohort.metrics},
    }


def _rates_by_epoch(config: Config, images: int) -> list[float]:
    """The learning rate of each epoch; it changes between epochs only."""
    _, epochs, per_epoch = config.schedule(images)
    rate = build.learning_rate(config, per_epoch)
    return [float(rate(e * per_epoch)) if callable(rate) else rate for e in range(epochs)]


def _write(exported: Export, program: str, images: Split, values: Sequence[np.ndarray]):
    """Writes the four files; the manifest last, because without it a folder holds no step."""
    start = {"epoch": 0, "step": 0, "history": {}, "wall_clock_s": 0.0, "cpu_s": 0.0}
    start |= {"config": exported.manifest["config"], "trained_on": []}
    folder = exported.folder
    with exported.hold():
        (folder / MANIFEST).unlink(missing_ok=True)
        write_text(folder / PROGRAM, program)
        with write_whole(folder / IMAGES) as part:
            np.savez(part, images=images.images, labels=images.labels)
        exported.save_state(start, values)
        sha256 = hashlib.sha256(program.encode()).hexdigest()
        manifest = with_digest(exported.manifest | {"program_sha256": sha256})
        text = json.dumps(manifest, indent=1, allow_nan=False)
        write_text(folder / MANIFEST, text + "\n")
