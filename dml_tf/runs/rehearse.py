"""A dress rehearsal of one run: a few steps at the start, the middle and the end of its schedule.

What fails only at full size, or late in a schedule, fails here in minutes.
"""

import dataclasses
import datetime
import resource
import sys
import tempfile

import numpy as np
import tensorflow as tf

from dml_tf import data, networks
from dml_tf.data import Market1501, Split, Splits
from dml_tf.data.generated import samples
from dml_tf.data.load import GENERATED
from dml_tf.data.splits import UNLABELLED, ReidImages
from dml_tf.method.cohort import Cohort
from dml_tf.runs import build, records, results, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.config import Config, Schedule
from dml_tf.runs.files import RunFiles, needed_weights
from dml_tf.runs.watch import Watch

PLACES = ("start", "middle", "end")
_PARTS = ("train", "validation", "test")
_FEW = 32  # images that are measured


def rehearse(config: Config, *, images: int, steps: int = 2) -> dict:
    """Makes a few real steps of a run at three places of its schedule, then measures and saves.

    Networks, batch, input, optimizer and schedule are the run's. At each place the optimizer's
    counter has the number of that step. From the second step on, its means of squared gradients
    are the gradient's squares, as after many steps; the first step of the run has its true start.
    Evaluation of a few images, the checkpoint, the record and the saved model follow. Everything
    is written to a temporary folder.

    Args:
        config: The run's settings. Where its data cannot be found, files in the same format are
            generated; where weights to start from cannot be had, it starts from random ones.
        images: Training images of the real data, by which the schedule counts epochs.
        steps: Steps at each place; of Entropy-SGD, moves of the weights.

    Returns:
        What was measured, of JSON's types; `places` has the numbers of each place.

    Raises:
        RunFailed: A number is not finite, a kernel's update exceeds the kernel, or Entropy-SGD's
            scope is too large for its Langevin steps; the message says where.
        FlagError: As for `train.run`.
    """
    RunFiles.of(config).folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=config.results_dir) as folder:
        own = config.replace(results_dir=folder)
        splits, no_data = _data(own)
        build.check_fit(own, splits)
        own, no_weights = _with_weights(own, splits)
        cohort = build.build_cohort(own, splits, images=images)
        schedule = own.schedule(images)
        checkpoint = Checkpoint(RunFiles.of(own).checkpoint(), own)
        watch = Watch(cohort, schedule.steps)
        _train(cohort, own, splits, schedule, steps, watch, checkpoint)
        _finish(cohort, own, splits, schedule, checkpoint)
    return {
        "run_id": config.run_id,
        "command": config.command,
        "config": config.comparable(),
        "data": splits.name,
        "replaced": [reason for reason in (no_data, no_weights) if reason],
        "versions": records.versions(),
        "machine": records.machine(),
        "gpus": records.gpus(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": schedule.steps,
        "parameters": {
            name: networks.count_parameters(network)
            for name, network in zip(cohort.peer_names, cohort.networks, strict=True)
        },
        "step_s": round(watch.step_s, 4),
        "peak_memory": _peak_memory(),
        "places": watch.places,
    }


def first_steps(schedule: Schedule, count: int, stride: int = 1) -> dict[str, int]:
    """The first of `count` steps at each place, a multiple of `stride`."""
    last = max(0, schedule.steps - count)
    starts = {"start": 0, "middle": min(schedule.steps // 2, last), "end": last}
    return {place: step // stride * stride for place, step in starts.items()}


def _data(config: Config) -> tuple[Splits, str]:
    """The run's data, or generated files in the same format, and then the reason."""
    if config.dataset not in samples.DATASETS:
        return build.load_data(config), ""
    reason = f"--data_dir is empty: generated files stand for {config.dataset}"
    if config.data_dir:
        try:
            return build.load_data(config), ""
        except FileNotFoundError as error:
            reason = f"generated files stand for {config.dataset}: {error}"
    folder = samples.ensure(GENERATED / "samples")
    return build.load_data(config.replace(data_dir=str(folder))), reason


def _with_weights(config: Config, splits: Splits) -> tuple[Config, str]:
    """The settings with weights to start from that exist, and the reason of a change.

    A run with teachers of its own results folder gets untrained ones.
    """
    reason = ""
    if config.pretrained:
        started = config.replace(method="independent", net=config.net[:1], cohort=1)
        try:
            build.build_cohort(started, splits)
        except FileNotFoundError as error:
            config = config.replace(pretrained="")
            reason = f"random weights stand for trained ones: {error}"
    if config.teachers and not config.teacher.endswith(".keras"):
        count = len(config.teachers)
        teacher = config.default_teacher.replace(teacher="", net=config.net[:count], cohort=count)
        file = needed_weights(config.replace(pretrained=""))[0]
        results.save_model(build.build_cohort(teacher, splits), file)
    return config, reason


def _train(
    cohort: Cohort,
    config: Config,
    splits: Splits,
    schedule: Schedule,
    steps: int,
    watch: Watch,
    checkpoint: Checkpoint,
):
    stride = config.langevin_steps if config.optimizer == "entropy_sgd" else 1
    count = min(steps * stride, schedule.steps)
    for place, step in first_steps(schedule, count, stride).items():
        watch.move_to(place, step, count)
        is_last = place == PLACES[-1]
        watched = train.validation_batches(config, few(splits)) if is_last else None
        cohort.fit(
            data.train_batches(splits, config, initial_epoch=step // schedule.steps_per_epoch),
            validation_data=watched,
            steps_per_epoch=count,
            shuffle=False,
            verbose=0,
            callbacks=[watch, *([checkpoint] if is_last else [])],
        )
        watch.check_weights()


def _finish(
    cohort: Cohort, config: Config, splits: Splits, schedule: Schedule, checkpoint: Checkpoint
):
    """What a run does after its last step, with a few images."""
    checkpoint.restore(cohort)
    train.finish_weights(cohort, config, splits, schedule.epochs)
    results.finish(cohort, config, few(splits), RunFiles.of(config), checkpoint, {})


def few(splits: Splits, images: int = _FEW) -> Splits:
    """The run's data with a few labelled images in each part; queries keep their good images."""
    small = {part: _labelled(getattr(splits, part), images) for part in _PARTS}
    if splits.reid:
        small["reid"] = _few_people(splits.reid, images)
    return dataclasses.replace(splits, **small)


def _labelled(split: Split | None, images: int) -> Split | None:
    return split and split.take(np.flatnonzero(split.labels != UNLABELLED)[:images])


def _few_people(reid: Market1501, images: int) -> Market1501:
    """A few identities' queries and gallery, with some distractors and junk."""
    pids = np.unique(reid.query.pids)[: max(1, images // 4)]
    gallery = np.isin(reid.gallery.pids, pids)
    others = np.flatnonzero(~gallery)[: images // 4]
    return dataclasses.replace(
        reid,
        query=_pictures(reid.query, np.flatnonzero(np.isin(reid.query.pids, pids))),
        gallery=_pictures(reid.gallery, np.append(np.flatnonzero(gallery), others)),
        multi_query=_pictures(
            reid.multi_query, np.flatnonzero(np.isin(reid.multi_query.pids, pids))
        ),
    )


def _pictures(people: ReidImages, index: np.ndarray) -> ReidImages:
    return ReidImages(
        people.images[index],
        people.pids[index],
        people.camids[index],
        tuple(people.names[i] for i in index),
    )


def _peak_memory() -> dict[str, int]:
    """Most bytes that this process held, in main memory and on its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if tf.config.list_logical_devices("GPU"):
        peak["gpu"] = int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return peak
