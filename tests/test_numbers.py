"""Numbers that are not finite never reach a record; a run that does not learn says so."""

import math

import keras
import numpy as np
import pytest

from dml_tf.errors import RunFailed
from dml_tf.measures import evaluate
from dml_tf.paper import run_all, workers
from dml_tf.paper.estimate import Estimate
from dml_tf.runs import build, callbacks, config, records, train
from dml_tf.runs.checkpoint import Checkpoint, variables
from dml_tf.runs.files import RunFiles

SMALL = {"dataset": "digits", "net": "resnet8:4", "image_size": 8, "batch_size": 16}


def settings(tmp_path, **changes):
    return config.load(**{**SMALL, "steps": 3, "results_dir": str(tmp_path), **changes})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A pair that is built and compiled, and not trained."""
    asked = settings(tmp_path_factory.mktemp("pair"), cohort=2, momentum=0.9)
    return build.build_cohort(asked, build.load_data(asked))


class Spoil(keras.callbacks.Callback):
    """Makes one weight, or one variable of the optimizer, of a peer infinite or NaN."""

    def __init__(self, peer, value, of_the_optimizer=False):
        super().__init__()
        self._peer, self._value, self._of_the_optimizer = peer, value, of_the_optimizer

    def on_train_batch_end(self, batch, logs=None):
        variables = self.model.networks[self._peer].trainable_variables
        if self._of_the_optimizer:
            variables = self.model.optimizers[self._peer].variables[2:]
        spoilt = variables[-1].numpy()
        spoilt.flat[0] = self._value
        variables[-1].assign(spoilt)


def test_a_weight_that_is_not_finite_ends_the_run_and_leaves_nothing(tmp_path):
    asked = settings(tmp_path, cohort=2, steps=1)
    with pytest.raises(RunFailed, match=r"A weight of peer resnet8_1 is not finite at step 1"):
        train.run(asked, verbose=0, callbacks=[Spoil(1, math.nan)])
    files = RunFiles.of(asked)
    assert not files.record.exists() and not files.model.exists()
    assert not files.checkpoint().exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("of_the_optimizer", [False, True])
def test_no_variable_of_a_peer_may_be_infinite(pair, value, of_the_optimizer):
    for callback in (stop := callbacks.StopAtNaN(), spoil := Spoil(0, value, of_the_optimizer)):
        callback.set_model(pair)
    stop.on_epoch_end(0, {})
    before = [variable.numpy() for variable in variables(pair)]
    spoil.on_train_batch_end(0)
    with pytest.raises(RunFailed, match="A weight of peer resnet8_0 is not finite at step 0"):
        stop.on_epoch_end(0, {})
    for variable, value_before in zip(variables(pair), before, strict=True):
        variable.assign(value_before)


def test_weights_too_large_for_evaluation_end_the_run_and_name_evaluation_and_cause(tmp_path):
    asked = settings(tmp_path, learning_rate=1e30, steps=1)
    with pytest.raises(RunFailed, match="outputs of resnet8 are not finite for .* evaluated"):
        train.run(asked, verbose=0)
    assert not RunFiles.of(asked).record.exists()


def test_features_that_are_not_finite_are_refused(tmp_path, pair):
    splits = build.load_data(settings(tmp_path))
    network = keras.models.clone_model(pair.networks[0])
    network.weights[0].assign(np.full(network.weights[0].shape, np.nan))
    features = evaluate.extractor(["resnet8"], [network])
    with pytest.raises(RunFailed, match="not finite for 1000 of 1000 images"):
        evaluate.predict(features, splits.test, splits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_record_with_a_number_that_is_not_finite_is_not_written(tmp_path, value):
    record = {"test": {"peers": {"a": {"curve": [0.5, value]}}}}
    with pytest.raises(RunFailed, match=r"run: test.peers.a.curve is -?(nan|inf), so no record"):
        records.write(record, tmp_path / "run.json")
    assert not list(tmp_path.iterdir())


def test_in_a_sweep_the_run_fails_and_the_others_go_on(tmp_path):
    broken, sound = settings(tmp_path, learning_rate=1e30, steps=1), settings(tmp_path, steps=1)
    events = [
        workers.perform(run_all._task(run, Estimate()), lambda text: None)
        for run in (broken, sound)
    ]
    assert [kind for kind, _ in events] == ["failed", "done"]
    assert "not finite" in events[0][1]
    assert records.find(sound) and not RunFiles.of(broken).record.exists()


# Warnings


def test_a_learning_rate_of_0_is_warned_of_once_and_stands_in_the_record(tmp_path):
    asked = settings(tmp_path, cohort=2, learning_rate=0, train_images=16, steps=2)
    with pytest.warns(UserWarning) as warned:
        record = train.run(asked, verbose=0)
    expected = "--learning_rate=0: no weight will move."
    messages = [str(w.message) for w in warned if w.category is UserWarning]
    assert messages == record["warnings"] == [expected]


@pytest.mark.filterwarnings("ignore:Peer resnet8_1")
def test_an_optimizer_that_moves_nothing_is_named_with_its_peer(tmp_path, pair):
    asked = settings(tmp_path, cohort=2)
    checkpoint = Checkpoint(tmp_path / "state", asked)
    warn = callbacks.Warn(asked, build.load_data(asked).train, checkpoint)
    warn.set_model(pair)
    warn.on_train_begin()
    with pytest.warns(UserWarning, match="Peer resnet8_0: the optimizer moved no weight by more"):
        warn.on_epoch_end(0, {})
    assert list(checkpoint.warnings) == ["resnet8_0 stands still", "resnet8_1 stands still"]


@pytest.mark.filterwarnings("ignore:Peer resnet8_1")
def test_a_run_too_short_for_a_checkpoint_is_examined_at_its_end(tmp_path, pair, monkeypatch):
    monkeypatch.setattr("dml_tf.runs.checkpoint.EVERY_S", 100.0)
    asked = settings(tmp_path, cohort=2)
    checkpoint = Checkpoint(tmp_path / "state", asked)
    checkpoint.on_train_begin()
    warn = callbacks.Warn(asked, build.load_data(asked).train, checkpoint)
    warn.set_model(pair)
    warn.on_train_begin()
    warn.on_epoch_end(0, {})
    assert not checkpoint.warnings
    with pytest.warns(UserWarning, match="Peer resnet8_0: the optimizer moved no weight by more"):
        warn.on_train_end()


def test_a_peer_at_chance_for_ten_epochs_is_named_also_after_a_resumption(tmp_path, pair):
    asked, cohort = settings(tmp_path, cohort=2, momentum=0.9), pair
    splits = build.load_data(asked)
    at_chance, learning = {"resnet8_0_accuracy": 0.1}, {"resnet8_1_accuracy": 0.6}
    checkpoint = Checkpoint(tmp_path / "state", asked, splits=splits)
    checkpoint.history = {name: [value] * 9 for name, value in (at_chance | learning).items()}
    warn = callbacks.Warn(asked, splits.train, checkpoint)
    warn.set_model(cohort)
    warn.on_train_begin()
    for network in cohort.networks:
        network.trainable_variables[0].assign(network.trainable_variables[0] * 2)
    with pytest.warns(UserWarning, match="Peer resnet8_0 has been at chance for 10 epochs"):
        warn.on_epoch_end(9, at_chance | learning)
    assert list(checkpoint.warnings) == ["resnet8_0 at chance"]
    checkpoint.set_model(cohort)
    checkpoint.on_train_begin()
    checkpoint.on_epoch_end(9, at_chance | learning)
    checkpoint.on_train_end()
    again = Checkpoint(tmp_path / "state", asked, splits=splits)
    assert again.restore(cohort) == 10 and again.warnings == checkpoint.warnings


def test_chance_is_the_share_of_the_largest_class_and_two_deviations():
    labels = np.array([0] * 75 + [1] * 25 + [-1] * 50)
    assert callbacks.accuracy_at_chance(labels) == pytest.approx(
        0.75 + 2 * math.sqrt(0.75 * 0.25 / 100)
    )
