"""Mimicry losses: by name, as objects with options of their own, and as callables."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

import dml_tf
from dml_tf import Cohort
from dml_tf.method.mimicry import JS, KL, Ensemble, of_student

CLASSES, DIM, BATCH = 4, 6, 8


def linear_peers(count):
    return [
        keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(CLASSES)], name=f"linear{k}")
        for k in range(count)
    ]


def logits_of(count):
    return [np.random.default_rng(k).normal(size=(BATCH, CLASSES)) for k in range(count)]


def mimicry_loss(peers=2, **options):
    cohort = Cohort(linear_peers(peers), **options)
    student, *others = map(tf.constant, logits_of(peers))
    return of_student(cohort._mimicry, student, others, None, None, cohort._reduce).numpy()


def kl(p, q):
    return (p * np.log(p / q)).sum(axis=1)


def softened(temperature):
    return [softmax(z / temperature, axis=1) for z in logits_of(3)]


# By hand


@pytest.mark.parametrize("options", [{"temperature": 3.0}, {"mimicry": KL(temperature=3.0)}])
def test_a_temperature_softens_both_posteriors_and_is_squared_into_the_loss(options):
    q, p1, p2 = softened(3)
    by_hand = 9 * (kl(p1, q) + kl(p2, q)) / 2
    np.testing.assert_allclose(mimicry_loss(3, **options), by_hand, rtol=1e-4)


def test_js_has_a_temperature():
    q, p1, p2 = softened(2)
    by_hand = 4 * sum((kl(p, q) + kl(q, p)) / 2 for p in (p1, p2))
    value = mimicry_loss(3, mimicry=JS(temperature=2), peer_reduction="sum")
    np.testing.assert_allclose(value, by_hand, rtol=1e-4)


def test_an_ensemble_is_one_teacher_whatever_the_reduction():
    q, p1, p2 = softened(2)
    by_hand = 4 * kl((p1 + p2) / 2, q)
    value = mimicry_loss(3, mimicry=Ensemble(temperature=2), peer_reduction="sum")
    np.testing.assert_allclose(value, by_hand, rtol=1e-4)


def test_an_object_gives_the_loss_of_one_peer_as_a_callable_does():
    (q, p, _), (student, peer, _) = softened(2), logits_of(3)
    np.testing.assert_allclose(KL(temperature=2)(student, peer), 4 * kl(p, q), rtol=1e-4)


# Names and objects


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("mimicry", "by_name"),
    [
        (KL(), {"mimicry": "kl"}),
        (JS(), {"mimicry": "js"}),
        (Ensemble(), {"mimicry": "ensemble"}),
        (KL(temperature=3.0), {"mimicry": "kl", "temperature": 3.0}),
        (JS(temperature=0.7), {"mimicry": "js", "temperature": 0.7}),
        (
            Ensemble(temperature=3.0, average="logit"),
            {"mimicry": "ensemble", "temperature": 3.0, "ensemble_average": "logit"},
        ),
    ],
)
def test_an_object_gives_the_bits_of_its_name(mimicry, by_name, reduction):
    ours = mimicry_loss(4, mimicry=mimicry, peer_reduction=reduction)
    np.testing.assert_array_equal(ours, mimicry_loss(4, **by_name, peer_reduction=reduction))


def trained(cohort):
    cohort.compile("sgd")
    images = np.random.default_rng(0).normal(size=(BATCH, DIM)).astype("float32")
    cohort.fit(images, np.arange(BATCH) % CLASSES, epochs=2, batch_size=4, shuffle=False, verbose=0)
    return cohort.get_weights()


def test_a_cohort_with_an_object_learns_as_with_its_name():
    ends = []
    for options in ({"mimicry": KL(temperature=3)}, {"temperature": 3}):
        keras.utils.set_random_seed(0)
        ends.append(trained(Cohort(linear_peers(3), **options)))
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mimicry", [KL(temperature=2), JS(), Ensemble(3.0, "logit")])
def test_a_file_keeps_the_object_and_its_options(mimicry, tmp_path):
    cohort = Cohort(linear_peers(2), mimicry=mimicry)
    trained(cohort)
    cohort.save(tmp_path / "cohort.keras")
    loaded = keras.saving.load_model(tmp_path / "cohort.keras")
    assert type(loaded.mimicry) is type(mimicry)
    assert loaded.mimicry.get_config() == mimicry.get_config()
    for ours, theirs in zip(trained(loaded), trained(cohort), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_package_offers_kl_and_js():
    assert (dml_tf.KL, dml_tf.JS) == (KL, JS)


# Callables


def test_a_callable_is_the_mimicry_loss_of_one_peer():
    def squared(student, peer, labels, step):
        return tf.reduce_sum((student - peer) ** 2, axis=-1)

    student, peer = logits_of(2)
    by_hand = ((student - peer) ** 2).sum(axis=1)
    np.testing.assert_allclose(mimicry_loss(mimicry=squared), by_hand, rtol=1e-5)


def test_a_callable_gets_labels_and_the_number_of_the_step():
    seen = []

    def spy(student, peer, labels, step):
        seen.append((labels.numpy().tolist(), int(step)))
        return tf.zeros(len(labels))

    cohort = Cohort(linear_peers(2), mimicry=spy)
    cohort.compile("sgd", run_eagerly=True)
    images, labels = np.zeros((BATCH, DIM)), np.arange(BATCH) % CLASSES
    cohort.fit(images, labels, epochs=2, batch_size=BATCH, shuffle=False, verbose=0)
    assert [step for _, step in seen] == [0, 0, 1, 1]  # the same number for both peers
    assert seen[0][0] == labels.tolist()


# What is refused


@pytest.mark.parametrize("loss", [KL, JS, Ensemble])
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(loss, temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        loss(temperature=temperature)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="average must be one of probability, logit"):
        Ensemble(average="median")


def test_two_temperatures_for_one_loss_are_refused():
    with pytest.raises(ValueError, match=r"write mimicry=KL\(temperature=3\.0\)"):
        Cohort(linear_peers(2), mimicry=KL(), temperature=3.0)


def test_a_keras_loss_is_a_divergence_of_an_object_too(tmp_path):
    with pytest.warns(UserWarning, match="clips probabilities"):
        mimicry = dml_tf.Mimicry("each", keras.losses.KLDivergence())
    by_name = mimicry_loss(3)
    np.testing.assert_allclose(mimicry_loss(3, mimicry=mimicry), by_name, rtol=1e-4)
    with pytest.warns(UserWarning, match="clips probabilities"):
        read = dml_tf.Mimicry.from_config(mimicry.get_config())
    np.testing.assert_allclose(mimicry_loss(3, mimicry=read), by_name, rtol=1e-4)


def test_options_that_would_have_no_effect_or_do_harm_are_refused():
    def function(student, peer, labels=None, step=None):
        return tf.zeros(len(student))

    for options, message in (
        ({"mimicry": function, "temperature": 4.0}, "a function divides the logits itself"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Cohort(linear_peers(2), **options)
    alone = Cohort(linear_peers(1), feature_weight=0.1)  # a baseline compares no features
    alone.compile("sgd")
    alone.fit(np.ones((4, DIM), "float32"), np.zeros(4, int), verbose=0)
    cohort = Cohort(linear_peers(2), feature_weight=0.1)
    cohort.compile("sgd")
    with pytest.raises(ValueError, match="'linear0' returns none"):
        cohort.fit(np.ones((4, DIM), "float32"), np.zeros(4, int), verbose=0)
