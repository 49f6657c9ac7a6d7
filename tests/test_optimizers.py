"""The schedules and optimizers of Sec. 4.1, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dml_tf import Cohort
from dml_tf.method import optimizers
from dml_tf.method.entropy_sgd import EntropySGD
from dml_tf.runs import build, config, flags


def rates(settings, steps_per_epoch, epochs):
    schedule = build.learning_rate(settings, steps_per_epoch)
    return [float(schedule(epoch * steps_per_epoch)) for epoch in epochs]


def test_cifars_rate_drops_tenfold_at_epochs_60_120_and_180():
    settings = config.load(dataset="cifar10", net=("resnet32",))
    measured = rates(settings, 781, [0, 59, 60, 119, 120, 179, 180, 199])
    np.testing.assert_allclose(measured, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)


def test_imagenets_rate_is_a_staircase_of_0_16_every_20_epochs():
    settings = flags.parse(["--dataset=imagenet", "--net=a"])
    measured = rates(settings, 10, [0, 19, 20, 39, 40])
    np.testing.assert_allclose(measured, [0.1, 0.1, 0.016, 0.016, 0.00256], rtol=1e-5)


def test_market_1501s_rate_is_constant():
    settings = flags.parse(["--dataset=market1501", "--net=a"])
    assert build.learning_rate(settings, 10) == 2e-4


def two_steps(optimizer):
    weight = tf.Variable([1.0])
    for _ in range(2):
        optimizer.apply([tf.constant([0.5])], [weight])
    return float(weight[0])


def test_sgd_is_nesterovs():
    settings = config.load(dataset="cifar10", net=("a",))
    velocity_1 = -0.1 * 0.5
    velocity_2 = 0.9 * velocity_1 - 0.1 * 0.5
    by_hand = 1 + (0.9 * velocity_1 - 0.05) + (0.9 * velocity_2 - 0.05)
    assert two_steps(build.optimizer(settings, 1000)) == pytest.approx(by_hand, rel=1e-6)


def test_rmsprop_may_start_its_mean_square_at_one_as_tensorflow_1_did():
    settings = flags.parse(["--dataset=imagenet", "--net=a"])
    square_1 = 0.9 * 1 + 0.1 * 0.25
    square_2 = 0.9 * square_1 + 0.1 * 0.25
    velocity_1 = 0.1 * 0.5 / (square_1 + 1) ** 0.5  # epsilon stands inside the root
    velocity_2 = 0.9 * velocity_1 + 0.1 * 0.5 / (square_2 + 1) ** 0.5
    by_hand = 1 - velocity_1 - velocity_2
    assert two_steps(build.optimizer(settings, 1000)) == pytest.approx(by_hand, rel=1e-6)
    kerass = settings.replace(mean_square_start=0.0)
    assert two_steps(build.optimizer(kerass, 1000)) < by_hand - 0.02


def test_one_small_gradient_moves_a_weight_little_with_inceptions_epsilon():
    """With epsilon 1e-10 a weight moves by about the learning rate, whatever the gradient."""
    settings = flags.parse(["--dataset=imagenet", "--net=a"])
    moved = {}
    for epsilon in (1.0, 1e-10):
        asked = settings.replace(epsilon=epsilon, mean_square_start=0.0, momentum=0.0)
        optimizer, weight = build.optimizer(asked, 1000), tf.Variable([0.0])
        optimizer.apply([tf.constant([1e-3])], [weight])
        moved[epsilon] = -float(weight[0])
    assert moved[1.0] == pytest.approx(0.1 * 1e-3, rel=1e-4)
    assert moved[1e-10] == pytest.approx(0.1 * 1e-3 / (0.1 * 1e-6 + 1e-10) ** 0.5, rel=1e-3)


def test_rmsprop_survives_serialisation():
    optimizer = optimizers.RMSprop(0.1, rho=0.8, mean_square_start=1.0)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert two_steps(copy) == two_steps(optimizer)


def test_ema_averages_the_weights():
    settings = config.load(dataset="cifar10", net=("a",), ema=0.5, momentum=0.0)
    optimizer, weight = build.optimizer(settings, 1000), tf.Variable([1.0])
    for _ in range(2):
        optimizer.apply([tf.constant([1.0])], [weight])
    optimizer.finalize_variable_values([weight])
    after_1, after_2 = 0.9, 0.8  # Keras starts the average at the first step's weights
    assert float(weight[0]) == pytest.approx(0.5 * after_1 + 0.5 * after_2, rel=1e-5)


def test_peers_of_a_run_have_different_noise():
    settings = config.load(
        dataset="digits", net=("a",), optimizer="entropy_sgd", langevin_steps=7, momentum=0.8
    )
    first, second = (build.optimizer(settings, 10, peer) for peer in (0, 1))
    assert first.seed != second.seed
    assert (first.langevin_steps, first.momentum, first.scope) == (7, 0.8, 0.03)


def test_copies_of_an_optimizer_keep_what_is_not_decayed_and_have_noise_of_their_own(tmp_path):
    def network(name):
        layers = [keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]
        return keras.Sequential(layers, name=name)

    nets = [network("a"), network("b")]
    cohort = Cohort(nets)
    cohort.compile(optimizers.build("adamw", 0.0, weight_decay=0.5))
    cohort.save(tmp_path / "cohort.keras")
    for made in (cohort, keras.saving.load_model(tmp_path / "cohort.keras")):
        for optimizer, net in zip(made.optimizers, made.networks, strict=True):
            decayed = [w.path for w in net.trainable_weights if optimizer._use_weight_decay(w)]
            assert [path.rpartition("/")[2] for path in decayed] == ["kernel"]
    cohort.compile(EntropySGD(seed=3))
    assert [optimizer.seed for optimizer in cohort.optimizers] == [3, 4]
