"""Claims on two devices; `test_placement.py` runs them in a process of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import without_batch_norm

from dml_tf import Cohort, config, data, networks, train
from dml_tf.config import FlagError
from dml_tf.placement import arrange

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)

SMALL = {
    "dataset": "digits", "image_size": 8, "batch_size": 16, "steps": 0, "epochs": 2, "cohort": 2,
    "net": ("resnet8:4",), "labelled_fraction": 0.5, "validation_fraction": 0.2,
}  # fmt: skip


def settings(**changes):
    return config.load(**{**SMALL, **changes})


def weights_of(asked):
    cohort = keras.saving.load_model(train.model_path(asked))
    return [w for net in cohort.networks for w in net.get_weights()]


def test_each_peer_its_optimizer_and_its_work_are_on_its_own_device(tmp_path):
    asked = settings(placement="peers", update="simultaneous", results_dir=str(tmp_path))
    splits = train.load_data(asked)
    cohort = train.build_cohort(asked, splits, arrange(asked))
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


def test_peers_on_their_own_devices_learn_as_on_one(tmp_path, capsys):
    learnt = []
    for placement in ("one", "peers"):
        asked = settings(placement=placement, results_dir=str(tmp_path / placement))
        record = train.run(asked, verbose=0)
        learnt.append((weights_of(asked), record))
    for ours, theirs in zip(learnt[0][0], learnt[1][0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert learnt[0][1].keys() == learnt[1][1].keys()
    assert learnt[1][1]["placement"] == {
        "kind": "peers", "processes": 1, "devices": 2, "bytes_per_step": 16 * 10 * 4,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "each receives 640 bytes a step. Sequential updates wait for one another" in said


def test_a_split_batch_gives_the_weights_and_history_of_a_whole_one(tmp_path, monkeypatch):
    """Half of the images have labels, unevenly over the parts, and kernels decay."""
    monkeypatch.setattr(networks, "build", without_batch_norm)
    options = {"feature_weight": 0.1, "entropy_weight": 0.1, "weight_decay": 0.01}
    learnt = []
    for placement, at_once in (("one", 1), ("data", 4)):
        asked = settings(
            placement=placement, steps_per_execution=at_once,
            results_dir=str(tmp_path / placement), **options,
        )  # fmt: skip
        learnt.append((train.run(asked, verbose=0), weights_of(asked)))
    (one, ours), (split, theirs) = learnt
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert one["history"].keys() == split["history"].keys()
    for name, values in one["history"].items():
        np.testing.assert_allclose(values, split["history"][name], rtol=1e-3, err_msg=name)
    assert split["steps"] == one["steps"] == 2 * 12
    # Two devices: an all-reduce brings each of them half of the gradients twice.
    gradients = sum(split["parameters"].values()) * 4
    assert split["placement"]["bytes_per_step"] == gradients


def test_batch_norm_sees_its_own_part_of_a_split_batch():
    """Statistics are of a replica's images; the averages kept are the first replica's."""
    parts = [[[1.0], [3.0]], [[5.0], [9.0]]], [[0, 1], [0, 1]]
    strategy = arrange(settings(placement="data")).strategy
    with strategy.scope():
        norm = keras.layers.BatchNormalization(momentum=0.9)
        cohort = Cohort([keras.Sequential([keras.Input((1,)), norm, keras.layers.Dense(2)])])
        cohort.compile("sgd")
    batches = strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_tensor_slices(parts)
    )
    iterator = iter(batches)
    tf.function(lambda: strategy.run(cohort.train_step, args=(next(iterator),)))()
    np.testing.assert_allclose(norm.moving_mean.numpy(), [0.1 * 2.0], rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), [0.9 + 0.1 * 1.0], rtol=1e-6)


def test_a_split_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "build", without_batch_norm)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole, stopped = (
        settings(
            placement="data", optimizer="adam", momentum=0.0, ema=0.9, results_dir=str(tmp_path / n)
        )
        for n in ("whole", "stopped")
    )
    uninterrupted = train.run(whole, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        train.run(stopped, verbose=0, callbacks=[Interrupt()])
    record = train.run(stopped, verbose=0)
    assert record["history"] == uninterrupted["history"]
    for ours, theirs in zip(weights_of(whole), weights_of(stopped), strict=True):
        np.testing.assert_array_equal(ours, theirs)


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
