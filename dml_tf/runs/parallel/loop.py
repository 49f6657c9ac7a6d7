"""Training where Keras's `fit` fails: peers that are mirrored, or in other processes.

Under a strategy `fit` builds a model again and averages scalars over processes. A cohort allows
neither. This loop runs the same `train_step` with the same callbacks under any strategy.
"""

from collections.abc import Callable, Sequence
from functools import partial

import keras
import tensorflow as tf

from dml_tf import data
from dml_tf.data import Splits
from dml_tf.method.cohort import Cohort
from dml_tf.runs import build, files
from dml_tf.runs.checkpoint import Checkpoint, peer_variables, values
from dml_tf.runs.config import Config
from dml_tf.runs.parallel.placement import Placement


def fit(
    cohort: Cohort,
    config: Config,
    splits: Splits,
    validation: tf.data.Dataset | None = None,
    *,
    initial_epoch: int,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> None:
    """Trains a cohort under its own strategy, as Keras's `fit` would.

    The logs of a batch are means over this process's replicas. Those of an epoch are over all
    images.

    Args:
        cohort: Compiled and built.
        config: The run's settings.
        splits: The run's data.
        validation: Batches to measure after every epoch; every replica measures all of them.
        initial_epoch: First epoch, counted from 0.
        epochs: Index after the last epoch.
        steps_per_epoch: Steps, a multiple of the cohort's `steps_per_execution`.
        callbacks: Keras's callbacks.
        verbose: Keras's, for the callbacks.
    """
    strategy, at_once = cohort.distribute_strategy, cohort.steps_per_execution
    batches = partial(_batches, config, splits, initial_epoch)
    listeners = keras.callbacks.CallbackList(
        list(callbacks), model=cohort, verbose=verbose, epochs=epochs, steps=steps_per_epoch
    )
    with strategy.scope():
        iterator = iter(strategy.distribute_datasets_from_function(batches))
        train, test = _function(cohort, cohort.train_step), _function(cohort, cohort.test_step)
        totals = tf.function(cohort.get_metrics_result)
        cohort.stop_training = False
        listeners.on_train_begin()
        logs = {}
        for epoch in range(initial_epoch, epochs):
            cohort.reset_metrics()
            listeners.on_epoch_begin(epoch)
            for step in range(0, steps_per_epoch, at_once):
                listeners.on_train_batch_begin(step)
                listeners.on_train_batch_end(step + at_once - 1, train(iterator, at_once))
                if cohort.stop_training:
                    break
            logs = _numbers(totals())
            if validation is not None:
                cohort.reset_metrics()
                measured = _for_each_replica(validation, strategy)
                test(iter(measured), int(validation.cardinality()))
                logs |= {f"val_{name}": value for name, value in _numbers(totals()).items()}
            listeners.on_epoch_end(epoch, logs)
            if cohort.stop_training:
                break
        listeners.on_train_end(logs)


def collect(
    cohort: Cohort, config: Config, splits: Splits, checkpoint: Checkpoint, place: Placement
) -> Cohort | None:
    """The cohort as one process would have trained it; None except in the chief."""
    cluster, arrays = place.cluster, []
    if cluster.is_chief or place.peer_a_process:
        arrays = values(v for k in cohort.trained for v in peer_variables(cohort, k))
    progress = {"cpu_s": checkpoint.cpu_s, "warnings": checkpoint.warnings}
    states = cluster.share(files.state_to_bytes(progress, arrays))
    if not cluster.is_chief:
        return None
    parts = [files.state_from_bytes(state) for state in states]
    checkpoint.cpu_s = sum(progress["cpu_s"] for progress, _ in parts)
    for progress, _ in parts:
        checkpoint.warnings |= progress["warnings"]
    whole = build.build_cohort(config, splits)
    variables = [v for k in whole.trained for v in peer_variables(whole, k)]
    trained = [array for _, arrays in parts for array in arrays]
    for variable, value in zip(variables, trained, strict=True):
        variable.assign(value)
    return whole


def _batches(
    config: Config, splits: Splits, first_epoch: int, context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """This process's endless training batches, one for each of its replicas in turn."""
    part = (context.input_pipeline_id, context.num_input_pipelines)
    made = data.train_batches(splits, config, initial_epoch=first_epoch, part=part)
    if context.num_replicas_in_sync > part[1]:
        made = made.rebatch(config.batch_size // context.num_replicas_in_sync)
    # Otherwise the processes would ask each other in every step whether there is a next one.
    return made.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _function(cohort: Cohort, step: Callable) -> Callable:
    """A `tf.function` of an iterator and a number of steps; it returns the last step's logs."""
    strategy = cohort.distribute_strategy

    def one(iterator):
        logs = strategy.run(step, args=(iterator.get_next(),))
        return {
            name: tf.reduce_mean(tf.stack(strategy.experimental_local_results(value)))
            for name, value in logs.items()
        }

    @tf.function(autograph=False)
    def several(iterator, count):
        if count == 1:
            return one(iterator)
        zeros = {name: tf.zeros(()) for name in cohort.metrics_names}
        _, logs = tf.while_loop(
            lambda i, logs: i < count, lambda i, logs: (i + 1, one(iterator)), (0, zeros)
        )
        return logs

    return several


def _for_each_replica(batches: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """Every batch once for each replica."""

    def here(context):
        local = context.num_replicas_in_sync // context.num_input_pipelines
        return batches.flat_map(lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(local))

    return strategy.distribute_datasets_from_function(here)


def _numbers(logs: dict[str, tf.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}
