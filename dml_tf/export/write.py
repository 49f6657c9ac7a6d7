"""Writes a run's training step as a program that needs no TensorFlow.

    python -m dml_tf.export_step --dataset=cifar10 --net=resnet32 --cohort=2 OUT_DIR

takes the flags of train.py and writes into OUT_DIR

- `step.mlir`: one mini-batch of Algorithm 1 for all peers, forwards, backwards and updates, as
  StableHLO: `main(images, labels, *variables) -> new values of the variables that it updates`,
  both in the manifest's order. Images are normalised, `(batch, height, width, channels)`,
  float32; labels are `(batch,)`, int64, -1 where unlabelled. The variables are the cohort's
  weights, with BatchNorm's statistics, and its seed generators' states; each student's optimizer,
  first its count of steps; each student's learning rate; and each metric's total and count.
- `manifest.json`: the run's settings, the variables, the learning rates, the images' sums, and in
  words the order, augmentation and normalisation of the images. See `dml_tf.exported`.
- `state.npz`: the variables' initial values. `dml_tf.run_step` replaces it as it goes on.
- `images.npz`: the training images and labels that the flags choose, as bytes. It may stay
  behind where `dml_tf.run_step` has the photographs from elsewhere.

Independent training is a cohort of one. With --dropout the seed generators go through the same
states as in Keras, but XLA draws other masks from them than TensorFlow's kernels do.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from dml_tf import __version__
from dml_tf.export import folder as exported
from dml_tf.runs import build, config, files, flags, quiet
from dml_tf.runs.errors import FlagError, RecordMismatch, RunFailed

HELP = {"--help", "-h", "-help"}


def main(argv: Sequence[str]) -> int:
    """Exports what the flags ask for.

    Args:
        argv: Flags, then the folder.

    Returns:
        Exit status: 0 done; 1 data or a teacher are missing or refused; 2 bad flags.
    """
    if HELP & set(argv):
        print(f"{__doc__}\n{flags.flag_help()}")
        return 0
    try:
        settings, folder = parse(argv)
        quiet.import_tensorflow()
        from dml_tf import networks

        for name in settings.net:
            networks.parse(name)
    except ValueError as error:
        return _fail(error, 2)
    try:
        manifest = export(settings, folder)
    except FlagError as error:
        return _fail(error, 2)
    except (OSError, RecordMismatch, RunFailed) as error:
        return _fail(error, 1)
    print(
        f"{folder}: a step of {manifest['run_id']} with {len(manifest['variables'])} variables, "
        f"for {manifest['steps']} steps. Run it with `python -m dml_tf.run_step {folder}`."
    )
    return 0


def parse(argv: Sequence[str]) -> tuple[config.Config, Path]:
    """Reads the command line.

    Args:
        argv: Flags, then the folder.

    Returns:
        The run's settings and the folder.

    Raises:
        FlagError: For flags that cannot be taken, or no folder.
    """
    if not argv or argv[-1].startswith("-"):
        raise FlagError("OUT_DIR is missing: name the folder to write to, after the flags.")
    return flags.parse(argv[:-1]), Path(argv[-1])


def export(settings: config.Config, folder: Path) -> dict:
    """Writes the step, the initial state and the images of a run.

    Args:
        settings: The run's settings.
        folder: Where to; one that holds a step is refused unless `overwrite` is set.

    Returns:
        The manifest.

    Raises:
        FlagError: The folder holds a step.
        FileNotFoundError: Data or the teacher are missing.
        RunFailed: Data are refused.
    """
    import numpy as np

    from dml_tf import data
    from dml_tf.runs import checkpoint

    if exported.exists(folder) and not settings.overwrite:
        raise FlagError(f"{folder} holds a step already: name another, or add --overwrite.")
    if settings.dataset in data.STREAMED_DATASETS:
        raise FlagError(
            f"--dataset={settings.dataset}: an exported step takes its images from memory, and "
            "these stay on disk; use train.py."
        )
    for name in ("placement", "precision", "steps_per_execution", "jit_compile"):
        default = getattr(config.Config, name)
        if getattr(settings, name) != default:
            raise FlagError(
                f"--{name}={getattr(settings, name)}: an exported step is compiled for one device, "
                f"in float32, by the machine that runs it; leave the flag at {default}."
            )
    splits = build.load_data(settings)
    cohort = build.build_cohort(settings, splits)
    images, labels = splits.train.images, splits.train.labels
    own = checkpoint.variables(cohort)
    rates = learning_rates(cohort)
    metrics = [v for metric in cohort.metrics for v in (metric.total, metric.count)]
    variables = list({id(v): v for v in (*own, *rates, *metrics)}.values())
    text, updated = lower(cohort, variables, (settings.batch_size, *images.shape[1:]))
    place = {id(v): i for i, v in enumerate(variables)}
    manifest = _settings(settings, splits) | {
        "variables": [
            {"name": v.path, "shape": list(v.shape), "dtype": v.dtype, "updated": i in updated}
            for i, v in enumerate(variables)
        ],
        "learning_rate": {
            "places": [place[id(rate)] for rate in rates],
            "by_epoch": _rates_by_epoch(settings, splits),
        },
        "metrics": {m.name: [place[id(m.total)], place[id(m.count)]] for m in cohort.metrics},
    }
    start = {"epoch": 0, "step": 0, "history": {}, "wall_clock_s": 0.0, "cpu_s": 0.0}
    start |= {"config": settings.comparable(), "trained_on": []}
    folder.mkdir(parents=True, exist_ok=True)
    with exported.hold(folder):
        (folder / exported.MANIFEST).unlink(missing_ok=True)  # no step while half is new
        (folder / exported.PROGRAM).write_text(text, encoding="utf-8")
        np.savez(folder / exported.IMAGES, images=images, labels=labels)
        files.save_state(folder / exported.STATE, start, [v.numpy() for v in variables])
        exported.write_manifest(folder, manifest)
    return manifest


def _settings(settings: config.Config, splits) -> dict:
    """What the manifest says of the run, not of the program."""
    import tensorflow as tf

    schedule = settings.schedule(len(splits.train))
    images = exported.describe(splits.train.images, splits.train.labels)
    return {
        "conventions": exported.CONVENTIONS,
        "run_id": settings.run_id,
        "command": settings.command,
        "config": settings.comparable(),
        "data_dir": settings.data_dir,
        "results_dir": settings.results_dir,
        "images": images | {"mean": splits.mean.tolist(), "std": splits.std.tolist()},
        "steps": schedule.steps,
        "steps_per_epoch": schedule.steps_per_epoch,
        "versions": {"dml_tf": __version__, "tensorflow": tf.__version__},
    }


def _rates_by_epoch(settings: config.Config, splits) -> list[float]:
    """The schedule of a run, which changes between epochs only."""
    _, epochs, per_epoch = settings.schedule(len(splits.train))
    rate = build.learning_rate(settings, per_epoch)
    return [float(rate(e * per_epoch)) if callable(rate) else rate for e in range(epochs)]


def learning_rates(cohort) -> list:
    """Makes each student's learning rate a variable, so that the program takes it as an input.

    Args:
        cohort: A compiled `dml_tf.Cohort`; its optimizers' schedules are replaced.

    Returns:
        The variables, in the students' order.
    """
    import keras

    for optimizer in cohort.optimizers:
        rate = optimizer.learning_rate
        if not isinstance(rate, keras.Variable):  # a schedule's value
            rate = keras.Variable(rate, trainable=False, name="learning_rate")
            optimizer.learning_rate = lambda rate=rate: rate
    return [optimizer.learning_rate for optimizer in cohort.optimizers]


def lower(cohort, variables: Sequence, image_shape: Sequence[int]) -> tuple[str, list[int]]:
    """The training step of a cohort as StableHLO.

    Args:
        cohort: A compiled, built `dml_tf.Cohort`.
        variables: All that the step reads or writes, in the order that the program shall have.
        image_shape: Shape of a batch of images, `(batch, height, width, channels)`.

    Returns:
        The program, `main(images, labels, *variables)`, and the places of the variables whose new
        values it returns, in their order.

    Raises:
        RuntimeError: The step uses a variable that is not in the list.
    """
    import tensorflow as tf

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
    return _mend(text), [places[result] for result in range(len(places))]


def _mend(text: str) -> str:
    """Takes out what is XLA's own, which other readers of StableHLO refuse."""
    text = text.replace("mhlo.copy", "stablehlo.optimization_barrier")
    text = re.sub(r"^(module @\S+) attributes \{.*\} \{$", r"\1 {", text, flags=re.MULTILINE)
    return re.sub(r" \{mhlo\.frontend_attributes = \{[^}]*\}\}", "", text)


def _fail(reason, status: int) -> int:
    print(f"export_step: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
