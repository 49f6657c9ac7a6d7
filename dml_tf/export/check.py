"""Compares an exported step on JAX's default device with the CPU's, before a long run.

    python -m dml_tf.check_step OUT_DIR

does 20 steps of the run, each from the state that the CPU has reached: a trajectory at the
paper's learning rate amplifies one rounding a thousandfold within a few steps. Prints the largest
difference of a loss and of a variable, for float32 products, which must agree, and for the
device's own. Where the CPU is the default device, steps in a loop are compared with single ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dml_tf.export import folder as exported
from dml_tf.export import jax_step as portable

STEPS = 20
LOSS_TOLERANCE = 1e-4


def main(argv: Sequence[str]) -> int:
    """Checks the default device.

    Args:
        argv: Arguments.

    Returns:
        Exit status: 0 if the losses agree; 1 if not, or data are missing or refused; 2 bad flags.
    """
    parser = argparse.ArgumentParser(
        "check_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    exported.add_arguments(parser)
    asked = parser.parse_args(argv)
    try:
        worst = check(asked.folder, asked.data_dir)
    except (OSError, ValueError) as error:
        print(f"check_step: {error}", file=sys.stderr)
        return 1
    for precision, (loss, variable) in worst.items():
        print(
            f"{jax.devices()[0].device_kind}, {precision} precision: losses within {loss:.1e} of "
            f"the CPU's, variables within {variable:.1e}"
        )
    return int(worst["highest"][0] > LOSS_TOLERANCE)


def check(folder: Path, data_dir: Path | None = None) -> dict[str, tuple[float, float]]:
    """Compares single steps on the default device with the CPU's.

    Args:
        folder: What `dml_tf.export_step` wrote.
        data_dir: Where the images are; None for the folder's own.

    Returns:
        For the precisions `highest` and `default`, the largest difference of a loss, in nats, and
        of a variable.

    Raises:
        FileNotFoundError: The step or its images are missing.
        ValueError: The images are not those of the run.
    """
    manifest = exported.read_manifest(folder)
    images = exported.training_set(folder, manifest, data_dir)
    reference = portable.Trainer(folder, manifest, *images, jax.devices("cpu")[0], "highest")
    device = jax.devices()[0]
    trainers = {
        precision: portable.Trainer(
            folder, manifest, *images, device, precision, portable.in_one_dispatch
        )
        for precision in ("highest", "default")
    }
    _, variables = exported.read_state(folder, manifest)
    worst = dict.fromkeys(trainers, (0.0, 0.0))
    for step in range(min(STEPS, manifest["steps"])):
        epoch, i = divmod(step, manifest["steps_per_epoch"])
        before = portable.reset_metrics(variables, manifest)
        variables = jax.device_get(reference.advance(before, epoch, i, i + 1))
        for precision, trainer in trainers.items():
            theirs = jax.device_get(trainer.advance(before, epoch, i, i + 1))
            difference = _differences(variables, theirs, manifest)
            worst[precision] = tuple(map(max, worst[precision], difference))
    return worst


def _differences(ours: Sequence, theirs: Sequence, manifest: dict) -> tuple[float, float]:
    """Largest difference of a loss, and of another variable that a step updates."""
    means = [portable.metrics(variables, manifest) for variables in (ours, theirs)]
    losses = [abs(means[0][name] - means[1][name]) for name in means[0] if name.endswith("_loss")]
    metrics = {i for pair in manifest["metrics"].values() for i in pair}
    others = [
        float(np.max(np.abs(ours[i] - theirs[i])))
        for i, variable in enumerate(manifest["variables"])
        if variable["updated"] and i not in metrics
    ]
    return max(losses), max(others)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
