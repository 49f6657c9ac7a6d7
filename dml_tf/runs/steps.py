"""The steps of a run, by Keras's `fit`: several in one call, and from where it stopped."""

import math
from functools import partial

import keras
import tensorflow as tf

from dml_tf import data
from dml_tf.data import Splits
from dml_tf.errors import FlagError
from dml_tf.method.cohort import Cohort
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.config import Config, Schedule

# Multiplications of all peers' forward passes in one call: a tenth of a second or two on one core.
# A longer call would only delay the progress line, checkpoints and Ctrl-C.
_WORK_OF_A_CALL = 2e9


def fit(
    cohort: Cohort,
    config: Config,
    splits: Splits,
    validation: tf.data.Dataset | None,
    checkpoint: Checkpoint,
    **options,
) -> None:
    """Trains a cohort by Keras's `fit`; `options` are its arguments.

    An epoch that was saved in its middle is finished first, in a call of its own.
    """
    first, last = options.pop("initial_epoch"), options.pop("epochs")
    per_epoch, skipped = options.pop("steps_per_epoch"), checkpoint.step
    # Calls of n steps must end where the epoch and the run do, also where it was saved in between.
    schedule = config.schedule(len(splits.train))
    left = schedule.steps - first * schedule.steps_per_epoch - skipped
    cohort.steps_per_execution = math.gcd(cohort.steps_per_execution, per_epoch - skipped, left)
    parts = [(first, first + 1, skipped), (first + 1, last, 0)] if skipped else [(first, last, 0)]
    cohort.stop_training = False
    for begin, end, left_out in parts:
        if begin < end and not cohort.stop_training:
            batches = data.train_batches(splits, config, initial_epoch=begin, initial_step=left_out)
            # The cohort's own `fit` ends by putting averaged weights in the weights' place.
            fit_part = cohort.fit if end == last else partial(keras.Model.fit, cohort)
            fit_part(
                batches,
                validation_data=validation,
                shuffle=False,
                initial_epoch=begin,
                epochs=end,
                steps_per_epoch=per_epoch - left_out,
                **options,
            )


def in_a_call(cohort: Cohort, batch_size: int, schedule: Schedule) -> int:
    """How many steps one call of TensorFlow makes, if nothing else is asked for.

    It is a divisor of an epoch's steps, and of the run's, and more than 1 for small networks only.
    """
    work = batch_size * sum(map(multiplications, cohort.networks))
    most = _WORK_OF_A_CALL / work if work else 1
    counts = _must_divide(schedule).values()
    return max(n for n in range(1, min(counts) + 1) if n <= max(most, 1) and _fits(n, counts))


def refuse_misfit(at_once: int, schedule: Schedule):
    """Refuses calls that would run past the end of an epoch or of the run."""
    counts = _must_divide(schedule)
    for what, steps in counts.items():
        if at_once and steps % at_once:
            fits = max(n for n in range(1, at_once) if _fits(n, counts.values()))
            raise FlagError(
                f"--steps_per_execution={at_once} does not divide {what} {steps} steps; {fits} "
                "is the next lower number that fits."
            )


def watched(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback wants to be called at every step."""
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    plain = keras.callbacks.Callback
    return any(getattr(type(callback), name) is not getattr(plain, name) for name in hooks)


def _must_divide(schedule: Schedule) -> dict[str, int]:
    if schedule.epochs == 1:
        return {"the run's": schedule.steps}
    return {"an epoch's": schedule.steps_per_epoch, "the run's": schedule.steps}


def _fits(n: int, counts) -> bool:
    return not any(steps % n for steps in counts)


def multiplications(network: keras.Model) -> int:
    """Of one image's forward pass, in the layers that have a kernel: multiply-adds."""
    return sum(
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in network.layers
        if getattr(layer, "kernel", None) is not None
    )
