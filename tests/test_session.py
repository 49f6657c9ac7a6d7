"""Runs that take over the traced cohort of the one before, in one process."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest

from dml_tf.networks import trusted
from dml_tf.paper.workers import Task, _next_task
from dml_tf.runs import build, config, session, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.files import RunFiles


def settings(folder: Path, seed: int, **options):
    options = {"net": ("resnet8:4", "resnet8:2"), "steps": 9, "epochs": 0} | options
    return config.load(
        dataset="digits", train_images=64, batch_size=16, seed=seed, results_dir=str(folder),
        **options,
    )  # fmt: skip


def trained(asked) -> tuple[dict, list[np.ndarray], session.Cohort | None]:
    """Record and weights of a run, and the cohort that is kept after it."""
    with session.one_of_several(asked):
        record = train.run(asked, verbose=0)
    saved = trusted.load_model(RunFiles.of(asked).model, [])
    return record, saved.get_weights(), session._last and session._last.cohort


@pytest.mark.parametrize(
    "options",
    [
        {"net": ("resnet8:4", "mobilenet_short:0.25")},
        pytest.param({"update": "simultaneous", "stale_steps": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"ema": 0.9, "ema_statistics": True, "optimizer": "adam", "learning_rate": 0.01},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"net": ("resnet8:4", "wrn-10-1:4"), "init": "he", "augment": "crop_flip"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "precision": "mixed_bfloat16",
                "ramp_epochs": 1.0,
                "steps": 8,
                "steps_per_execution": 4,
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_takes_over_a_traced_cohort_gives_the_same_bits(options, tmp_path):
    _, _, first = trained(settings(tmp_path / "a", 1, **options))
    record, weights, second = trained(settings(tmp_path / "a", 2, **options))
    assert first is not None and second is first
    session._last = None
    alone, expected, new = trained(settings(tmp_path / "b", 2, **options))
    assert new is not first
    for array, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(array, other)
    for part in ("history", "train", "test", "steps", "warnings"):
        assert record[part] == alone[part], part


def test_other_settings_and_seeds_in_the_graph_are_not_shared(tmp_path):
    _, _, first = trained(settings(tmp_path, 1))
    _, _, other = trained(settings(tmp_path, 1, mimicry="js"))
    assert other is not None and other is not first
    assert trained(settings(tmp_path, 1, dropout=0.1))[2] is None
    splits = build.load_data(settings(tmp_path, 1))
    for options in ({"optimizer": "entropy_sgd"}, {"method": "distill"}, {"pretrained": "a_run"}):
        assert not session._shape(settings(tmp_path, 1, **options), splits, "float32")


def test_a_saved_network_names_its_own_seeds(tmp_path):
    trained(settings(tmp_path, 1))
    trained(settings(tmp_path, 2))
    saved = {
        seed: trusted.load_model(RunFiles.of(settings(tmp_path, seed)).model, []) for seed in (1, 2)
    }
    seeds = {
        seed: cohort.networks[0].get_layer("logits").kernel_initializer.seed
        for seed, cohort in saved.items()
    }
    assert seeds[1] != seeds[2]


@pytest.mark.slow
def test_a_resumed_run_starts_from_its_checkpoint(tmp_path):
    """So does one whose steps a callback watches: their calls make other numbers of steps."""
    whole = trained(settings(tmp_path / "whole", 2, steps=12))
    trained(settings(tmp_path / "parts", 1, steps=12))
    asked = settings(tmp_path / "parts", 2, steps=12)

    class Stop(train.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizers[0].iterations) == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.run(asked, verbose=0, callbacks=[Stop()])
    record, weights, _ = trained(asked)
    for array, other in zip(weights, whole[1], strict=True):
        np.testing.assert_array_equal(array, other)
    assert record["history"] == whole[0]["history"]


@pytest.mark.parametrize(
    "hook", ["on_epoch_begin", pytest.param("on_test_begin", marks=pytest.mark.slow)]
)
def test_a_run_that_ends_within_an_epoch_makes_no_step_too_many(hook, tmp_path, monkeypatch):
    """Interrupted in its last validation, or before its first step, and resumed."""
    monkeypatch.setattr(Checkpoint, "is_due_in_epoch", True)  # a checkpoint after each call
    asked = settings(tmp_path, 1, steps=6, validation_fraction=0.1, steps_per_execution=1)
    callback = train.keras.callbacks.Callback()

    def interrupt(*arguments, **options):
        if hook == "on_epoch_begin" or int(callback.model.optimizers[0].iterations) == 6:
            raise KeyboardInterrupt

    setattr(callback, hook, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.run(asked, verbose=0, callbacks=[callback])
    record = train.run(asked, verbose=0)
    assert record["steps"] == 6 and len(record["history"]["resnet8_0_accuracy"]) == 2


def test_an_interruption_before_keras_begins_stays_one(tmp_path):
    checkpoint = Checkpoint(tmp_path, settings(tmp_path, 1))
    with pytest.raises(KeyboardInterrupt), checkpoint.saved_if_interrupted():
        raise KeyboardInterrupt


def test_a_worker_prefers_tasks_of_its_last_kind(tmp_path):
    def task(name, kind):
        return Task(name, print, (), tmp_path / name, kind=kind)

    waiting = deque([task("a1", "a"), task("b1", "b"), task("x", ""), task("b2", "b")])
    assert _next_task(waiting, "b", {"a"}).name == "b1"
    assert _next_task(waiting, "b", {"a"}).name == "b2"
    assert _next_task(waiting, "b", {"a"}).name == "x"  # another worker is at a
    assert _next_task(waiting, "", {"a"}).name == "a1"
