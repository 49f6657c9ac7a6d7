"""Figures 4 and 5: noise on weights, posterior mass by rank, and t-SNE of two peers' features."""

import math

import keras
import numpy as np
import pytest

from dml_tf import Cohort, networks
from dml_tf.data import Split, Splits
from dml_tf.measures import analysis, evaluate
from dml_tf.runs import build, config, records, train
from dml_tf.runs.files import RunFiles

SMALL = {"dataset": "digits", "net": ("resnet8:4",), "image_size": 8, "batch_size": 16, "steps": 3}


def splits_of(images, labels):
    split = Split(np.asarray(images, "uint8"), np.asarray(labels, "int64"))
    shape = np.zeros(1, "float32"), np.ones(1, "float32") / 255
    return Splits("by hand", split, None, split, 2, ("a", "b"), *shape)


@pytest.fixture
def bias_only():
    """A network of one input whose logits are its two biases, and labels 0, 0, 1, -1."""
    inputs = keras.Input((1, 1, 1))
    flat = keras.layers.Flatten(name="features")(inputs)
    logits = keras.layers.Dense(2, kernel_initializer="zeros")(flat)
    network = keras.Model(inputs, {"logits": logits, "features": flat}, name="net")
    return Cohort([network]), splits_of(np.zeros((4, 1, 1, 1)), [0, 0, 1, -1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A trained pair and its data."""
    asked = config.load(**SMALL, cohort=2, results_dir=str(tmp_path_factory.mktemp("pair")))
    train.run(asked, verbose=0)
    return keras.saving.load_model(RunFiles.of(asked).model), build.load_data(asked)


# Weight noise


def test_without_noise_the_loss_is_the_measured_cross_entropy(pair):
    found = analysis.weight_noise(*pair, sigmas=(0.0,))
    measured = evaluate.measure(pair[0], pair[1].train, pair[1])["peers"]
    assert found["loss"] == {name: [[m["cross_entropy"]]] for name, m in measured.items()}


def test_noise_on_a_bias_raises_the_loss_as_computed_by_hand(bias_only):
    cohort, splits = bias_only
    found = analysis.weight_noise(cohort, splits, sigmas=(0.0, 2.0), draws=2, seed=7)
    assert found["sigma"] == [0.0, 2.0]
    assert found["loss"]["net"][0] == [pytest.approx(math.log(2))]
    for draw in range(2):
        rng = np.random.default_rng([7, draw, 0])
        rng.standard_normal((1, 2), np.float32)  # of the kernel, whose inputs are 0
        first, second = 2 * rng.standard_normal(2, np.float32).astype("float64")
        gap = second - first
        by_hand = (2 * np.log1p(np.exp(gap)) + np.log1p(np.exp(-gap))) / 3
        assert found["loss"]["net"][1][draw] == pytest.approx(by_hand, rel=1e-5)


def test_a_draw_has_the_same_direction_for_all_sigmas(bias_only):
    network = bias_only[0].networks[0]
    moved = []
    for sigma in (1.0, 3.0):
        with analysis._noise(bias_only[0], analysis.on_each_weight, sigma, [0, 0]):
            moved.append(np.concatenate([w.ravel() for w in network.get_weights()]))
    np.testing.assert_allclose(moved[1], 3 * moved[0], rtol=1e-6)


def test_noise_has_the_given_deviation_and_leaves_batch_norm_averages_unchanged():
    network = keras.Sequential(
        [keras.Input((100,)), keras.layers.Dense(200), keras.layers.BatchNormalization()]
    )
    before = network.get_weights()
    with analysis._noise(Cohort([network]), analysis.on_each_weight, 0.3, [0, 0]):
        after = network.get_weights()
    assert np.std(after[0] - before[0]) == pytest.approx(0.3, rel=0.03)
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [True, True, True, True, False, False]  # gamma, beta; mean, variance


def test_weights_are_restored_after_noise_and_after_an_error(pair):
    cohort, splits = pair
    before = cohort.get_weights()
    analysis.weight_noise(cohort, splits, sigmas=(0.5,), draws=1)
    with pytest.raises(KeyError), analysis._noise(cohort, analysis.on_each_weight, 1.0, [0, 0]):
        assert not np.array_equal(cohort.get_weights()[0], before[0])
        raise KeyError
    for ours, theirs in zip(cohort.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_filter_noise_has_the_given_part_of_each_filters_length_and_spares_the_rest():
    network = networks.build("mobilenet_short:0.25", num_classes=3, input_shape=(8, 8, 1), seed=0)
    names = [weight.path for weight in network.trainable_variables]
    before = [w.numpy() for w in network.trainable_variables]
    with analysis._noise(Cohort([network]), analysis.on_each_filter, 0.2, [0, 0]):
        after = [w.numpy() for w in network.trainable_variables]
    for name, old, new in zip(names, before, after, strict=True):
        filters = {2: (0,), 4: (0, 1) if "depthwise" in name else (0, 1, 2)}.get(old.ndim)
        if filters is None:
            np.testing.assert_array_equal(old, new)
            continue
        length = np.sqrt(((new - old) ** 2).sum(axis=filters))
        np.testing.assert_allclose(length, 0.2 * np.sqrt((old**2).sum(axis=filters)), rtol=1e-4)


def test_filter_noise_spares_biases(bias_only):
    cohort, splits = bias_only
    found = analysis.filter_noise(cohort, splits, ratios=(0.5,), draws=2)
    # The kernel meets inputs of 0, and biases get no noise: the loss stays.
    assert found == {"ratio": [0.5], "loss": {"net": [[pytest.approx(math.log(2))] * 2]}}


def test_a_limit_takes_images_evenly_from_the_training_set(bias_only):
    cohort, _ = bias_only
    splits = splits_of(np.zeros((60, 1, 1, 1)), np.repeat([0, 1], 30))
    cohort.networks[0].layers[-1].bias.assign([1.0, 0.0])
    whole, part = (analysis.weight_noise(cohort, splits, sigmas=(0.0,), images=n) for n in (60, 7))
    right, wrong = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    assert whole["loss"]["net"][0][0] == pytest.approx((right + wrong) / 2, rel=1e-6)
    assert part["loss"]["net"][0][0] == pytest.approx((4 * right + 3 * wrong) / 7, rel=1e-6)


# Posterior mass by rank


def test_ranked_mass_ignores_unlabelled_images(bias_only):
    cohort, splits = bias_only
    cohort.networks[0].layers[-1].bias.assign([np.log(3), 0])
    (mass,) = analysis.ranked_mass(cohort, splits).values()
    np.testing.assert_allclose(mass, [(2 * 0.75 + 0.25) / 3, (2 * 0.25 + 0.75) / 3], rtol=1e-6)


# t-SNE


def test_each_of_the_most_frequent_classes_has_the_same_number_of_images():
    labels = np.array([3, 1, 1, 2, 2, 2, 1, 0])
    splits = splits_of(np.arange(8).reshape(-1, 1, 1, 1), labels)
    shown = analysis.choose_test_images(splits, images=4, classes=2)
    assert shown.labels.tolist() == [1, 1, 2, 2]
    assert shown.images.ravel().tolist() == [1, 2, 3, 4]


def blobs(centres, rng):
    return np.concatenate([c + 0.02 * rng.normal(size=(20, 4)) for c in np.eye(4)[centres]])


def test_tsne_separates_peers_with_different_features():
    rng = np.random.default_rng(0)
    features = {"a": blobs([0, 1], rng), "b": 5 * blobs([2, 3], rng)}
    points = analysis.tsne(features)
    first, second = (np.array(points[name]) for name in "ab")
    assert first.shape == second.shape == (40, 2)
    distances = np.linalg.norm(first[:, None] - second[None], axis=-1)
    assert distances.min() > np.linalg.norm(first[:20] - first[:20].mean(0), axis=1).max()
    assert analysis.tsne(features) == points


def test_same_peer_is_1_for_different_features_and_ignores_their_scale():
    rng = np.random.default_rng(0)
    assert analysis.same_peer({"a": blobs([0, 1], rng), "b": 5 * blobs([2, 3], rng)}) == 1.0
    alike = analysis.same_peer({"a": blobs([0, 1], rng), "b": 5 * blobs([0, 1], rng)})
    assert 0.25 < alike < 0.75


def test_features_of_different_sizes_are_not_compared(pair):
    cohort, splits = pair
    shown = analysis.choose_test_images(splits, images=20)
    wider = networks.build("resnet8:8", num_classes=10, input_shape=(8, 8, 1), seed=0)
    mixed = Cohort([cohort.networks[0], wider], names=["narrow", "wide"])
    assert list(analysis.features_of_two(mixed, shown, splits)) == ["narrow"]
    assert len(analysis.features_of_two(cohort, shown, splits)) == 2


# In a record


def test_a_finished_run_is_analysed_without_training_again(tmp_path):
    plain = config.load(**SMALL, cohort=2, results_dir=str(tmp_path))
    asked = plain.replace(analyse=True)
    assert asked.run_id == plain.run_id
    first = train.run(plain, verbose=0)
    assert "analysis" not in first and records.find(asked) is None
    second = train.run(asked, verbose=0)
    found = second.pop("analysis")
    assert second == first
    assert records.find(asked)["analysis"] == found
    peers = {"resnet8_0", "resnet8_1"}
    assert set(found["ranked_mass"]) == set(found["weight_noise"]["loss"]) == peers
    assert set(found["tsne"]["points"]) == peers
    assert len(found["tsne"]["labels"]) == len(found["tsne"]["points"]["resnet8_0"]) == 200
    assert RunFiles.of(asked).record.stat().st_size < 50_000


def test_a_finished_run_without_weights_is_trained_again_to_be_analysed(tmp_path):
    plain = config.load(**SMALL, results_dir=str(tmp_path))
    first = train.run(plain, verbose=0)
    RunFiles.of(plain).model.unlink()
    second = train.run(plain.replace(analyse=True), verbose=0)
    # One peer: no t-SNE.
    assert set(second["analysis"]) == {"weight_noise", "filter_noise", "ranked_mass"}
    assert second["test"] == first["test"]
