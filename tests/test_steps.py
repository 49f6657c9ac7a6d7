"""When a run is saved, how many steps share a call, and where its batches begin."""

import keras
import numpy as np
import pytest

from dml_tf.data import train_batches
from dml_tf.errors import FlagError
from dml_tf.runs import build, checkpoint, config, steps
from dml_tf.runs.config import Schedule

SMALL = {
    "dataset": "digits", "net": ("resnet8:2",), "image_size": 8, "batch_size": 16, "cohort": 2,
    "train_images": 100, "momentum": 0.9,
}  # fmt: skip


def settings(tmp_path, **changes):
    return config.load(**{**SMALL, "steps": 8, "results_dir": str(tmp_path), **changes})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Settings and cohort of a pair that is built and not trained."""
    asked = settings(tmp_path_factory.mktemp("pair"))
    return asked, build.build_cohort(asked, build.load_data(asked))


def test_short_epochs_share_a_checkpoint_and_the_last_one_is_saved(tmp_path, monkeypatch, pair):
    asked, cohort = pair
    saver, clock, saved = checkpoint.Checkpoint(tmp_path / "state", asked), [100.0], []
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint, "save_state", lambda file, state, _: saved.append(state))
    saver.set_model(cohort)
    saver.on_train_begin()
    for epoch, seconds in enumerate((1, 1, 3, 2, 1)):
        clock[0] += seconds
        saver.on_epoch_begin(epoch)
        for step in range(5):
            saver.on_train_batch_end(step)
        saver.on_epoch_end(epoch, {})
    saver.on_train_end()
    assert [(state["epoch"], state["step"]) for state in saved] == [(3, 0), (5, 0)]
    clock[0] += 299
    saver.on_epoch_begin(5)
    saver.on_train_batch_end(0)
    clock[0] += 1  # save_minutes have passed since the last checkpoint
    saver.on_train_batch_end(1)
    assert (saved[-1]["epoch"], saved[-1]["step"]) == (5, 2)


@pytest.mark.parametrize("augment", ["flip", "crop_flip"])
def test_batches_from_the_middle_of_an_epoch_are_those_of_the_whole_epoch(tmp_path, augment):
    asked = settings(tmp_path, augment=augment)
    splits = build.load_data(asked)
    all_of_them = list(train_batches(splits, asked, initial_epoch=1).take(6).as_numpy_iterator())
    rest = list(
        train_batches(splits, asked, initial_epoch=1, initial_step=3).take(3).as_numpy_iterator()
    )
    for (images, labels), (expected, classes) in zip(rest, all_of_them[3:], strict=True):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, classes)


def test_small_networks_make_an_epochs_steps_in_one_call_and_large_ones_a_step(pair):
    asked, cohort = pair
    schedule = asked.schedule(80)
    assert schedule == Schedule(steps=8, epochs=2, steps_per_epoch=5)
    assert steps.in_a_call(cohort, 16, schedule) == 1  # 5 does not divide 8
    assert steps.in_a_call(cohort, 16, Schedule(50, 10, 5)) == 5
    assert steps.in_a_call(cohort, 16, Schedule(8, 1, 80)) == 8
    assert steps.in_a_call(cohort, 1_000_000, Schedule(50, 10, 5)) == 1


def test_the_work_of_a_network_is_counted_by_hand():
    network = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Conv2D(5, 3, padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    assert steps.multiplications(network) == 3 * 3 * 3 * 5 * 16 + 80 * 2


def test_a_misfit_is_refused_and_the_next_lower_number_named():
    with pytest.raises(FlagError, match="divide an epoch's 12 steps; 4 is the next lower"):
        steps.refuse_misfit(5, Schedule(24, 2, 12))
    with pytest.raises(FlagError, match="divide the run's 6 steps; 3 is the next lower"):
        steps.refuse_misfit(4, Schedule(6, 1, 12))
    steps.refuse_misfit(5, Schedule(5, 1, 12))
    steps.refuse_misfit(0, Schedule(24, 2, 12))


def test_a_callback_that_wants_every_step_gets_every_step():
    class EveryStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    assert steps.watched(EveryStep())
    assert not steps.watched(keras.callbacks.CSVLogger("unused"))
