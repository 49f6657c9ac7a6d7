"""An exported training step in JAX does what Keras does."""

import jax
import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import largest_difference, tolerance, twins_of

from dml_tf import Cohort, data
from dml_tf.data import Split, Splits
from dml_tf.data.load import pixel_statistics
from dml_tf.export import jax_step, write
from dml_tf.export.folder import Export, describe
from dml_tf.runs import build, checkpoint, config

CPU = jax.devices("cpu")[0]


@pytest.fixture
def pair(exported_pair):
    return Export.read(exported_pair)


def losses_of(logs):
    return [float(logs[name]) for name in sorted(logs) if name.endswith("_loss")]


def test_20_steps_agree_with_keras(pair):
    splits = build.load_data(pair.config)
    cohort = build.build_cohort(pair.config, splits)
    step = tf.function(cohort.train_step)
    variables = checkpoint.variables(cohort)
    _, start = pair.read_state()

    def in_keras(start):
        for variable, value in zip(variables, start, strict=False):
            variable.assign(value)
        losses = []
        for batch in data.train_batches(splits, pair.config).take(20):
            cohort.reset_metrics()
            losses.append(losses_of(step(batch)))
        return np.array(losses), [v.numpy() for v in variables]

    def in_jax(state):
        trainer = jax_step.Trainer(pair, splits.train, CPU)
        losses = []
        for epoch, i in [divmod(i, pair.schedule.steps_per_epoch) for i in range(20)]:
            state = trainer.advance(trainer.reset_metrics(state), epoch, i, i + 1)
            losses.append(losses_of(trainer.metrics(state)))
        return np.array(losses), jax.device_get(state)[: len(variables)]

    losses, weights = in_keras(start)
    twins = [in_keras(values) for values in twins_of(start)]
    jax_losses, jax_weights = in_jax(start)
    allowed = tolerance([losses], [[twin_losses] for twin_losses, _ in twins])
    assert largest_difference([losses], [jax_losses]) <= allowed
    assert allowed < 1e-3 * np.ptp(losses)  # which a mistake would exceed
    allowed = tolerance(weights, [twin_weights for _, twin_weights in twins])
    assert largest_difference(weights, jax_weights) <= allowed
    assert allowed < 1e-3 * largest_difference(weights, start)


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_batches_equal_those_of_tf_data_bit_for_bit(augment, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 12, 12, 3), np.uint8)
    train = Split(images, np.arange(10) % 4 - 1)
    mean, std = pixel_statistics(images)
    splits = Splits("random", train, None, train, 3, ("a", "b", "c"), mean, std)
    settings = config.load(
        dataset="digits", net=("resnet8",), batch_size=4, augment=augment, seed=3
    )
    described = describe(train) | {"mean": mean.tolist(), "std": std.tolist()}
    export = Export(tmp_path, {"images": described}, settings)
    batches = data.train_batches(splits, settings).take(4)
    on_device, batch = jax_step.to_device(train, export, CPU), jax.jit(jax_step.batch)
    for (epoch, i), expected in zip([(0, 0), (0, 1), (1, 0), (1, 1)], batches, strict=True):
        draws = export.epoch_draws(epoch)
        found = batch(on_device, data.EpochDraws(*(array[i] for array in draws)))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_many_steps_in_one_dispatch_equal_single_ones(pair):
    train, (_, start) = pair.training_set(), pair.read_state()

    metrics = {i for places in pair.manifest["metrics"].values() for i in places}

    def trained(start, dispatch):
        trainer = jax_step.Trainer(pair, train, CPU, "highest", dispatch)
        state = jax.device_get(trainer.advance(start, 1, 0, 4))
        weights = [value for i, value in enumerate(state) if i not in metrics]
        return weights, [np.array(list(trainer.metrics(state).values()))]

    single = trained(start, jax_step.one_by_one)
    loop = trained(start, jax_step.in_one_dispatch)
    twins = [trained(values, jax_step.one_by_one) for values in twins_of(start)]
    for ours, other, of_twins in zip(single, loop, zip(*twins, strict=True), strict=True):
        assert largest_difference(ours, other) <= tolerance(ours, of_twins) < 1e-3
    assert largest_difference(single[0], start) > 1e-2


def test_the_program_returns_what_it_updates_and_no_frozen_peer():
    def peer(name):
        x = keras.Input((2, 2, 1))
        hidden = keras.layers.BatchNormalization()(keras.layers.Flatten()(x))
        return keras.Model(x, keras.layers.Dense(3)(hidden), name=name)

    cohort = Cohort([peer("teacher"), peer("student")], frozen=(0,))
    cohort.compile("sgd")
    metrics = [v for metric in cohort.metrics for v in metric.variables]
    variables = [*checkpoint.variables(cohort), *metrics]
    text, updated = write.lower(cohort, variables, (5, 2, 2, 1))
    read_only = {id(v) for v in (*cohort.networks[0].variables, cohort.optimizers[0].learning_rate)}
    assert updated == [i for i, v in enumerate(variables) if id(v) not in read_only]
    assert "mhlo" not in text and "custom_call" not in text
    with pytest.raises(RuntimeError, match="variables"):
        write.lower(cohort, variables[:-1], (5, 2, 2, 1))


def test_learning_rates_are_inputs_that_follow_keras_schedule(pair):
    per_epoch, rates = pair.schedule.steps_per_epoch, pair.manifest["learning_rate"]
    schedule = build.learning_rate(pair.config, per_epoch)
    expected = [float(schedule(epoch * per_epoch)) for epoch in range(4)]
    assert rates["by_epoch"] == expected
    assert expected[1] == pytest.approx(10 * expected[2])
    names = [variable["name"] for variable in pair.manifest["variables"]]
    assert [names[i] for i in rates["places"]] == ["learning_rate"] * 2

    train, (_, start) = pair.training_set(), pair.read_state()
    kernels = [i for i, name in enumerate(names) if name == "logits/kernel"]
    for rate, moves in ((0.1, True), (0.0, False)):
        rates["by_epoch"][0] = rate
        after = jax.device_get(jax_step.Trainer(pair, train, CPU).advance(start, 0, 0, 1))
        assert [bool(np.any(after[i] != start[i])) for i in kernels] == [moves] * 2


def test_a_constant_learning_rate_is_the_optimizers_own_variable():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    cohort = Cohort([network])
    cohort.compile(keras.optimizers.SGD(0.3))
    (rate,) = write.learning_rates(cohort)
    assert any(rate is variable for variable in checkpoint.variables(cohort))
    assert float(rate) == pytest.approx(0.3)
