"""Compares an exported step on JAX's default device with the CPU, before a long run."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dml_tf.export.folder import Export
from dml_tf.export.jax_step import Trainer, device_errors, find_device, in_one_dispatch

STEPS = 20
LOSS_TOLERANCE = 1e-4  # nats, of a single step in float32


@device_errors()
def check(
    folder: Path, data_dir: Path | None = None, loader: str | None = None
) -> dict[str, tuple[float, float]]:
    """Compares single steps on the default device with the CPU's.

    Each step starts from the state that the CPU has reached: a trajectory at the paper's learning
    rate amplifies one rounding a thousandfold within a few steps. On a machine whose default
    device is the CPU, steps in a loop are compared with single ones.

    Args:
        folder: What `python -m dml_tf.export write` wrote.
        data_dir: Where the images are. Default: in the folder.
        loader: One of `load.LOADERS`; by default the first that works.

    Returns:
        For the precisions `highest` and `default`, the largest difference of a loss, in nats, and
        of a variable. With `highest`, a loss may differ by `LOSS_TOLERANCE`.

    Raises:
        FileNotFoundError: The step or its images are missing.
        ValueError: The images are not those of the run, or a file is damaged.
        RunFailed: The device failed.
    """
    export = Export.read(folder)
    images = export.training_set(data_dir)
    reference = Trainer(export, images, find_device("cpu"), "highest", loader=loader)
    trainers = {
        precision: Trainer(export, images, find_device(), precision, in_one_dispatch, loader=loader)
        for precision in ("highest", "default")
    }
    _, variables = export.read_state()
    worst = dict.fromkeys(trainers, (0.0, 0.0))
    for step in range(min(STEPS, export.schedule.steps)):
        epoch, i = divmod(step, export.schedule.steps_per_epoch)
        before = reference.reset_metrics(variables)
        variables = jax.device_get(reference.advance(before, epoch, i, i + 1))
        for precision, trainer in trainers.items():
            other = jax.device_get(trainer.advance(before, epoch, i, i + 1))
            loss = _loss_difference(reference.metrics(variables), trainer.metrics(other))
            variable = _largest_difference(variables, other, export)
            worst[precision] = max(worst[precision][0], loss), max(worst[precision][1], variable)
    return worst


def _loss_difference(first: dict[str, float], second: dict[str, float]) -> float:
    return max(abs(first[name] - second[name]) for name in first if name.endswith("_loss"))


def _largest_difference(first: Sequence, second: Sequence, export: Export) -> float:
    """Largest difference of a variable that a step updates and that is no metric's."""
    metrics = {i for pair in export.manifest["metrics"].values() for i in pair}
    return max(
        float(np.max(np.abs(first[i] - second[i])))
        for i, variable in enumerate(export.manifest["variables"])
        if variable["updated"] and i not in metrics
    )
