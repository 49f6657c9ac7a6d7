"""Peers on two devices, and batches split over two, learn as on one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import without_batch_norm
from rounding import StartOneRoundingAway, assert_alike, assert_like_histories

from dml_tf import Cohort, data, networks
from dml_tf.errors import FlagError, RecordMismatch
from dml_tf.networks.layers import BatchNormalization
from dml_tf.runs import build, config, records, train
from dml_tf.runs.files import RunFiles
from dml_tf.runs.parallel.placement import arrange

SMALL = {
    "dataset": "digits", "image_size": 8, "batch_size": 16, "steps": 0, "epochs": 2, "cohort": 2,
    "net": ("resnet8:4",), "labelled_fraction": 0.5, "validation_fraction": 0.2,
}  # fmt: skip


LOSSES = {"feature_weight": 0.1, "entropy_weight": 0.1, "weight_decay": 0.01, "ema": 0.9}


def settings(**changes):
    return config.load(**{**SMALL, **changes})


def weights_of(asked):
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    return [w for net in cohort.networks for w in net.get_weights()]


def test_each_peer_its_optimizer_and_its_work_are_on_its_own_device(tmp_path):
    asked = settings(placement="peers", update="simultaneous", results_dir=str(tmp_path))
    splits = build.load_data(asked)
    cohort = build.build_cohort(asked, splits, arrange(asked))
    for k, (network, optimizer) in enumerate(zip(cohort.networks, cohort.optimizers, strict=True)):
        variables = [*network.variables, *optimizer.variables]
        assert {v.value.device[-5:] for v in variables} == {f"CPU:{k}"}
    batch = next(iter(data.train_batches(splits, asked)))
    step = tf.function(cohort.train_step, autograph=False).get_concrete_function(batch)
    for kind in (
        "Conv2D",
        "Conv2DBackpropFilter",
        "ResourceApplyKerasMomentum",
        "AssignSubVariableOp",
    ):
        used = [op.device[-5:] for op in step.graph.get_operations() if op.type == kind]
        assert used.count("CPU:0") == used.count("CPU:1") == len(used) / 2, kind
    assert any(op.type == "Conv2DBackpropFilter" for op in step.graph.get_operations())


@pytest.fixture(scope="module", autouse=True)
def no_batch_norm():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "build", without_batch_norm)
        yield


@pytest.fixture(scope="module")
def one(no_batch_norm, tmp_path_factory):
    """Half of the images have labels, kernels decay, and every loss is in use."""
    asked = settings(**LOSSES, results_dir=str(tmp_path_factory.mktemp("one")))
    twin = asked.replace(results_dir=str(tmp_path_factory.mktemp("twin")))
    start = build.build_cohort(asked, build.load_data(asked)).get_weights()
    record = train.run(asked, verbose=0)
    rounded = train.run(twin, verbose=0, callbacks=[StartOneRoundingAway()])
    return (record, weights_of(asked)), (rounded, weights_of(twin)), start


def assert_learnt_as_one(record, weights, one):
    (expected, theirs), (rounded, twin), start = one
    assert_alike(weights, theirs, twin, start)
    assert record.keys() == expected.keys() | {"placement"}
    assert record["steps"] == expected["steps"] == 2 * 12
    assert_like_histories(record["history"], expected["history"], rounded["history"])


def test_peers_on_their_own_devices_learn_as_on_one(one, tmp_path, capsys):
    asked = settings(placement="peers", **LOSSES, results_dir=str(tmp_path))
    record = train.run(asked, verbose=0)
    assert_learnt_as_one(record, weights_of(asked), one)
    assert record["placement"] == {
        "kind": "peers", "processes": 1, "devices": 2, "bytes_per_step": 16 * (10 + 4) * 4,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "each receives 896 bytes a step. Sequential updates wait for one another" in said


def test_a_split_batch_gives_the_weights_of_a_whole_one_although_the_run_was_stopped(one, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    asked = settings(
        placement="data", steps_per_execution=4, **LOSSES, results_dir=str(tmp_path)
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train.run(asked, verbose=0, callbacks=[Interrupt()])
    record = train.run(asked, verbose=0)
    assert_learnt_as_one(record, weights_of(asked), one)
    record["placement"]["devices"] = 4
    records.write(record, RunFiles.of(asked).record)
    with pytest.raises(RecordMismatch, match="split over 4 devices, not 2"):
        train.run(asked, verbose=0)
    # Two devices: an all-reduce brings each of them half of the gradients twice.
    assert record["placement"]["bytes_per_step"] == 4 * sum(record["parameters"].values())


def test_batch_norm_sees_its_own_part_of_a_split_batch():
    """Statistics are of a replica's images; the averages kept are the first replica's."""
    images = np.array([[1.0, 3.0], [5.0, 9.0]], "float32").reshape(2, 2, 1, 1, 1)
    parts = images, [[0, 1], [0, 1]]
    strategy = arrange(settings(placement="data")).strategy
    with strategy.scope():
        norm, flat = BatchNormalization(momentum=0.9), keras.layers.Flatten()
        body = [keras.Input((1, 1, 1)), norm, flat, keras.layers.Dense(2)]
        cohort = Cohort([keras.Sequential(body)])
        cohort.compile("sgd")
    batches = strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_tensor_slices(parts)
    )
    iterator = iter(batches)
    tf.function(lambda: strategy.run(cohort.train_step, args=(next(iterator),)))()
    np.testing.assert_allclose(norm.moving_mean.numpy(), [0.1 * 2.0], rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), [0.9 + 0.1 * 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": "data", "batch_size": 15}, "--batch_size=15 cannot be split evenly over 2"),
        ({"placement": "peers", "cohort": 3}, "there are 2 .* for --cohort=3"),
    ],
)
def test_what_two_devices_cannot_do_is_refused(changes, message):
    with pytest.raises(FlagError, match=message):
        arrange(settings(**changes))
