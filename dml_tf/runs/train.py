"""One run, from its settings to its record."""

import contextlib
import datetime
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dml_tf import data, networks
from dml_tf.atomic import write_whole
from dml_tf.data import Splits
from dml_tf.data.pictures import UNREADABLE
from dml_tf.errors import RecordMismatch, RunFailed
from dml_tf.measures import analysis, evaluate
from dml_tf.method.cohort import Cohort
from dml_tf.networks import own, trusted
from dml_tf.runs import build, memory, precision, records, session, steps
from dml_tf.runs.callbacks import StopAfter, StopAtNaN, Warn, refuse_not_finite
from dml_tf.runs.checkpoint import Checkpoint, remove_older
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles, refuse_read_only
from dml_tf.runs.parallel import loop
from dml_tf.runs.parallel.placement import Placement, arrange
from dml_tf.runs.progress import Progress
from dml_tf.runs.stopping import StopEarly, best_epoch
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
            if verbose != 0:
                print(f"{config.run_id} is finished. To train it again, add --overwrite.")
            return record
        refuse_read_only(files.folder)
        memory.refuse_too_large(config)
        splits = build.load_data(config)
        cluster.refuse_differences("data", _shared_data, splits)
        build.check_fit(config, splits)
        if record := cluster.from_chief(_add_analysis, config, splits, files):
            return record
        ensure_teacher(config)
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
            record = cluster.from_chief(finish, trained, config, splits, files, checkpoint, noted)
        checkpoint.delete()
    return record


def ensure_teacher(config: Config):
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
    run(alone.replace(overwrite=True))


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


def make_record(config: Config, splits: Splits, cohort: Cohort, checkpoint: Checkpoint) -> dict:
    """What a finished run leaves for tables, figures and readers.

    Args:
        config: The run's settings.
        splits: The run's data.
        cohort: The trained cohort.
        checkpoint: History and times of its training.

    Returns:
        The record, of JSON's types; fractions, nats and seconds.

    Raises:
        RunFailed: A weight, a posterior or a measure is not finite.
    """
    for name, network in zip(cohort.peer_names, cohort.networks, strict=True):
        refuse_not_finite(
            network.variables,
            f"A weight of peer {name} is not finite after training: it is not measured. Try a "
            "smaller --learning_rate.",
        )
    made = int(cohort.optimizers[0].iterations.numpy())
    measured = {
        part: evaluate.measure(cohort, getattr(splits, part), splits, list_correct=part == "test")
        for part in ("train", "validation", "test")
        if getattr(splits, part) is not None
    }
    images = {part: len(getattr(splits, part)) for part in measured}
    if splits.reid:
        images |= {part: len(getattr(splits.reid, part)) for part in evaluate.PARTS}
        measured["test"] = _measure_reid(cohort, config, splits)
    if config.analyse:
        measured["analysis"] = analysis.analyse(cohort, splits)
    return {
        "run_id": config.run_id,
        "command": config.command,
        "config": config.comparable(),
        "data": splits.name,
        "identity": splits.identity,
        "images": images,
        "input": {
            "shape": list(splits.train.images.shape[1:]),
            "mean": splits.mean.tolist(),
            "std": splits.std.tolist(),
        },
        "classes": list(map(str, splits.class_names)),
        "digest": splits.digests,
        "versions": records.versions(),
        "machine": records.machine(),
        "gpus": records.gpus(),
        "repeatable": records.repeatable(),
        "warnings": list(checkpoint.warnings.values()),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": made,
        **({"best_epoch": best_epoch(checkpoint.history)} if config.patience else {}),
        "parameters": {
            name: networks.count_parameters(net)
            for name, net in zip(cohort.peer_names, cohort.networks, strict=True)
        },
        "wall_clock_s": round(checkpoint.wall_clock_s, 3),
        "cpu_s": round(checkpoint.cpu_s, 3),
        "images_per_s": round(made * config.batch_size / checkpoint.wall_clock_s, 2),
        **measured,
        "history": checkpoint.history,
    }


def save_model(cohort: Cohort, file: Path):
    """Writes a cohort whole to a `.keras` file; its folder is made."""
    with write_whole(file) as part:
        cohort.save(part)


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


def _add_analysis(config: Config, splits: Splits, files: RunFiles) -> dict | None:
    """The record of a run that lacked only its analysis, if its weights still exist."""
    record = None if config.overwrite else records.find(config.replace(analyse=False))
    if not record or not files.model.exists():
        return None
    records.refuse_other_data(record, config, files.record, splits)
    records.refuse_altered(files.model)
    record["analysis"] = analysis.analyse(
        trusted.load_model(files.model, own.modules(config.net)), splits
    )
    records.write(record, files.record)
    return record


def finish(
    trained: Cohort,
    config: Config,
    splits: Splits,
    files: RunFiles,
    checkpoint: Checkpoint,
    noted: dict,
) -> dict:
    """Measures a trained cohort; writes its model and its record, which is returned."""
    record = make_record(config, splits, trained, checkpoint) | noted
    save_model(trained, files.model)
    record["weights_sha256"] = records.sha256(files.model)
    records.write(record, files.record)
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


def _measure_reid(cohort: Cohort, config: Config, splits: Splits) -> dict:
    features = evaluate.extract_features(cohort, splits, verbose=int(sys.stdout.isatty()))
    if config.features_out:
        with write_whole(Path(config.features_out)) as part, part.open("wb") as stream:
            np.savez(stream, **evaluate.labelled_features(features, splits))
    return evaluate.measure_reid(features, splits)


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
