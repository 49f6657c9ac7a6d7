"""The short trainings of `dml_tf advise`; nothing is measured on test images.

What they leave is in `trials/` of the folder: they are no runs, and have no records.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from dml_tf import data, networks
from dml_tf.data import Splits
from dml_tf.measures import evaluate
from dml_tf.runs import build, records, session
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles
from dml_tf.runs.results import save_model
from dml_tf.runs.steps import multiplications
from dml_tf.runs.train import fit
from dml_tf.tools.candidates import Candidate

_HELD_OUT = 0.2  # of the training images, where there are no validation images
_TIMED = 6  # steps


tf.get_logger().setLevel("ERROR")  # each training traces its own graphs, which is meant


def load(base: Config) -> tuple[Config, Splits]:
    """The data with validation images, and the config that asks for them."""
    splits = build.load_data(base)
    if splits.validation is None:
        base = base.replace(validation_fraction=_HELD_OUT)
        splits = build.load_data(base)
    return base.replace(batch_size=min(base.batch_size, max(1, len(splits.train) // 4))), splits


def sizes(ways: Sequence[Candidate], base: Config, splits: Splits) -> dict[str, int]:
    """Network -> multiply-adds of a forward pass of one image."""
    shape = splits.train.images.shape[1:]
    names = dict.fromkeys(name for way in ways for name in way.net)
    for name in names:
        build.check_network_names(base.replace(net=(name,)))
    return {
        name: multiplications(
            networks.build(name, num_classes=splits.num_classes, input_shape=shape)
        )
        for name in names
    }


def speed(base: Config, splits: Splits, known: dict[str, int]) -> tuple[float, float]:
    """Seconds of a multiply-add in training, and seconds of a training beside its steps."""
    pair = base.replace(net=base.net * 2, cohort=2, method="independent")
    started = time.monotonic()
    cohort = build.build_cohort(pair, splits)
    batches = data.train_batches(splits, pair)
    cohort.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)
    overhead = time.monotonic() - started
    started = time.monotonic()
    cohort.fit(batches, steps_per_epoch=_TIMED, verbose=0, shuffle=False)
    took = time.monotonic() - started
    started = time.monotonic()
    evaluate.measure(cohort, splits.validation, splits)
    with tempfile.TemporaryDirectory() as folder:
        save_model(cohort, Path(folder) / "cohort.keras")
    overhead += time.monotonic() - started
    return took / (_TIMED * base.batch_size * 6 * known[base.net[0]]), overhead


def train(config: Config, splits: Splits) -> dict[str, float]:
    """Trains a cohort, and its teachers before it, unless that is done.

    Returns:
        Learning peer -> accuracy on validation images.
    """
    files = RunFiles.of(config)
    done = files.folder / "trials" / f"{config.run_id}.json"
    if done.exists():
        return records.read(done)["validation"]
    if config.method == "distill":
        train(config.default_teacher, splits)
    cohort = build.build_cohort(config, splits)
    checkpoint = Checkpoint(files.checkpoint(), config, splits=splits)
    fit(cohort, config, splits, checkpoint, verbose=0)
    measured = evaluate.measure(cohort, splits.validation, splits)["peers"]
    learning = {
        name: measured[name]["accuracy"] for name in (cohort.peer_names[k] for k in cohort.students)
    }
    save_model(cohort, files.model)
    records.write({"validation": learning, "config": config.comparable()}, done)
    checkpoint.delete()
    session.clear()  # or the graphs of all trainings stay in memory
    return learning
