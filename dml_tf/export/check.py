"""Compares an exported step on JAX's default device, before a long run."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dml_tf.export.folder import Export
from dml_tf.export.jax_step import (
    FORMS,
    Trainer,
    advance_together,
    device_errors,
    find_device,
    in_one_dispatch,
)
from dml_tf.export.run import refuse_others

STEPS = 20
JUDGED = 5  # of them; later steps begin at larger losses, where rounding is larger too
LOSS_TOLERANCE = 1e-4  # nats, of a single step in float32


def passes(differences: np.ndarray) -> bool:
    """Whether the losses of the first `JUDGED` steps agree; a difference that is no number fails.

    Args:
        differences: Of a loss and of a variable, shape `(steps, 2)`.
    """
    return bool(np.max(differences[:JUDGED, 0]) <= LOSS_TOLERANCE)


@device_errors()
def check(
    folder: Path, data_dir: Path | None = None, loader: str | None = None
) -> dict[str, np.ndarray]:
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
        of a variable, of each step; shape `(steps, 2)`.

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
    found = {precision: [] for precision in trainers}
    for step in range(min(STEPS, export.schedule.steps)):
        epoch, i = divmod(step, export.schedule.steps_per_epoch)
        before = reference.reset_metrics(variables)
        variables = jax.device_get(reference.advance(before, epoch, i, i + 1))
        for precision, trainer in trainers.items():
            other = jax.device_get(trainer.advance(before, epoch, i, i + 1))
            found[precision].append(_differences(trainer, export, variables, other))
    return {precision: np.array(rows) for precision, rows in found.items()}


@device_errors()
def check_together(
    folders: Sequence[Path], data_dir: Path | None = None, loader: str | None = None
) -> np.ndarray:
    """Compares runs as one batched program with each run's own, on the default device, in float32.

    Args:
        folders: Exported runs of the same step.
        data_dir: As for `check`.
        loader: As for `check`, of the runs' own program.

    Returns:
        The largest difference of a loss, in nats, and of a variable, of each step; shape
        `(steps, 2)`.

    Raises:
        FlagError: The runs cannot be one program.
    """
    exports = [Export.read(folder) for folder in folders]
    refuse_others(exports)
    alone, many = (
        _trainers(exports, data_dir, form, own)
        for form, own in (("calls", loader), ("batched", None))
    )
    states, found = [export.read_state()[1] for export in exports], []
    for step in range(min(JUDGED, exports[0].schedule.steps)):
        epoch, i = divmod(step, exports[0].schedule.steps_per_epoch)
        before = [t.reset_metrics(state) for t, state in zip(alone, states, strict=True)]
        places = [(t, state, epoch, i) for t, state in zip(many, before, strict=True)]
        others = jax.device_get(advance_together(places, 1))
        states = [
            jax.device_get(t.advance(state, epoch, i, i + 1))
            for t, state in zip(alone, before, strict=True)
        ]
        rows = map(_differences, alone, exports, states, others)
        found.append(np.max(list(rows), axis=0))
    return np.array(found)


def _trainers(
    exports: Sequence[Export], data_dir: Path | None, form: str, loader: str | None
) -> list[Trainer]:
    trainers = []
    for export in exports:
        beside = trainers[0] if trainers else None
        images = export.training_set(data_dir)
        trainers.append(
            Trainer(export, images, find_device(), "highest", form=FORMS[form], loader=loader,
                    beside=beside)
        )  # fmt: skip
    return trainers


def _differences(
    trainer: Trainer, export: Export, first: Sequence, second: Sequence
) -> tuple[float, float]:
    """Largest difference of a loss, and of an updated variable that is no metric's."""
    losses = [
        [value for name, value in trainer.metrics(state).items() if name.endswith("_loss")]
        for state in (first, second)
    ]
    metrics = {i for pair in export.manifest["metrics"].values() for i in pair}
    apart = [
        np.max(np.abs(first[i] - second[i]))
        for i, variable in enumerate(export.manifest["variables"])
        if variable["updated"] and i not in metrics
    ]
    return float(np.max(np.abs(np.subtract(*losses)))), float(np.max(apart))
