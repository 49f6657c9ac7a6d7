"""One run, from its settings to its record."""

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import keras
import tensorflow as tf

from dml_tf import data, networks
from dml_tf.data import Splits
from dml_tf.data.pictures import UNREADABLE
from dml_tf.errors import RecordMismatch, RunFailed
from dml_tf.method.cohort import Cohort
from dml_tf.runs import build, memory, precision, records, results, session, steps
from dml_tf.runs.callbacks import StopAfter, StopAtNaN, Warn
from dml_tf.runs.checkpoint import Checkpoint, remove_older
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles, refuse_read_only
from dml_tf.runs.parallel import loop
from dml_tf.runs.parallel.placement import Placement, arrange
from dml_tf.runs.progress import Progress
from dml_tf.runs.stopping import StopEarly
from dml_tf.runs.summaries import Summaries

Callbacks = Sequence[keras.callbacks.Callback]


def run(config: Config, *, verbose: int | None = None, callbacks: Callbacks = ()) -> dict:
    """Trains and measures what the settings ask for, unless that is done already.

    An interrupted run is resumed from its last checkpoint. It ends with the same weights as an
    uninterrupted one. Where several processes train one run, each calls this with the same
    settings; the first, the chief, measures, and writes record and model.

    Args:
        config: The run's settings.
        verbose: 0 silent, 1 a line that is written over, 2 a few lines for a log. Default: 1 in a
            terminal, else 2.
        callbacks: More of Keras's callbacks for the training.

    Returns:
        The run's record, also written to `<results_dir>/runs/<run_id>.json`; the trained cohort
        is in `<results_dir>/models/<run_id>.keras`.

    Raises:
        FlagError: A network's name is wrong, the placement is not possible, or the processes of
            the run have different settings.
        FileNotFoundError: Data or the teacher are missing.
        RecordMismatch: The results folder holds this run with other settings or data.
        RunFailed: Data are refused, the loss is not a number, or another process trains this run.
        ProcessLost: Another of the run's processes has ended.
    """
    build.check_network_names(config)
    place, files = arrange(config), RunFiles.of(config)
    cluster, folder = place.cluster, files.checkpoint(place.process_name)
    with cluster.watched(), place.locked(files):
        cluster.refuse_differences("settings", _shared_settings, config)
        if record := cluster.from_chief(_find, config, place, files):
            remove_older(folder, files.record)
            if config.strict:
                build.load_data(config)  # refuses what is skipped or converted
            _add_features(config, place, record, files)
            if verbose != 0:
                print(f"{config.run_id} is finished. To train it again, add --overwrite.")
            return record
        refuse_read_only(files.folder)
        memory.refuse_too_large(config, place)
        splits = build.load_data(config)
        cluster.refuse_differences("data", _shared_data, splits)
        build.check_fit(config, splits)
        if record := cluster.from_chief(results.add_analysis, config, splits, files):
            _add_features(config, place, record, files)
            return record
        ensure_teacher(config, verbose)
        choice = precision.of_run(config, splits, folder)
        new = partial(build.build_cohort, config, splits, place, precision=choice["chosen"])
        checkpoint = Checkpoint(folder, config, cluster, splits)
        # Others may have another number of steps in a call, which is in the graph.
        is_usual = not checkpoint.exists and not any(map(steps.watched, callbacks))
        if place.kind == "one" and is_usual:
            cohort = session.cohort_of(new, config, splits, choice["chosen"])
        else:
            cohort = new()
        noted = place.describe(cohort, config, splits)
        if config.precision == "auto":
            noted |= {"precision": choice}
        with _in_words():
            trained = fit(cohort, config, splits, checkpoint, place, verbose, callbacks)
            record = cluster.from_chief(
                results.finish, trained, config, splits, files, checkpoint, noted
            )
        checkpoint.delete()
    return record


def _add_features(config: Config, place: Placement, record: dict, files: RunFiles):
    if config.features_out:
        place.cluster.from_chief(results.add_features, config, record, files)


def ensure_teacher(config: Config, verbose: int | None = None):
    """Trains the default teacher of a distillation, unless its weights exist.

    Raises:
        RecordMismatch: They are of other data or settings, and `overwrite` is not set.
    """
    if config.method != "distill" or config.teacher:
        return
    alone = config.default_teacher
    if RunFiles.of(alone).model.exists():
        try:
            records.reusable(alone)
            return
        except RecordMismatch:
            if not config.overwrite:
                raise
    run(alone.replace(overwrite=True), verbose=verbose)


def fit(
    cohort: Cohort,
    config: Config,
    splits: Splits,
    checkpoint: Checkpoint,
    place: Placement | None = None,
    verbose: int | None = None,
    callbacks: Callbacks = (),
) -> Cohort | None:
    """Trains a cohort from its checkpoint, if any, to the end of its schedule.

    Args:
        cohort: As `build_cohort` makes it.
        config: The run's settings.
        splits: The run's data.
        checkpoint: Where to resume from, and to save to.
        place: Where the peers are, as for `build_cohort`.
        verbose: As for `run`.
        callbacks: More of Keras's callbacks.

    Returns:
        The trained cohort, all of it in this process; None except in the chief of several
        processes.

    Raises:
        FlagError: `steps_per_execution` does not fit the schedule.
    """
    place = place or Placement()
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    schedule = config.schedule(len(splits.train))
    steps.refuse_misfit(config.steps_per_execution, schedule)
    first = checkpoint.restore(cohort)
    if verbose and (first or checkpoint.step):
        within = f", and {checkpoint.step} steps of the next," if checkpoint.step else ""
        done = f"{first} of {schedule.epochs} epochs{within} are done"
        print(f"{config.run_id}: {done}; resuming.", flush=True)
    early = StopEarly(config.patience, checkpoint) if config.patience else None
    if first < schedule.epochs and not (early and early.is_over):
        options = {
            "initial_epoch": first,
            "epochs": schedule.epochs,
            "steps_per_epoch": min(schedule.steps_per_epoch, schedule.steps),
            "verbose": 0,
            "callbacks": [*_callbacks(config, splits, checkpoint, place, verbose), *callbacks],
        }
        if early:
            options["callbacks"].insert(0, early)
        watched = validation_batches(config, splits)
        if place.is_whole:
            if not config.steps_per_execution and not any(map(steps.watched, callbacks)):
                cohort.steps_per_execution = steps.in_a_call(cohort, config.batch_size, schedule)
            with checkpoint.saved_if_interrupted():
                steps.fit(cohort, config, splits, watched, checkpoint, **options)
        else:
            loop.fit(cohort, config, splits, watched, **options)
    if not place.is_whole:
        cohort = loop.collect(cohort, config, splits, checkpoint, place)
    if early:
        best = early.restore(cohort)
        if verbose:
            print(f"Weights of epoch {best} of {len(next(iter(checkpoint.history.values())))}.")
    if cohort is not None:
        finish_weights(cohort, config, splits, schedule.epochs)
    return cohort


def _callbacks(
    config: Config, splits: Splits, checkpoint: Checkpoint, place: Placement, verbose: int
) -> list[keras.callbacks.Callback]:
    """The callbacks of every run, in the order in which Keras calls them."""
    schedule = config.schedule(len(splits.train))
    stop = StopAfter(schedule.steps, schedule.steps_per_epoch, checkpoint)
    chosen = [StopAtNaN(checkpoint), Warn(config, splits.train, checkpoint), checkpoint, stop]
    if place.cluster.is_chief:
        folder = RunFiles.of(config).tensorboard
        chosen.append(Summaries(folder, config, splits if place.is_whole else None))
    if verbose:
        chosen.append(Progress(schedule, config.batch_size, live=verbose == 1))
    return chosen


def settle_statistics(cohort: Cohort, batches: tf.data.Dataset, count: int = 50) -> None:
    """Moves BatchNorm's averages to the present weights, as Entropy-SGD's authors do.

    During training they average over the weights of the steps, which averaged weights, and those
    of Entropy-SGD, are not.

    Args:
        cohort: Trained peers; only the averages, and the seeds of dropout, change.
        batches: Training batches.
        count: Batches to use. The averages' momentum is at most 0.9 meanwhile, so that the old ones
            count 0.9^count.
    """
    norms = [norm for k in cohort.students for norm in networks.batch_norms(cohort.networks[k])]
    own = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, own, strict=True):
        norm.momentum = min(momentum, 0.9)
    for images, _ in batches.take(count):
        views = cohort.views(images)
        for k in cohort.students:
            cohort.networks[k](views[k], training=True)
    for norm, momentum in zip(norms, own, strict=True):
        norm.momentum = momentum


def _shared_settings(config: Config) -> dict:
    """What the processes of a run must have in common before they read data."""
    more = {name: getattr(config, name) for name in ("placement", "steps_per_execution")}
    versions = {f"version of {name}": v for name, v in records.versions().items()}
    return config.comparable() | more | versions


def _shared_data(splits: Splits) -> dict:
    """What the processes of a run must have in common of their data."""
    return {"classes": list(map(str, splits.class_names)), **splits.digests}


def _find(config: Config, place: Placement, files: RunFiles) -> dict | None:
    """The record of the finished run, if it is done."""
    record = None if config.overwrite else records.reusable(config)
    if record and place.kind == "data" and record["placement"]["devices"] != place.replicas:
        raise RecordMismatch(
            f"{files.record} is of batches split over {record['placement']['devices']} devices, "
            f"not {place.replicas}: use another --results_dir, or train again with --overwrite."
        )
    return record


def validation_batches(config: Config, splits: Splits) -> tf.data.Dataset | None:
    """What is measured after every epoch."""
    watched = splits.test if config.watch_test else splits.validation
    return watched and data.eval_batches(watched, splits)


def finish_weights(cohort: Cohort, config: Config, splits: Splits, epochs: int):
    """Puts averaged weights (the flag ema), or Entropy-SGD's, in the weights' place.

    BatchNorm's statistics follow: their own averages, or new ones of these weights.
    """
    cohort.steps_per_execution = 1  # evaluation takes single batches
    for k, optimizer in zip(cohort.trained, cohort.optimizers, strict=True):
        optimizer.finalize_variable_values(cohort.networks[k].trainable_variables)
        for norm in networks.batch_norms(cohort.networks[k]) if config.ema_statistics else ():
            norm.use_averages()
    if not config.ema_statistics and (config.ema or config.optimizer == "entropy_sgd"):
        settle_statistics(cohort, data.train_batches(splits, config, initial_epoch=epochs))


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Turns TensorFlow's report of too little memory, or of a damaged picture, into the reason."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise RunFailed(
            "There is too little memory, or the disk is full. Give a smaller --batch_size, network "
            f"or data set, or make room. TensorFlow's message: {error.message.splitlines()[0]}"
        ) from error
    except tf.errors.InvalidArgumentError as error:
        reason = re.search(f"ValueError: (.*{UNREADABLE}.*)", error.message)
        if not reason:
            raise
        raise RunFailed(reason[1]) from error


if __name__ == "__main__":
    sys.exit("This module is no command. Train with `dml_tf train` or `python train.py`.")
