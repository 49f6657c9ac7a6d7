"""Algorithm 1 against independent NumPy and literal TensorFlow forms, and its life in Keras."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from dml_tf import Cohort
from dml_tf.method import losses

CLASSES, DIM, BATCH = 4, 6, 8
RATE = 0.5


def linear_peers(peers):
    nets = []
    for k in range(peers):
        inputs = keras.Input((DIM,))
        outputs = keras.layers.Dense(CLASSES, kernel_initializer="glorot_normal")(inputs)
        nets.append(keras.Model(inputs, outputs, name=f"linear{k}"))
    return nets


def conv_peer(name="conv", size=8, dropout=0.0):
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", kernel_regularizer=keras.regularizers.L2(1e-3))(
        inputs
    )
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    features = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(CLASSES)(features)
    return keras.Model(inputs, {"logits": logits, "features": features}, name=name)


def batches(count, shape=(DIM,), unlabelled=0, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        labels = rng.integers(0, CLASSES, BATCH)
        labels[:unlabelled] = -1
        yield rng.normal(size=(BATCH, *shape)).astype("float32"), labels


def train(cohort, data):
    step = tf.function(cohort.train_step)
    for images, labels in data:
        logs = step((tf.constant(images), tf.constant(labels)))
    return {name: float(value) for name, value in logs.items()}


def weights_of(cohort):
    return [w.numpy() for net in cohort.networks for w in net.weights]


# Algorithm 1 in NumPy, for linear-softmax peers


def numpy_algorithm_1(weights, data, *, update, loss="kl", frozen=(), precision="float64"):
    """Weights [(kernel, bias), ...] after one pass over `data`, by Algorithm 1 and Eq. (10)."""
    peers = [[kernel.astype(precision), bias.astype(precision)] for kernel, bias in weights]
    for images, labels in data:
        images = images.astype(precision)
        predictions = [softmax(images @ w + b, axis=1) for w, b in peers]
        snapshot = list(predictions)
        for k in range(len(peers)):
            if k in frozen:
                continue
            current = predictions if update == "sequential" else snapshot
            others = [p for peer, p in enumerate(current) if peer != k]
            dz = numpy_logit_gradient(predictions[k], others, labels, loss)
            peers[k][0] = peers[k][0] - RATE * images.T @ dz
            peers[k][1] = peers[k][1] - RATE * dz.sum(axis=0)
            predictions[k] = softmax(images @ peers[k][0] + peers[k][1], axis=1)
    return [array for peer in peers for array in peer]


def numpy_logit_gradient(q, others, labels, loss):
    labelled = labels >= 0
    right = np.eye(CLASSES, dtype=q.dtype)[labels]
    supervised = (q - right) * labelled[:, None] / max(int(labelled.sum()), 1)
    mimicry = np.zeros_like(q)
    for p in others:
        forward, log_ratio = q - p, np.log(q) - np.log(p)  # of D_KL(p || q), by q's logits
        backward = q * (log_ratio - (q * log_ratio).sum(axis=1, keepdims=True))
        divergence = {"kl": forward, "js": (forward + backward) / 2, "none": 0.0}[loss]
        mimicry += divergence / len(others)
    return supervised + mimicry / len(q)


def assert_follows_algorithm_1(cohort_class=Cohort, peers=2, unlabelled=0, **options):
    oracle = {
        "update": options.get("update", "sequential"),
        "loss": options.get("mimicry", "kl"),
        "frozen": options.get("frozen", ()),
    }
    oracle.update(options.pop("oracle", {}))
    cohort = cohort_class(linear_peers(peers), **options)
    cohort.compile(keras.optimizers.SGD(RATE))
    start = [[w.numpy() for w in net.weights] for net in cohort.networks]
    train(cohort, batches(5, unlabelled=unlabelled))
    # The same program in single precision differs from that in double precision by rounding only.
    # TensorFlow rounds at other places: it may differ ten times as much.
    expected, rounded = (
        numpy_algorithm_1(start, batches(5, unlabelled=unlabelled), **oracle, precision=precision)
        for precision in ("float64", "float32")
    )
    tolerance = 10 * max(np.abs(a - b).max() for a, b in zip(expected, rounded, strict=True))
    for actual, wanted in zip(weights_of(cohort), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("update", ["sequential", "simultaneous"])
@pytest.mark.parametrize("peers", [1, 2, 3])
def test_cohort_follows_algorithm_1_in_numpy(peers, update):
    assert_follows_algorithm_1(peers=peers, update=update)


@pytest.mark.parametrize("peers", [2, 3])
def test_cohort_follows_algorithm_1_with_eq_7(peers):
    assert_follows_algorithm_1(peers=peers, mimicry="js")


@pytest.mark.parametrize("peers", [2, 3])
def test_the_ensemble_of_eq_11_trains_as_the_peers_of_eq_10(peers):
    assert_follows_algorithm_1(peers=peers, mimicry="ensemble", oracle={"loss": "kl"})


@pytest.mark.parametrize("unlabelled", [3, BATCH])
def test_unlabelled_images_count_in_the_mimicry_loss_only(unlabelled):
    assert_follows_algorithm_1(peers=2, unlabelled=unlabelled)


@pytest.mark.parametrize("frozen", [(0,), (1,)])
def test_a_frozen_peer_teaches_and_does_not_learn(frozen):
    assert_follows_algorithm_1(peers=3, frozen=frozen)


def test_a_frozen_peer_is_in_inference_mode_even_when_the_cohort_trains():
    frozen, student = conv_peer("frozen"), conv_peer("student")
    cohort = Cohort([frozen, student], frozen=(0,))
    images, _ = dataset(10)
    training, inference = (cohort(images, training=mode) for mode in (True, False))
    np.testing.assert_array_equal(training["frozen"], inference["frozen"])
    assert np.abs(training["student"] - inference["student"]).max() > 1e-3


# Mutants: each must break the comparison above


def test_a_reversed_divergence_is_noticed(monkeypatch):
    forward = losses.kl_divergence
    monkeypatch.setattr(losses, "kl_divergence", lambda p, q: forward(q, p))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_follows_algorithm_1()


def test_peers_that_are_no_constants_are_noticed():
    class OneTape(Cohort):
        def train_step(self, data):
            images, labels = data
            with tf.GradientTape() as tape:
                outputs = [self.peers[k].outputs(images, True) for k in range(2)]
                total = tf.add_n(
                    self._student_loss(k, outputs[k], [outputs[1 - k]], labels, None)
                    for k in range(2)
                )
            grads = tape.gradient(total, [net.trainable_variables for net in self.networks])
            for k, optimizer in enumerate(self.optimizers):
                optimizer.apply(grads[k], self.networks[k].trainable_variables)
            return self.get_metrics_result()

    assert_follows_algorithm_1(OneTape, mimicry="none")  # in all else it is right
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_follows_algorithm_1(OneTape, update="simultaneous")


def test_a_missing_mean_over_peers_is_noticed():
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_follows_algorithm_1(peers=3, peer_reduction="sum")


def test_a_missing_refresh_is_noticed(monkeypatch):
    monkeypatch.setattr(Cohort, "_must_refresh", lambda self, k: False)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_follows_algorithm_1()


# The literal algorithm: a new forward pass for each prediction and each gradient


class Literal(Cohort):
    """Algorithm 1 as printed, without shared passes."""

    def train_step(self, data):
        images, labels = data
        peers = range(len(self.networks))
        predictions = [self._predict(k, images) for k in peers]
        for k, optimizer in enumerate(self.optimizers):
            others = [p for peer, p in enumerate(predictions) if peer != k]
            variables = self.networks[k].trainable_variables
            with tf.GradientTape() as tape:
                own = self.peers[k].outputs(images, training=True)
                loss = self._student_loss(k, own, others, labels, optimizer.iterations)
            optimizer.apply(tape.gradient(loss, variables), variables)
            if self.update == "sequential":
                predictions[k] = self._predict(k, images)
        return self.get_metrics_result()

    def _predict(self, k, images):
        with keras.StatelessScope():
            return self.peers[k].outputs(images, training=True)


def same_start(cohort_class, peers, **options):
    keras.utils.set_random_seed(1)
    cohort = cohort_class([conv_peer() for _ in range(peers)], **options)
    cohort.compile(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True))
    return cohort


@pytest.mark.parametrize(
    ("peers", "update"),
    [
        (3, "sequential"),
        (2, "simultaneous"),
        pytest.param(2, "sequential", marks=pytest.mark.slow),
        pytest.param(3, "simultaneous", marks=pytest.mark.slow),
    ],
)
def test_the_step_equals_the_literal_algorithm_bit_for_bit(peers, update):
    cohort, literal = (same_start(c, peers, update=update) for c in (Cohort, Literal))
    for _ in range(2):
        for model in (cohort, literal):
            train(model, batches(1, (8, 8, 3)))
        for ours, theirs in zip(weights_of(cohort), weights_of(literal), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def running_statistics(net):
    return [w.numpy() for w in net.weights if "moving" in w.path]


def assert_statistics_move_once():
    cohort, alone = same_start(Cohort, 3), same_start(Cohort, 3, mimicry="none")
    for model in (cohort, alone):
        train(model, batches(1, (8, 8, 3)))
    for ours, theirs in zip(cohort.networks, alone.networks, strict=True):
        np.testing.assert_array_equal(running_statistics(ours), running_statistics(theirs))


def test_batchnorm_statistics_after_a_step_are_those_of_independent_training():
    assert_statistics_move_once()


def test_statistics_that_move_twice_are_noticed(monkeypatch):
    monkeypatch.setattr(keras, "StatelessScope", contextlib.nullcontext)
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        assert_statistics_move_once()


def test_a_peers_step_holds_nothing_from_anothers_loss():
    """Peer 0's step is the same whether peer 1 learns from it or is a constant."""
    learning, constant = [], []
    for frozen, found in (((), learning), ((1,), constant)):
        keras.utils.set_random_seed(1)
        cohort = Cohort(linear_peers(2), update="simultaneous", frozen=frozen)
        cohort.compile(keras.optimizers.SGD(RATE))
        train(cohort, batches(1))
        found += [w.numpy() for w in cohort.networks[0].weights]
    for ours, theirs in zip(learning, constant, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_tape_watches_its_own_network_only():
    cohort = same_start(Cohort, 2)
    images, labels = (tf.constant(part) for part in next(batches(1, (8, 8, 3))))
    outputs, tapes = [], [tf.GradientTape(persistent=True) for _ in range(2)]
    for k, tape in enumerate(tapes):
        with tape:
            outputs.append(cohort.peers[k].outputs(images, training=True))
    with tapes[0]:
        loss = cohort._student_loss(0, outputs[0], [outputs[1]], labels, tf.constant(0))
    own, others = (net.trainable_variables for net in cohort.networks)
    assert all(g is not None for g in tapes[0].gradient(loss, own))
    assert all(g is None for g in tapes[0].gradient(loss, others))


# Other terms of the loss


def student_loss(**options):
    cohort = Cohort([conv_peer(), conv_peer()], **options)
    rng = np.random.default_rng(0)
    own, peer = (
        {"logits": tf.constant(rng.normal(size=(BATCH, CLASSES)), tf.float32),
         "features": tf.constant(rng.normal(size=(BATCH, 5)), tf.float32)}
        for _ in range(2)
    )  # fmt: skip
    labels = tf.zeros(BATCH, tf.int64)
    return cohort, own, peer, float(cohort._student_loss(0, own, [peer], labels, None))


def test_weights_scale_mimicry_features_and_entropy():
    cohort, own, peer, value = student_loss(
        mimicry_weight=0.5, feature_weight=2.0, entropy_weight=0.1
    )
    log_p, log_q = (losses.log_posterior(o["logits"]) for o in (peer, own))
    expected = (
        -np.mean(log_q[:, 0])
        + 0.5 * np.mean(losses.kl_divergence(log_p, log_q))
        + 2.0 * np.mean((own["features"] - peer["features"]) ** 2)
        - 0.1 * np.mean(losses.entropy(log_q))
        + float(cohort.networks[0].losses[0])
    )
    assert value == pytest.approx(expected, rel=1e-5)


# Life in Keras


def dataset(images=64, shape=(8, 8, 3)):
    rng = np.random.default_rng(3)
    return rng.normal(size=(images, *shape)).astype("float32"), rng.integers(0, CLASSES, images)


def fitted(network, start, make_model):
    """The network's weights after two epochs from `start`, with the same dropout masks."""
    network.set_weights(start)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([7, 0])
    images, labels = dataset()
    model, targets = make_model(network, labels)
    model.fit(images, targets, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return network.get_weights()


def cohort_of_one(network, labels):
    cohort = Cohort([network])
    cohort.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True))
    return cohort, labels


def plain_keras(network, labels):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        loss={"logits": loss, "features": None},
        jit_compile=False,
    )
    return network, {"logits": labels}


def test_a_cohort_of_one_equals_plain_keras_fit():
    network = conv_peer(dropout=0.2)
    start, rng = network.get_weights(), np.random.default_rng(0)
    away = [rng.choice([-np.inf, np.inf], w.shape).astype("float32") for w in start]
    ours = fitted(network, start, cohort_of_one)
    theirs = fitted(network, start, plain_keras)
    # Keras's own run from weights that are one rounding away shows how rounding grows.
    twin = fitted(network, list(map(np.nextafter, start, away)), plain_keras)
    tolerance = 10 * max(np.abs(a - b).max() for a, b in zip(theirs, twin, strict=True))
    for actual, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)
    moved = max(np.abs(a - b).max() for a, b in zip(theirs, start, strict=True))
    assert tolerance < 1e-3 * moved


def test_fit_reports_each_peers_metrics_and_those_of_validation():
    cohort = same_start(Cohort, 2)
    images, labels = dataset()
    history = cohort.fit(images, labels, validation_data=(images, labels), verbose=0).history
    quantities = ("accuracy", "supervised_loss", "mimicry_loss")
    expected = {f"{peer}_{q}" for peer in ("conv_0", "conv_1") for q in quantities}
    expected |= {"ensemble_accuracy", "loss"}
    assert set(history) == expected | {f"val_{name}" for name in expected}


def test_reported_losses_belong_to_the_peer_they_are_named_after():
    cohort = Cohort(linear_peers(2), mimicry="none")
    cohort.networks[1].set_weights([np.zeros((DIM, CLASSES)), np.zeros(CLASSES)])
    cohort.networks[0].set_weights([np.zeros((DIM, CLASSES)), 50.0 * np.eye(CLASSES)[0]])
    cohort.compile("sgd")
    labels = np.zeros(BATCH, int)
    logs = cohort.evaluate(np.zeros((BATCH, DIM)), labels, verbose=0, return_dict=True)
    assert logs["linear0_supervised_loss"] == pytest.approx(0.0, abs=1e-6)
    assert logs["linear1_supervised_loss"] == pytest.approx(np.log(CLASSES))
    assert logs["linear0_accuracy"] == 1.0


def test_metrics_average_over_labelled_images_of_the_whole_epoch():
    cohort = Cohort(linear_peers(1))
    cohort.networks[0].set_weights([np.eye(DIM, CLASSES) * 9, np.zeros(CLASSES)])
    cohort.compile("sgd")
    images = np.eye(CLASSES, DIM)[[0, 1, 2, 3, 0, 1]]
    labels = np.array([0, 1, 2, -1, -1, 0])  # batches of 3: 3 right of 3, then 0 right of 1
    logs = cohort.evaluate(images, labels, batch_size=3, verbose=0, return_dict=True)
    assert logs["linear0_accuracy"] == pytest.approx(0.75)


def test_predict_gives_posteriors_of_each_peer_and_of_the_ensemble():
    cohort = same_start(Cohort, 2)
    images, _ = dataset(10)
    posteriors = cohort.predict(images, verbose=0)
    assert set(posteriors) == {"conv_0", "conv_1", "ensemble"}
    mean = (posteriors["conv_0"] + posteriors["conv_1"]) / 2
    np.testing.assert_allclose(posteriors["ensemble"], mean, rtol=1e-5)
    np.testing.assert_allclose(posteriors["ensemble"].sum(axis=1), 1, rtol=1e-5)


def test_one_file_restores_peers_optimizers_and_dropout(tmp_path):
    images, labels = dataset()
    cohort = Cohort([conv_peer(dropout=0.3), conv_peer(dropout=0.3)], mimicry="js", frozen=(1,))
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5, staircase=True)
    cohort.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True))
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    cohort.fit(images, labels, **fit)
    cohort.save(tmp_path / "cohort.keras")
    loaded = keras.saving.load_model(tmp_path / "cohort.keras")
    assert (loaded.mimicry, loaded.frozen) == ("js", (1,))
    for model in (cohort, loaded):
        model.fit(images, labels, **fit)
    assert int(loaded.optimizers[0].iterations) == 8
    for ours, theirs in zip(weights_of(cohort), weights_of(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_peer_can_be_saved_alone(tmp_path):
    cohort = same_start(Cohort, 2)
    cohort.networks[1].save(tmp_path / "peer.keras")
    alone = keras.saving.load_model(tmp_path / "peer.keras")
    images, _ = dataset(5)
    np.testing.assert_array_equal(alone(images)["logits"], cohort.networks[1](images)["logits"])


def test_networks_that_are_not_built_yet_are_built_by_fit():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__(name="plain")
            self.dense = keras.layers.Dense(CLASSES)

        def call(self, inputs):
            return self.dense(inputs)

    cohort = Cohort([Plain(), Plain()])
    cohort.compile("adam")
    images, labels = dataset(shape=(DIM,))
    before = cohort.evaluate(images, labels, verbose=0, return_dict=True)
    cohort.fit(images, labels, epochs=20, verbose=0)
    after = cohort.evaluate(images, labels, verbose=0, return_dict=True)
    assert after["plain_0_supervised_loss"] < before["plain_0_supervised_loss"]


def test_mixed_precision_scales_each_peers_loss_and_keeps_divergences_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        nets = [conv_peer(), conv_peer()]
    finally:
        keras.config.set_dtype_policy("float32")
    cohort = Cohort(nets)
    cohort.compile(keras.optimizers.SGD(0.05))
    assert all(isinstance(o, keras.optimizers.LossScaleOptimizer) for o in cohort.optimizers)
    images, labels = dataset()
    history = cohort.fit(images, labels, epochs=3, verbose=0).history
    assert np.isfinite(history["conv_1_mimicry_loss"]).all()
    assert history["conv_0_supervised_loss"][-1] < history["conv_0_supervised_loss"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "random"}, "update must be one of sequential, simultaneous"),
        (
            {"mimicry": "l2"},
            "mimicry must be one of kl, js, dkd, dist, ensemble, none, or a callable",
        ),
        ({"peer_reduction": "max"}, "peer_reduction must be one of"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"frozen": (0, 1)}, "leave at least one peer to learn"),
        ({"frozen": (2,)}, "frozen must hold different peer indices from 0 to 1"),
        ({"names": ("a",)}, "names must give each of the 2 peers a different name"),
        ({"names": ("a", "ensemble")}, "'ensemble' names the cohort's mean prediction"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Cohort(linear_peers(2), **options)


def test_an_empty_cohort_is_refused():
    with pytest.raises(ValueError, match="at least one network"):
        Cohort([])


def test_peers_that_share_weights_are_refused():
    inputs = keras.Input((DIM,))
    shared = keras.layers.Dense(CLASSES)
    nets = [keras.Model(inputs, shared(inputs), name=name) for name in "ab"]
    with pytest.raises(ValueError, match="Peers 0 and 1 share the variable"):
        Cohort(nets)


def test_peers_that_share_an_optimizer_are_refused():
    cohort, sgd = Cohort(linear_peers(2)), keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="share an optimizer instance"):
        cohort.compile([sgd, sgd])
    with pytest.raises(ValueError, match="got 1 optimizers for 2 students"):
        cohort.compile([sgd])


def test_a_batch_without_labels_is_refused():
    cohort = Cohort(linear_peers(2))
    cohort.compile("sgd")
    images, _ = dataset(shape=(DIM,))
    with pytest.raises(ValueError, match="needs labels"):
        cohort.fit(images, verbose=0)
