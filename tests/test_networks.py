"""The networks: sizes, what they compute, names, weight decay, seeds, saving and precision."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import FACTOR, largest_difference, one_rounding_away

from dml_tf.networks import batch_norms, build, parse
from dml_tf.networks.layers import BatchNormalization, Layers

CIFAR100 = {"num_classes": 100, "input_shape": (32, 32, 3)}
TINY = {"num_classes": 5, "input_shape": (16, 16, 3)}
CIFAR10 = {"num_classes": 10, "input_shape": (32, 32, 3)}
SMALL_NETS = ["resnet8:4", "wrn-10-2:4", "mobilenet_short:0.25"]


def trainable_count(net):
    return sum(int(np.prod(variable.shape)) for variable in net.trainable_variables)


def last_map(net):
    return net.get_layer("features").input.shape[1:]


def random_images(shape, batch=2):
    return np.random.default_rng(0).normal(size=(batch, *shape)).astype("float32")


def weights_differ(a, b):
    return [not np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True)]


def assert_equal_but_for_rounding(ours, expected, twin):
    """Holds arrays equal within what a twin's rounding does, which a mistake would exceed."""
    tolerance = FACTOR * largest_difference(expected, twin)
    assert largest_difference(ours, expected) <= tolerance
    assert tolerance < 1e-3 * max(np.max(np.abs(array)) for array in expected)


def weights_one_rounding_away(net):
    rng = np.random.default_rng(0)
    return [one_rounding_away(weight, rng) for weight in net.get_weights()]


def conv_norm(size, inputs, outputs):
    """Weights of a bias-free convolution, with gamma and beta of its BatchNorm."""
    return size * size * inputs * outputs + 2 * outputs


# --- Table 1: parameters at 100 classes ---


def test_resnet32_has_the_half_million_of_table_1():
    # A stage is 10 convolutions of 3x3 with BatchNorm, the first of which doubles the channels.
    stem = 3 * 3 * 3 * 16 + 2 * 16
    stage_1 = 10 * (9 * 16 * 16 + 2 * 16)
    stage_2 = 9 * 16 * 32 + 9 * (9 * 32 * 32) + 10 * 2 * 32
    stage_3 = 9 * 32 * 64 + 9 * (9 * 64 * 64) + 10 * 2 * 64
    classifier = 64 * 100 + 100
    by_hand = stem + stage_1 + stage_2 + stage_3 + classifier
    assert by_hand == 470_004

    net = build("resnet32", **CIFAR100)

    assert trainable_count(net) == by_hand
    assert round(by_hand / 1e6, 1) == 0.5
    assert last_map(net) == (8, 8, 64)


@pytest.mark.parametrize(
    ("input_shape", "final_map"),
    [
        ((32, 32, 3), (4, 4, 1024)),
        ((160, 64, 3), (5, 2, 1024)),
        ((224, 224, 3), (7, 7, 1024)),
    ],
)
def test_mobilenet_has_the_3_3_million_of_table_1_at_every_input(input_shape, final_map):
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    by_hand = conv_norm(3, 3, 32) + 1024 * 100 + 100
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        by_hand += conv_norm(3, 1, inputs) + conv_norm(1, inputs, outputs)

    net = build("mobilenet", num_classes=100, input_shape=input_shape)

    assert trainable_count(net) == by_hand == 3_309_476
    assert last_map(net) == final_map


def test_wrn_28_10_has_the_36_5_million_of_table_1():
    # BatchNorm stands before each convolution; a stage's first shortcut is a 1x1 convolution.
    by_hand = 3 * 9 * 16 + 2 * 640 + 640 * 100 + 100
    for inputs, outputs in ((16, 160), (160, 320), (320, 640)):
        by_hand += 2 * inputs + 9 * inputs * outputs + inputs * outputs
        by_hand += 7 * (2 * outputs + 9 * outputs * outputs)

    net = build("wrn-28-10", **CIFAR100)

    assert trainable_count(net) == by_hand == 36_536_884
    assert last_map(net) == (8, 8, 640)
    assert net.name == "wrn-28-10"


@pytest.mark.parametrize(
    ("input_shape", "final_map"),
    [((32, 32, 3), (4, 4, 1024)), ((224, 224, 3), (7, 7, 1024))],
)
def test_inception_v1_has_5_70_million_which_is_not_table_1s(input_shape, final_map):
    # Table 1 prints 7.8M, which no usual variant has. True 5x5 kernels in the branch of that name
    # would add 16 weights for each pair of channels, and come to 6.08M.
    pairs = 16 * 32 + 32 * 96 + 16 * 48 + 2 * 24 * 64 + 32 * 64 + 2 * 32 * 128 + 48 * 128

    net = build("inception_v1", num_classes=100, input_shape=input_shape)

    assert trainable_count(net) == 5_702_404
    assert round((trainable_count(net) + 16 * pairs) / 1e6, 2) == 6.08
    assert last_map(net) == final_map


def test_mobilenet_short_keeps_more_than_a_pixel_of_16x16():
    net = build("mobilenet_short", **TINY)
    assert last_map(net) == (2, 2, 512)


# --- what the networks compute ---


def test_mobilenet_equals_the_one_that_keras_ships():
    shape = (64, 64, 3)
    theirs = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=shape, alpha=0.25
    )
    ours = build("mobilenet:0.25", num_classes=3, input_shape=shape)
    ours.set_weights(theirs.get_weights() + ours.get_weights()[-2:])
    images = random_images(shape)
    found, expected = ours(images)["features"].numpy(), theirs(images).numpy()
    ours.set_weights(weights_one_rounding_away(ours))
    twin = ours(images)["features"].numpy()
    assert_equal_but_for_rounding([found], [expected], [twin])


def test_resnet_shortcuts_take_every_second_pixel_and_pad_channels_with_zeros():
    # With all convolutions but the first at zero, only the shortcuts remain.
    net = build("resnet8:4", num_classes=5, input_shape=(14, 18, 3), seed=0)
    stem, *others = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
    for layer in others:
        layer.kernel.assign(tf.zeros_like(layer.kernel))
    images = random_images((14, 18, 3))
    first = np.maximum(stem(images) / np.sqrt(1 + 1e-5), 0)

    features = net(images)["features"]

    expected = np.pad(first[:, ::4, ::4].mean(axis=(1, 2)), [(0, 0), (0, 12)])
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-7)


def test_wrn_is_pre_activated_and_projects_after_the_activation():
    # With the residual convolutions at zero, three projections, each after an activation, remain.
    net = build("wrn-10-2:4", **TINY, seed=0)
    stem, *others = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
    for layer in others:
        if layer.kernel_size == (3, 3):
            layer.kernel.assign(tf.zeros_like(layer.kernel))
    projections = [layer.kernel.numpy()[0, 0] for layer in others if layer.kernel_size == (1, 1)]
    assert [kernel.shape for kernel in projections] == [(4, 8), (8, 16), (16, 32)]
    images = random_images((16, 16, 3))

    x = np.asarray(stem(images))
    for kernel, stride in zip(projections, (1, 2, 2), strict=True):
        x = np.maximum(x / np.sqrt(1 + 1e-5), 0)[:, ::stride, ::stride] @ kernel
    expected = np.maximum(x / np.sqrt(1 + 1e-5), 0).mean(axis=(1, 2))

    np.testing.assert_allclose(net(images)["features"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [7, 8])
def test_strided_residual_convolution_is_centred_on_the_shortcuts_pixels(side):
    inputs = keras.Input((side, side, 1))
    net = keras.Model(inputs, Layers().residual_conv(inputs, 1, stride=2))
    centre = np.zeros((3, 3, 1, 1), "float32")
    centre[1, 1] = 1
    net.set_weights([centre])
    images = random_images((side, side, 1))
    np.testing.assert_array_equal(net(images), images[:, ::2, ::2])


@pytest.mark.parametrize("name", SMALL_NETS)
def test_logits_are_a_linear_map_of_the_features(name):
    net = build(name, **TINY, dropout=0.5)
    images = random_images((16, 16, 3), batch=3)
    outputs = net(images)
    kernel, bias = net.get_layer("logits").get_weights()
    pooled = keras.Model(net.input, net.get_layer("features").input)(images)
    assert outputs["logits"].shape == (3, 5)
    np.testing.assert_allclose(outputs["features"], np.mean(pooled, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        outputs["logits"], outputs["features"] @ kernel + bias, rtol=1e-4, atol=1e-6
    )


def test_initial_maps_keep_their_size_through_a_deep_network():
    # He's rule: in 32 layers maps neither vanish nor explode, without the help of BatchNorm.
    layers = Layers(seed=0)
    x = inputs = keras.Input((16, 16, 32))
    for _ in range(16):
        x = keras.layers.ReLU()(layers.conv(keras.layers.ReLU()(layers.depthwise_conv(x)), 32, 1))
    spread = np.std(keras.Model(inputs, x)(random_images((16, 16, 32))))
    assert 0.05 < spread < 20


@pytest.mark.parametrize("name", ["resnet20", "wrn-10-2", "mobilenet", "inception_v1"])
def test_peers_begin_with_posteriors_that_hardly_differ(name):
    # Otherwise their divergence, several nats, would drive the first steps, not the labels.
    images = random_images((32, 32, 3), batch=8)
    first, second = (
        keras.ops.softmax(build(name, **CIFAR10, seed=seed)(images, training=True)["logits"])
        for seed in (0, 1)
    )
    assert np.sum(first * np.log(first / second), axis=1).mean() < 0.1


def test_hes_start_is_keras_own_for_batchnorm_and_classifier():
    first, second = (build("resnet8:4", **TINY, seed=0, init=init) for init in ("goyal", "he"))
    scales = [
        [float(w.numpy().sum()) for w in net.trainable_variables if w.path.endswith("gamma")]
        for net in (first, second)
    ]
    assert 0 in scales[0] and 0 not in scales[1]
    deviation = [np.std(net.get_layer("logits").kernel.numpy()) for net in (first, second)]
    limit = np.sqrt(6 / (16 + 5))  # Glorot's uniform distribution
    assert deviation[0] < 0.02 and deviation[1] == pytest.approx(limit / np.sqrt(3), rel=0.2)
    # Convolutions start alike: the same draws.
    kernels = [net.trainable_variables[0].numpy() for net in (first, second)]
    np.testing.assert_array_equal(*kernels)


def test_residual_blocks_with_an_identity_shortcut_begin_as_the_identity():
    net = build("resnet20", **CIFAR10)
    joined = [layer for layer in net.layers if isinstance(layer, keras.layers.Add)]
    maps = keras.Model(net.inputs, [[*layer.input, layer.output] for layer in joined])
    kept = [np.array_equal(s, t) for s, _, t in maps([random_images((32, 32, 3))])]
    assert kept == [True] * 3 + [False, True, True] * 2


# --- width ---


def test_width_in_the_name_equals_width_as_argument():
    for name, width in (("resnet8", 8), ("wrn-10-2", 8), ("mobilenet_short", 0.5)):
        in_name = build(f"{name}:{width}", **TINY, seed=1)
        argument = build(name, width=width, **TINY, seed=1)
        assert in_name.name == argument.name == name
        assert not any(weights_differ(in_name, argument))
        assert parse(f"{name}:{width}", width=width)[0] == name


def test_width_is_the_base_of_a_resnet_and_the_multiplier_of_a_mobilenet():
    assert last_map(build("resnet8:4", **TINY)) == (4, 4, 16)
    assert last_map(build("wrn-10-2:4", **TINY)) == (4, 4, 32)
    assert last_map(build("mobilenet_short:0.25", **TINY)) == (2, 2, 128)


# --- names and arguments that are refused ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foo", "Accepted: resnet<6n[+]2>"),
        ("", "Accepted"),
        ("resnet", "Accepted"),
        ("ResNet32", "Accepted"),
        ("wrn-28", "Accepted"),
        ("wrn-28-0", "Accepted"),
        ("resnet8:abc", "'abc'.*Accepted"),
        ("resnet8:", "Accepted"),
        ("resnet31", "Use resnet26 or resnet32"),
        ("resnet2", r"Use resnet8\."),
        ("wrn-27-10", "6n[+]4. Use wrn-22-10 or wrn-28-10"),
        ("resnet8:0.5", "whole number"),
        ("resnet8:0", "positive"),
        ("resnet8:nan", "positive"),
        ("mobilenet:-1", "positive"),
        ("mobilenet:inf", "positive"),
        ("inception_v1:0.5", "has no width"),
    ],
)
def test_the_name_of_no_network_is_refused_and_the_message_helps(name, message):
    with pytest.raises(ValueError, match=message):
        build(name, **TINY)


def test_two_different_widths_are_refused():
    with pytest.raises(ValueError, match="one width"):
        parse("resnet8:16", width=8)


@pytest.mark.parametrize("shape", [(32, 32), (None, None, 3), (32, 0, 3), (32, -1, 3)])
def test_an_input_shape_without_fixed_sides_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape("(height, width, channels)")):
        build("resnet8", num_classes=5, input_shape=shape)


# --- weight decay ---


@pytest.mark.parametrize("name", SMALL_NETS)
def test_weight_decay_adds_w_theta_to_kernels_and_nothing_else(name):
    net = build(name, **TINY, weight_decay=0.1)
    kernels = [v for v in net.trainable_variables if "kernel" in v.path.split("/")[-1]]
    others = [v for v in net.trainable_variables if "kernel" not in v.path.split("/")[-1]]
    assert {v.path.split("/")[-1] for v in others} == {"gamma", "beta", "bias"}
    with tf.GradientTape() as tape:
        decay = tf.add_n(net.losses)
    gradients = tape.gradient(decay, [v.value for v in kernels + others])
    for kernel, gradient in zip(kernels, gradients, strict=False):
        np.testing.assert_allclose(gradient, 0.1 * kernel.numpy(), rtol=1e-5)
    assert gradients[len(kernels) :] == [None] * len(others)


def test_without_weight_decay_there_are_no_losses():
    assert build("mobilenet_short:0.25", **TINY).losses == []


def test_running_averages_move_by_a_tenth_of_the_way_to_the_batch():
    net = build("resnet8:4", **TINY, seed=0)
    images = random_images((16, 16, 3))
    stem, norm = net.layers[1:3]
    net(images, training=True)
    expected = 0.1 * np.mean(stem(images), axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-4, atol=1e-6)


# --- seeds ---


def test_the_same_seed_gives_the_same_weights_and_masks_whatever_was_built_before():
    def make():
        return build("mobilenet_short:0.25", **TINY, dropout=0.5, seed=7)

    images = random_images((16, 16, 3))
    keras.utils.set_random_seed(1)
    first = make()
    keras.utils.set_random_seed(2)
    build("resnet8:4", **TINY, dropout=0.5)
    second = make()

    assert not any(weights_differ(first, second))
    steps = [[net(images, training=True)["logits"] for _ in range(2)] for net in (first, second)]
    np.testing.assert_array_equal(steps[0], steps[1])
    assert not np.array_equal(steps[0][0], steps[0][1])


def test_weights_do_not_depend_on_dropout_or_weight_decay():
    plain = build("resnet8:4", **TINY, seed=3)
    regularised = build("resnet8:4", **TINY, seed=3, dropout=0.5, weight_decay=1e-3)
    kernels = [v.numpy() for v in plain.trainable_variables]
    for a, b in zip(kernels, regularised.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_different_seeds_differ_in_every_kernel():
    a, b = (build("resnet8:4", **TINY, seed=seed) for seed in (0, 1))
    kernels = [weight.ndim > 1 for weight in a.get_weights()]
    assert weights_differ(a, b) == kernels


def test_no_two_layers_of_two_networks_share_a_stream():
    seeds = []
    for seed in (0, 1):
        for layer in build("resnet20:4", **TINY, dropout=0.5, seed=seed).layers:
            config = layer.get_config()
            if "kernel_initializer" in config:
                seeds.append(config["kernel_initializer"]["config"]["seed"])
            elif isinstance(layer, keras.layers.Dropout):
                seeds.append(config["seed"])
    assert len(seeds) == len(set(seeds)) == 2 * (19 + 1 + 1)
    assert all(isinstance(seed, int) for seed in seeds)


def test_without_a_seed_the_global_one_decides():
    nets = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        nets.append(build("resnet8:4", **TINY))
    assert not any(weights_differ(nets[0], nets[1]))
    assert any(weights_differ(nets[0], nets[2]))


# --- saving, precision, compilation ---


@pytest.mark.parametrize("name", SMALL_NETS)
def test_saved_and_cloned_networks_compute_the_same(name, tmp_path):
    net = build(name, **TINY, weight_decay=1e-3, dropout=0.2, seed=0)
    images = random_images((16, 16, 3))
    net(images, training=True)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    clone = keras.models.clone_model(net)
    clone.set_weights(net.get_weights())
    for copy in (loaded, clone):
        assert copy.name == net.name
        assert float(sum(copy.losses)) == float(sum(net.losses)) > 0
        for key, value in net(images).items():
            np.testing.assert_array_equal(copy(images)[key], value)


def test_weights_alone_load_into_another_build(tmp_path):
    net = build("resnet8:4", **TINY, seed=0)
    net.save_weights(tmp_path / "net.weights.h5")
    other = build("resnet8:4", **TINY, seed=1)
    other.load_weights(tmp_path / "net.weights.h5")
    assert not any(weights_differ(net, other))


@pytest.fixture
def mixed_float16():
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    yield
    keras.mixed_precision.set_dtype_policy(before)


@pytest.mark.parametrize("name", SMALL_NETS)
def test_outputs_are_float32_under_mixed_precision(name, mixed_float16):
    net = build(name, **TINY, dropout=0.5)
    assert net.get_layer("features").input.dtype == "float16"
    outputs = net(random_images((16, 16, 3)), training=True)
    assert {key: value.dtype for key, value in outputs.items()} == {
        "logits": tf.float32,
        "features": tf.float32,
    }


def test_xla_compiles_a_gradient_that_equals_the_eager_one():
    net = build("resnet8:4", **TINY, seed=0)
    images = random_images((16, 16, 3))

    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(net(images)["logits"] ** 2)
        return tape.gradient(loss, net.trainable_variables)

    compiled = tf.function(gradients, jit_compile=True)(images)
    eager = gradients(images)
    net.set_weights(weights_one_rounding_away(net))
    arrays = ([g.numpy() for g in kind] for kind in (compiled, eager, gradients(images)))
    assert_equal_but_for_rounding(*arrays)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (2, 1, 1, 3), (1, 1, 1, 3)], ids=str)
def test_fused_batch_norm_is_keras(shape):
    maps = tf.constant(np.random.default_rng(0).normal(2, 3, shape).astype("float32"))
    ends = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        norm = kind(momentum=0.9, epsilon=1e-5, beta_initializer="ones")
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = tf.reduce_sum(norm(maps, training=True) ** 3)
        gradients = tape.gradient(loss, [maps, norm.gamma, norm.beta])
        weights = [norm.moving_mean, norm.moving_variance]
        ends.append([loss, *gradients, *weights, norm(maps, training=False)])
    for fused, plain in zip(*ends, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"axis": 1}, (4, 3, 2, 5)),
        ({"center": False, "scale": False}, (4, 3, 2, 5)),
        ({"dtype": "float64"}, (4, 3, 2, 5)),
        ({}, (6, 5)),
    ],
)
def test_what_the_kernel_cannot_do_is_keras(options, shape):
    inputs = np.random.default_rng(0).normal(size=shape)
    ends = [
        kind(**options)(inputs, training=True)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_fused_batch_norm_of_half_precision_keeps_its_averages_in_float32(precision):
    norm = BatchNormalization(momentum=0.5, dtype=precision)
    maps = tf.constant([[[[1.0]], [[3.0]]], [[[5.0]], [[7.0]]]])
    normalised = norm(maps, training=True)
    assert normalised.dtype == norm.compute_dtype and norm.moving_mean.dtype == "float32"
    np.testing.assert_allclose(norm.moving_mean, [2.0])  # of 0 and 4
    np.testing.assert_allclose(norm.moving_variance, [3.0], rtol=1e-5)  # of 1 and 5
    assert norm(maps, training=False).dtype == norm.compute_dtype


def test_a_frozen_batch_norm_uses_its_averages():
    norm = BatchNormalization()
    norm.trainable = False
    maps = tf.fill((2, 2, 2, 1), 3.0)
    np.testing.assert_allclose(norm(maps, training=True), 3.0, rtol=1e-3)
    np.testing.assert_array_equal(norm.moving_mean, [0.0])


def test_averages_of_statistics_follow_the_training_steps_only():
    norm = BatchNormalization(momentum=0.5, ema=0.75)
    ones = tf.ones((1, 1, 1, 2))  # mean 1, variance 0
    norm(ones, training=True)  # mean 0, then 1/2; variance 1, then 1/2
    with keras.StatelessScope():
        norm(ones, training=True)
    norm(ones, training=False)
    norm(ones, training=True)  # mean 3/4; variance 1/4
    np.testing.assert_allclose(norm.moving_mean, [0.75, 0.75])
    np.testing.assert_allclose(norm.moving_variance, [0.25, 0.25])
    norm.use_averages()
    mean = 0.75 * (0.25 * 0.5) + 0.25 * 0.75
    variance = 0.75 * (0.75 * 1 + 0.25 * 0.5) + 0.25 * 0.25
    np.testing.assert_allclose(norm.moving_mean, [mean, mean])
    np.testing.assert_allclose(norm.moving_variance, [variance, variance])


def test_without_averages_the_statistics_stay():
    norm = BatchNormalization(momentum=0.5)
    norm(tf.ones((1, 1, 1, 2)), training=True)
    norm.use_averages()
    assert len(norm.weights) == 4 and norm.moving_mean.numpy().tolist() == [0.5, 0.5]


def test_batch_norms_numbers_are_the_networks_own_unless_given():
    def numbers(name, **options):
        found = batch_norms(build(name, **TINY, **options))
        return {(norm.momentum, norm.epsilon, norm.ema) for norm in found}

    assert numbers("resnet8:4") == {(0.9, 1e-5, 0.0)}
    assert numbers("mobilenet_short:0.25") == {(0.9, 1e-3, 0.0)}
    given = {"batch_norm_momentum": 0.9997, "batch_norm_epsilon": 0.01, "batch_norm_ema": 0.99}
    assert numbers("resnet8:4", **given) == {(0.9997, 0.01, 0.99)}


@pytest.mark.parametrize("decayed", [True, False])
def test_depthwise_kernels_may_have_no_weight_decay(decayed):
    net = build("mobilenet_short:0.25", **TINY, weight_decay=0.02, decay_depthwise=decayed)
    squares = {True: 0.0, False: 0.0}
    for layer in net.layers:
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        if is_depthwise or isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            squares[is_depthwise] += float(tf.reduce_sum(layer.kernel**2))
    assert min(squares.values()) > 0
    expected = 0.01 * (squares[False] + decayed * squares[True])
    assert float(sum(net.losses)) == pytest.approx(expected, rel=1e-5)
