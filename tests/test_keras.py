"""What Keras's users do with a cohort: each row of docs/keras.md, and what is refused."""

import re
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dml_tf
from dml_tf import Cohort, home
from dml_tf.method import batch, losses
from dml_tf.method.metrics import guess_modes
from dml_tf.networks.layers import Layers

CLASSES, SHAPE, IMAGES = 3, (4, 4, 3), 12
LABELS = np.arange(IMAGES) % CLASSES
PIXELS = np.random.default_rng(0).normal(size=(IMAGES, *SHAPE)).astype("float32")
QUIET = {"verbose": 0, "shuffle": False, "batch_size": 4}


def network(name, *, classes=CLASSES, shape=SHAPE, activation=None, last=()):
    layers = [keras.layers.Flatten(), keras.layers.Dense(classes, activation), *last]
    return keras.Sequential([keras.Input(shape), *layers], name=name)


def pair(**options):
    keras.utils.set_random_seed(1)
    cohort = Cohort([network("a"), network("b")], **options)
    cohort.compile("sgd", run_eagerly=True)
    return cohort


def weights_of(cohort):
    return np.concatenate([w.numpy().ravel() for net in cohort.networks for w in net.weights])


def trained(x=PIXELS, y=LABELS, options=(), **fit):
    """Weights and losses of a pair after one epoch in eager mode."""
    cohort = pair(**dict(options))
    history = cohort.fit(x, y, **{**(QUIET if y is not None else {"verbose": 0}), **fit}).history
    return weights_of(cohort), history["loss"][0]


def assert_same(one, other):
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# Outputs


def body(name):
    inputs = keras.Input(SHAPE)
    return inputs, keras.layers.Dense(CLASSES, name=name)(keras.layers.Flatten()(inputs))


def softmax_in_the_dense_layer():
    return network("peer", activation="softmax")


def softmax_as_a_layer():
    return network("peer", last=[keras.layers.Softmax()])


def softmax_as_an_activation_layer():
    return network("peer", last=[keras.layers.Activation("softmax")])


def softmax_in_a_dict():
    inputs, logits = body("own")
    return keras.Model(inputs, {"logits": keras.layers.Softmax()(logits)}, name="peer")


def softmax_in_a_model_inside():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, network("inner", activation="softmax")(inputs), name="peer")


@pytest.mark.parametrize(
    "make",
    [
        softmax_in_the_dense_layer, softmax_as_a_layer, softmax_as_an_activation_layer,
        softmax_in_a_dict, softmax_in_a_model_inside,
    ],
)  # fmt: skip
def test_a_last_softmax_is_taken_off_and_predictions_stay(make):
    given = make()
    before = given(PIXELS)
    before = before["logits"] if isinstance(before, dict) else before
    with pytest.warns(UserWarning, match="Peer 'peer' ends in softmax"):
        cohort = Cohort([given])
    np.testing.assert_allclose(cohort(PIXELS)["peer"], before, rtol=1e-5, atol=1e-6)
    logits = cohort.peers[0].outputs(PIXELS, training=False)["logits"]
    assert np.abs(np.sum(logits, axis=1) - 1).max() > 1e-3


class OwnCall(keras.Model):
    """A network whose graph Keras does not know."""

    def __init__(self, make):
        super().__init__(name="own")
        self.dense, self._make = keras.layers.Dense(CLASSES), make

    def call(self, inputs):
        return self._make(self.dense(keras.ops.reshape(inputs, (-1, 48))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda z: tf.nn.softmax(z), "Peer 'own' ends in softmax"),
        (lambda z: [z, z], "Peer 'own' returns a list of 2 outputs"),
        (lambda z: {"scores": z}, "a dict with 'scores', without 'logits'"),
        (lambda z: z[:, :1], "Peer 'own' has a single output"),
        (lambda z: z[:, :, None], r"Peer 'own' returns an output of shape \(.*, 3, 1\)"),
    ],
)
def test_a_network_of_ones_own_without_logits_is_refused_at_the_first_batch(make, message):
    cohort = Cohort([OwnCall(make)])
    cohort.compile("sgd")
    with pytest.raises(ValueError, match=message):
        cohort.fit(PIXELS, LABELS, **QUIET)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network("peer", classes=1), "Peer 'peer' has a single output"),
        (lambda: network("peer", classes=1, activation="sigmoid"), "has a single output"),
        (lambda: network("peer", activation="sigmoid"), "Peer 'peer' ends in sigmoid"),
        (lambda: network("peer", classes=4), "'first' has 3, 'peer' has 4"),
        (lambda: network("peer", shape=(5, 5, 3)), r"takes \(4, 4, 3\) where 'peer' takes"),
        (lambda: keras.Model(*(lambda i, z: (i, [z, z]))(*body("x")), name="peer"), "a list of 2"),
        (lambda: keras.Model(*(lambda i, z: (i, {"z": z}))(*body("x")), name="peer"), "'logits'"),
    ],
)  # fmt: skip
def test_networks_that_give_no_logits_or_do_not_fit_are_refused_when_the_cohort_is_made(
    make, message
):
    with pytest.raises(ValueError, match=message):
        Cohort([network("first"), make()])


def test_a_list_of_networks_is_asked_for():
    for given in ((network("a"), network("b")), (network("a"),)):
        names = ", ".join(net.name for net in given)
        with pytest.raises(TypeError, match=re.escape(f"write Cohort([{names}])")):
            Cohort(*given)
    with pytest.raises(TypeError, match="networks.0. is of type str"):
        Cohort(["resnet8"])


def test_a_name_that_cannot_name_metrics_is_refused():
    with pytest.raises(ValueError, match="The name 'my net' cannot name metrics"):
        Cohort([network("a")], names=["my net"])


def test_another_backend_is_named_as_the_cause(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="backend 'jax'.*KERAS_BACKEND=tensorflow"):
        Cohort([network("a")])


def test_peers_with_equal_weights_are_warned_of_by_fit():
    nets = [network("a"), network("b")]
    nets[1].set_weights(nets[0].get_weights())
    cohort = Cohort(nets, update="simultaneous")
    cohort.compile("sgd", run_eagerly=True)
    with pytest.warns(UserWarning, match="Peers 'a' and 'b' have equal weights"):
        cohort.fit(PIXELS, LABELS, **QUIET)
    np.testing.assert_array_equal(*(net.get_weights()[0] for net in nets))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair().fit(PIXELS, LABELS, **QUIET)


# Labels


@pytest.mark.parametrize("wrong", [CLASSES, -2, 255])
def test_labels_that_are_no_classes_are_refused(wrong):
    labels = np.where(np.arange(IMAGES) == 9, wrong, LABELS)
    with pytest.raises(ValueError, match="The networks have 3 classes, and a batch has labels"):
        pair().fit(PIXELS, labels, **QUIET)
    with pytest.raises(ValueError, match=f"labels from .*{wrong}"):
        pair().evaluate(PIXELS, labels, verbose=0)


@pytest.mark.parametrize("rows", [np.ones((IMAGES, CLASSES)), np.eye(4)[LABELS]])
def test_soft_labels_that_are_no_distributions_over_the_classes_are_refused(rows):
    with pytest.raises(ValueError, match="add up to 1|do not fit networks with 3 classes"):
        pair().fit(PIXELS, rows, **QUIET)


def test_a_compiled_step_refuses_labels_too_and_xla_gives_a_loss_that_is_no_number():
    for jit_compile in (False, True):
        cohort = pair(mimicry="none")
        cohort.compile("sgd", jit_compile=jit_compile)
        wrong = np.full(IMAGES, CLASSES)
        if jit_compile:
            stop = keras.callbacks.TerminateOnNaN()
            logs = cohort.fit(PIXELS, wrong, epochs=2, callbacks=[stop], **QUIET).history
            assert len(logs["loss"]) == 1 and np.isnan(logs["loss"][0])
        else:
            with pytest.raises(ValueError, match="labels from 3 to 3"):
                cohort.fit(PIXELS, wrong, **QUIET)


def test_one_hot_labels_train_as_class_indices():
    assert_same(trained(), trained(y=np.eye(CLASSES, dtype="float32")[LABELS]))


def test_label_columns_train_as_class_indices():
    assert_same(trained(), trained(y=LABELS[:, None]))


def test_soft_labels_are_the_target_of_the_cross_entropy():
    log_q = np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]).astype("float32")
    rows = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], "float32")
    by_hand = [-0.5 * np.log(0.5) - 0.5 * np.log(0.3), -np.log(0.8), 0.0]
    found = losses.cross_entropy(tf.constant(log_q), tf.constant(rows))
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    mean = losses.supervised_loss(tf.constant(log_q), tf.constant(rows))
    assert float(mean) == pytest.approx(sum(by_hand) / 2)


def test_a_row_of_zeros_is_an_image_without_a_label():
    labels = np.where(np.arange(IMAGES) % 4 == 0, -1, LABELS)
    rows = np.vstack([np.eye(CLASSES), np.zeros(CLASSES)])[labels].astype("float32")
    assert_same(trained(y=labels), trained(y=rows))


# Weights of images


def test_a_sample_weight_is_a_factor_of_all_terms_of_its_image():
    weights = np.linspace(0, 2, IMAGES).astype("float32")
    cohort = pair(mimicry="kl", label_smoothing=0.1)
    log_p = [np.log(cohort.predict(PIXELS, verbose=0)[name]) for name in "ab"]
    target = 0.9 * np.eye(CLASSES)[LABELS] + 0.1 / CLASSES
    logs = {}
    cohort.evaluate(PIXELS, LABELS, sample_weight=weights, verbose=0, batch_size=IMAGES)
    logs = {metric.name: float(metric.result()) for metric in cohort.metrics}
    cross_entropy = -(target * log_p[0]).sum(axis=1)
    divergence = (np.exp(log_p[1]) * (log_p[1] - log_p[0])).sum(axis=1)
    assert logs["a_supervised_loss"] == pytest.approx(np.mean(weights * cross_entropy), rel=1e-4)
    assert logs["a_mimicry_loss"] == pytest.approx(np.mean(weights * divergence), rel=1e-4)


def test_equal_sample_weights_change_nothing_and_class_weights_are_sample_weights():
    assert_same(trained(), trained(sample_weight=np.ones(IMAGES)))
    by_class = {0: 0.5, 1: 1.0, 2: 3.0}
    by_image = np.array([by_class[label] for label in LABELS])
    weighted = trained(class_weight=by_class)
    assert_same(weighted, trained(sample_weight=by_image))
    assert np.abs(weighted[0] - trained()[0]).max() > 1e-3


# Sources of batches


class InBatches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return PIXELS[4 * i : 4 * i + 4], LABELS[4 * i : 4 * i + 4]


def test_tf_data_pydatasets_and_generators_train_as_numpy_arrays():
    arrays = trained()
    made = tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).batch(4)
    assert_same(arrays, trained(made, None))
    assert_same(arrays, trained(InBatches(), None, shuffle=False))
    assert_same(arrays, trained(iter(InBatches()[i] for i in range(3)), None, steps_per_epoch=3))


@pytest.mark.parametrize("label_mode", ["int", "categorical"])
def test_image_dataset_from_directory_trains(tmp_path, label_mode):
    for name in ("cat", "cow", "dog"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full(SHAPE, 80 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    pictures = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=SHAPE[:2], batch_size=4, label_mode=label_mode, verbose=False
    )
    _, loss = trained(pictures, None)
    assert np.isfinite(loss)


# compile


def test_optimizer_is_a_name_for_optimizers_and_each_peer_gets_a_copy():
    cohort = pair()
    cohort.compile(optimizer=keras.optimizers.SGD(0.25))
    first, second = cohort.optimizers
    assert first is not second and float(second.learning_rate) == 0.25
    cohort.optimizer.learning_rate = 0.5
    assert [float(o.learning_rate) for o in (first, second, cohort.optimizer)] == [0.5] * 3
    assert int(cohort.optimizer.iterations) == 0


def test_a_loss_is_refused_because_a_cohort_has_its_own():
    with pytest.raises(ValueError, match="its own loss"):
        pair().compile("sgd", loss="sparse_categorical_crossentropy")


def own_metric(labels, posterior):
    return tf.reduce_max(posterior, axis=-1)


def test_metrics_are_made_for_each_peer_and_the_ensemble():
    cohort = pair()
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    cohort.compile("sgd", metrics=["accuracy", top, own_metric], run_eagerly=True)
    logs = cohort.evaluate(PIXELS, LABELS, verbose=0, return_dict=True)
    posteriors = cohort.predict(PIXELS, verbose=0)
    for name, posterior in posteriors.items():
        best = np.argsort(posterior)[:, -2:]
        assert logs[f"{name}_top2"] == pytest.approx(np.mean(np.any(best == LABELS[:, None], 1)))
        assert logs[f"{name}_own_metric"] == pytest.approx(np.mean(posterior.max(axis=1)), rel=1e-5)
    assert len(cohort.evaluate(PIXELS, LABELS, verbose=0)) == len(cohort.metrics_names)


def test_auc_takes_one_hot_labels_and_weighted_metrics_count_weights():
    cohort, rows = pair(), np.eye(CLASSES, dtype="float32")[LABELS]
    weighted = keras.metrics.CategoricalAccuracy(name="heavy")
    cohort.compile(
        "sgd", metrics=[keras.metrics.AUC(name="auc")], weighted_metrics=[weighted],
        run_eagerly=True,
    )  # fmt: skip
    right = cohort.predict(PIXELS, verbose=0)["a"].argmax(axis=1) == LABELS
    given = {"sample_weight": np.where(right, 3.0, 1.0), "return_dict": True, "verbose": 0}
    logs = cohort.evaluate(PIXELS, rows, **given)
    auc = keras.metrics.AUC()
    auc.update_state(rows, cohort.predict(PIXELS, verbose=0)["a"])
    assert logs["a_auc"] == pytest.approx(float(auc.result()))
    assert logs["a_heavy"] == pytest.approx(3 * right.sum() / (3 * right.sum() + (~right).sum()))


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(ValueError, match="There is a metric 'a_accuracy' already"):
        pair().compile("sgd", metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")])


def test_loss_is_the_mean_over_students_of_what_they_report():
    cohort = pair(mimicry_weight=0.5)
    logs = cohort.evaluate(PIXELS, LABELS, verbose=0, return_dict=True)
    each = [logs[f"{p}_supervised_loss"] + 0.5 * logs[f"{p}_mimicry_loss"] for p in "ab"]
    assert logs["loss"] == pytest.approx(np.mean(each))


# Callbacks: one fit with all of them


@pytest.fixture(scope="module")
def fit_with_callbacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    cohort = pair()
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    cohort.compile(optimizer=optimizer, metrics=[top])
    c = keras.callbacks
    stop = c.EarlyStopping(patience=1, min_delta=100, start_from_epoch=1)  # never good enough
    callbacks = [
        c.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True),
        c.ModelCheckpoint(str(folder / "top.keras"), "val_ensemble_top2", save_best_only=True),
        c.ReduceLROnPlateau(patience=1, min_delta=100, factor=0.5),
        c.LearningRateScheduler(lambda epoch, rate: 0.2 if epoch == 0 else rate),
        c.SwapEMAWeights(),
        c.BackupAndRestore(str(folder / "backup"), delete_checkpoint=False),
        c.CSVLogger(str(folder / "log.csv")),
        c.TerminateOnNaN(),
        c.TensorBoard(str(folder / "board"), write_graph=False),
        stop,
    ]
    history = cohort.fit(
        PIXELS, LABELS, validation_data=(PIXELS, LABELS), epochs=9, callbacks=callbacks, **QUIET
    ).history
    return cohort, history, folder, stop


def test_early_stopping_and_plateaus_watch_val_loss_by_default(fit_with_callbacks):
    cohort, history, _, stop = fit_with_callbacks
    assert stop.stopped_epoch == len(history["val_loss"]) - 1 == 2
    assert [float(o.learning_rate) for o in cohort.optimizers] == pytest.approx([0.05, 0.05])


def test_a_schedule_sets_the_rate_of_every_peer(fit_with_callbacks):
    rates = [v for k, v in fit_with_callbacks[1].items() if k.startswith("learning_rate")]
    assert rates and all(rate[0] == pytest.approx(0.2) for rate in rates)


def test_csv_logger_writes_a_column_for_each_metric(fit_with_callbacks):
    _, history, folder, _ = fit_with_callbacks
    columns = (folder / "log.csv").read_text().splitlines()[0].split(",")
    assert {"epoch", "loss", "val_loss", "a_top2", "val_ensemble_top2"} <= set(columns)


def test_averaged_weights_are_swapped_in_for_each_peer(fit_with_callbacks):
    """After the last epoch the weights are those of validation: the averages."""
    cohort, history, _, _ = fit_with_callbacks
    after = cohort.evaluate(PIXELS, LABELS, verbose=0, return_dict=True)
    assert after["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-5)


def test_the_best_cohort_is_saved_and_loads_with_optimizers_and_metrics(fit_with_callbacks):
    cohort, history, folder, _ = fit_with_callbacks
    assert (folder / "top.keras").exists() and (folder / "backup").exists()
    loaded = keras.saving.load_model(folder / "best.keras")
    logs = loaded.evaluate(PIXELS, LABELS, verbose=0, return_dict=True)
    assert set(logs) == {name for name in history if not name.startswith(("val_", "learning"))}
    assert int(loaded.optimizers[1].iterations) % 3 == 0 < int(loaded.optimizers[1].iterations)


def test_modes_are_guessed_for_accuracies_losses_and_metrics_that_know_theirs():
    watched = {"val_a_accuracy": "max", "val_b_mimicry_loss": "min", "b_auc": "max", "x": "auto"}
    callbacks = [keras.callbacks.EarlyStopping(name) for name in watched]
    guess_modes(callbacks, [keras.metrics.AUC(name="b_auc")])
    assert [callback.mode for callback in callbacks] == list(watched.values())


def test_backup_and_restore_resumes_weights_and_optimizers(tmp_path):
    class Cut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole, cut, again = pair(), pair(), pair()
    whole.fit(PIXELS, LABELS, epochs=2, **QUIET)
    with pytest.raises(KeyboardInterrupt):
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "b"))
        cut.fit(PIXELS, LABELS, epochs=2, callbacks=[backup, Cut()], **QUIET)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "b"))
    again.fit(PIXELS, LABELS, epochs=2, callbacks=[backup], **QUIET)
    np.testing.assert_array_equal(weights_of(whole), weights_of(again))
    assert int(again.optimizer.iterations) == 6


# Mimicry by a Keras loss


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (keras.losses.KLDivergence(), lambda p, q: (p * np.log(p / q)).sum(1)),
        (keras.losses.CategoricalCrossentropy(), lambda p, q: -(p * np.log(q)).sum(1)),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            lambda p, q: -(p * np.log(q)).sum(1),
        ),
        (keras.losses.MeanSquaredError(), lambda p, q: ((p - q) ** 2).mean(1)),
    ],
)  # fmt: skip
def test_a_keras_loss_compares_the_posteriors_of_peer_and_student(loss, formula):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cohort = pair(mimicry=loss)
    clips = "KLDivergence" in type(loss).__name__ or loss.get_config().get("from_logits") is False
    assert any("clips probabilities at 1e-7" in str(w.message) for w in caught) == clips
    posteriors = cohort.predict(PIXELS, verbose=0)
    cohort.evaluate(PIXELS, LABELS, verbose=0)
    logs = {metric.name: float(metric.result()) for metric in cohort.metrics}
    by_hand = formula(posteriors["b"], posteriors["a"]).mean()
    assert logs["a_mimicry_loss"] == pytest.approx(by_hand, rel=1e-3)


def test_a_loss_of_class_indices_is_refused_as_mimicry():
    with pytest.raises(ValueError, match="takes class indices"):
        pair(mimicry=keras.losses.SparseCategoricalCrossentropy())


# Files


def test_legacy_files_are_refused_with_the_reason(tmp_path):
    for name in ("cohort.h5", "cohort.hdf5"):
        with pytest.raises(ValueError, match="legacy HDF5 format.*save to a .keras file"):
            pair().save(tmp_path / name)


def test_weights_alone_are_saved_and_loaded(tmp_path):
    cohort, other = pair(), Cohort([network("a"), network("b")])
    cohort.save_weights(tmp_path / "cohort.weights.h5")
    other.load_weights(tmp_path / "cohort.weights.h5")
    np.testing.assert_array_equal(weights_of(cohort), weights_of(other))


def test_an_exported_cohort_gives_the_posteriors_of_predict(tmp_path):
    cohort = pair()
    cohort.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    found = served.serve(PIXELS)
    for name, posterior in cohort.predict(PIXELS, verbose=0).items():
        np.testing.assert_allclose(found[name], posterior, rtol=1e-5)


def test_a_cohort_loads_after_import_dml_tf_alone_and_a_member_without_it(tmp_path):
    inputs, layers = keras.Input(SHAPE), Layers(seed=0)
    maps = layers.norm(layers.conv(inputs, 2, 3))
    net = keras.Model(inputs, layers.classify(maps, CLASSES), name="own")
    cohort = Cohort([net])
    cohort.compile("sgd")
    cohort.save(tmp_path / "cohort.keras")
    net.save(tmp_path / "member.keras")
    np.savez(tmp_path / "seen.npz", pixels=PIXELS, logits=net(PIXELS)["logits"])
    code = f"""if True:
        import sys
        sys.path.append({str(home.HOME)!r})
        import dml_tf
        assert "keras" not in sys.modules
        import keras
        import numpy as np
        seen = np.load("seen.npz")
        cohort = keras.saving.load_model("cohort.keras")
        assert isinstance(cohort, dml_tf.Cohort)
        keras.saving.get_custom_objects().clear()  # as without dml_tf
        member = keras.saving.load_model("member.keras")
        assert not any("dml_tf" in type(layer).__module__ for layer in member.layers)
        plain = keras.layers.BatchNormalization
        assert any(type(layer) is plain for layer in member.layers)
        assert all(type(layer) is not plain for layer in cohort.networks[0].layers)
        for net in (member, cohort.networks[0]):
            np.testing.assert_allclose(net(seen["pixels"])["logits"], seen["logits"], rtol=1e-4)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


# Networks of others


def test_pretrained_backbones_of_keras_applications_are_peers():
    def with_head(name):
        backbone = keras.applications.MobileNet(
            (32, 32, 3), alpha=0.25, include_top=False, weights=None, pooling="avg"
        )
        images = keras.Input((32, 32, 3))
        features = backbone(images)
        logits = keras.layers.Dense(CLASSES)(features)
        return keras.Model(images, {"logits": logits, "features": features}, name=name)

    nets = [with_head("a"), with_head("b")]
    cohort = Cohort(nets, feature_weight=0.1)
    assert cohort(np.zeros((1, 32, 32, 3), "float32"))["ensemble"].shape == (1, CLASSES)


def test_a_whole_network_of_keras_applications_loses_its_softmax():
    given = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=CLASSES)
    with pytest.warns(UserWarning, match="ends in softmax"):
        cohort = Cohort([given])
    logits = cohort.networks[0](np.zeros((1, 32, 32, 3), "float32"))
    assert cohort(np.zeros((1, 32, 32, 3), "float32"))["ensemble"].shape == (1, CLASSES)
    assert float(tf.reduce_sum(logits)) != pytest.approx(1)


def test_kerashubs_backbones_and_classifiers_are_peers(tmp_path):
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")

    def backbone():
        return hub.models.ResNetBackbone(
            image_shape=(32, 32, 3), input_conv_filters=[64], input_conv_kernel_sizes=[3],
            stackwise_num_filters=[64], stackwise_num_blocks=[1], stackwise_num_strides=[1],
            block_type="basic_block",
        )  # fmt: skip

    def with_head(name):
        maps = backbone()
        pooled = keras.layers.GlobalAveragePooling2D()(maps.output)
        return keras.Model(maps.input, keras.layers.Dense(CLASSES)(pooled), name=name)

    classifier = hub.models.ResNetImageClassifier(backbone(), num_classes=CLASSES, name="b")
    cohort = Cohort([with_head("a"), classifier])
    cohort.compile("sgd")
    images, labels = np.random.default_rng(0).random((16, 32, 32, 3), "float32"), np.arange(16) % 3
    history = cohort.fit(images, labels, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    cohort.save(tmp_path / "hub.keras")
    loaded = keras.saving.load_model(tmp_path / "hub.keras")
    expected, found = (c.predict(images, verbose=0)["ensemble"] for c in (cohort, loaded))
    np.testing.assert_array_equal(found, expected)


# The table


def test_each_row_of_the_table_names_a_test_of_this_file():
    page = (home.HOME / "docs" / "keras.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    tests = [re.search(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) > 20 and all(tests)
    assert {found[1] for found in tests} <= globals().keys()


def test_a_step_without_weights_soft_labels_or_metrics_has_no_extra_work():
    """`batch.read` gives the labels as they are, and no weights."""
    read = batch.read((tf.constant(PIXELS), tf.constant(LABELS)))
    assert read.weights is None and read.labels.shape == (IMAGES,)
    assert dml_tf.losses.weighted(read.labels, None) is read.labels


def test_a_loaded_cohort_chooses_xla_by_the_machine_that_loads_it(tmp_path):
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    for asked in (None, True):
        cohort = Cohort([network("a"), network("b")])
        cohort.compile("sgd", jit_compile=asked)
        cohort.save(tmp_path / "cohort.keras")
        assert cohort.get_compile_config()["jit_compile"] is asked
        assert keras.saving.load_model(tmp_path / "cohort.keras").jit_compile is (asked or has_gpu)


def test_one_callback_is_as_good_as_a_list_of_one():
    stop = keras.callbacks.EarlyStopping("a_accuracy", patience=9)
    pair().fit(PIXELS, LABELS, callbacks=stop, **QUIET)
    assert stop.mode == "max"


def test_a_subclassed_network_is_not_exported(tmp_path):
    @keras.saving.register_keras_serializable()
    class Own(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(CLASSES)

        def call(self, inputs, training=False):
            return self.dense(self.flatten(inputs))

    cohort = Cohort([network("a"), Own(name="own")])
    cohort.compile("sgd")
    cohort.fit(PIXELS, LABELS, **QUIET)
    with pytest.raises(ValueError, match="functional or sequential networks that are built"):
        cohort.export(tmp_path / "served", verbose=False)


def test_labels_whose_rank_is_not_known_are_refused_in_words():
    def unknown(pixels, labels):
        return pixels, tf.numpy_function(lambda x: x, [labels], tf.int64)

    batches = tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).batch(4).map(unknown)
    with pytest.raises(ValueError, match="A shape that is not known"):
        cohort = pair()
        cohort.compile("sgd")
        cohort.fit(batches, verbose=0)
