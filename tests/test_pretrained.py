"""Networks that start from trained weights."""

import keras
import numpy as np
import pytest
from rounding import FACTOR, one_rounding_away

from dml_tf import Cohort, networks
from dml_tf.networks import pretrained

SHAPE = (16, 16, 3)


def build(name="mobilenet_short:0.25", classes=5, seed=0):
    return networks.build(name, num_classes=classes, input_shape=SHAPE, seed=seed)


def features(net):
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    return net(images)["features"].numpy()


def save(network, kind, folder):
    file = folder / f"trained{kind}"
    if kind == ".weights.h5":
        network.save_weights(file)
    else:
        network.save(file)
    return str(file)


@pytest.mark.parametrize("classes", [5, 7])
@pytest.mark.parametrize("kind", [".keras", ".weights.h5"])
def test_all_but_the_classifier_comes_from_the_file(kind, classes, tmp_path):
    trained, new = build(seed=1), build(classes=classes, seed=2)
    classifier = [w.copy() for w in new.get_layer("logits").get_weights()]
    pretrained.load(new, "mobilenet_short:0.25", save(trained, kind, tmp_path))
    np.testing.assert_array_equal(features(new), features(trained))
    for ours, before in zip(new.get_layer("logits").get_weights(), classifier, strict=True):
        np.testing.assert_array_equal(ours, before)


def test_of_a_cohort_the_first_peer_is_taken(tmp_path):
    cohort = Cohort([build(seed=1), build(seed=3)])
    new = build(seed=2)
    pretrained.load(new, "mobilenet_short:0.25", save(cohort, ".keras", tmp_path))
    np.testing.assert_array_equal(features(new), features(cohort.networks[0]))


@pytest.mark.parametrize("kind", [".keras", ".weights.h5"])
def test_a_mismatch_names_the_layers(kind, tmp_path):
    file = save(build("mobilenet_short:0.5"), kind, tmp_path)
    with pytest.raises(ValueError, match="does not fit mobilenet_short: .*conv"):
        pretrained.load(build(), "mobilenet_short:0.25", file)


def test_another_network_is_refused(tmp_path):
    file = save(build("resnet8:4"), ".keras", tmp_path)
    with pytest.raises(ValueError, match="it is another network"):
        pretrained.load(build(), "mobilenet_short:0.25", file)


def test_a_missing_file_and_missing_published_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="--pretrained=absent.keras"):
        pretrained.load(build(), "mobilenet_short:0.25", "absent.keras")
    with pytest.raises(ValueError, match="no ImageNet weights for 'inception_v1'"):
        pretrained.load(build(), "inception_v1", "imagenet")


def test_the_mobilenet_that_keras_publishes_fits_ours(monkeypatch):
    # Random weights stand in for the download.
    published = keras.applications.MobileNet(
        input_shape=(224, 224, 3), alpha=0.25, include_top=False, weights=None
    )
    monkeypatch.setattr(keras.applications, "MobileNet", lambda **options: published)
    ours = networks.build("mobilenet:0.25", num_classes=3, input_shape=(224, 224, 3), seed=0)
    pretrained.load(ours, "mobilenet:0.25", "imagenet")
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")
    pooled = published(images).numpy().mean(axis=(1, 2))
    found = ours(images)["features"].numpy()
    rng = np.random.default_rng(0)
    ours.set_weights([one_rounding_away(weight, rng) for weight in ours.get_weights()])
    tolerance = FACTOR * np.max(np.abs(ours(images)["features"].numpy() - found))
    assert np.max(np.abs(found - pooled)) <= tolerance < 1e-3 * np.max(pooled)


@pytest.mark.parametrize("kind", [".keras", ".weights.h5"])
def test_averages_of_statistics_start_from_the_trained_ones(kind, tmp_path):
    trained = build(seed=1)
    trained(np.ones((2, *SHAPE), "float32"), training=True)
    options = {"num_classes": 5, "input_shape": SHAPE, "batch_norm_ema": 0.5}
    new = networks.build("mobilenet_short:0.25", **options, seed=2)
    pretrained.load(new, "mobilenet_short:0.25", save(trained, kind, tmp_path))
    for norm, its in zip(networks.batch_norms(new), networks.batch_norms(trained), strict=True):
        norm.use_averages()
        np.testing.assert_array_equal(norm.moving_mean, its.moving_mean)
        np.testing.assert_array_equal(norm.moving_variance, its.moving_variance)


@pytest.mark.parametrize("kind", [".keras", ".weights.h5"])
def test_a_classifier_is_found_by_the_logits_whatever_its_name(kind, tmp_path):
    def network(seed):
        keras.utils.set_random_seed(seed)
        images = keras.Input(SHAPE)
        features = keras.layers.Dense(4, name="body")(keras.layers.Flatten()(images))
        logits = keras.layers.Dense(5, name="head")(features)
        return keras.Model(images, {"logits": logits, "features": features})

    trained, new = network(1), network(2)
    before = new.get_layer("head").get_weights()
    file = save(trained, kind, tmp_path)
    pretrained.load(new, "resnet8", file)
    np.testing.assert_array_equal(new.get_layer("head").get_weights()[0], before[0])
    np.testing.assert_array_equal(features(new), features(trained))
    inside = keras.Input(SHAPE)
    nested = keras.Model(inside, new(inside))
    if kind == ".weights.h5":
        with pytest.raises(ValueError, match="cannot be told which layer makes the logits"):
            pretrained.load(nested, "resnet8", file)
