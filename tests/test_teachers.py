"""Who teaches and how it is compared: each target and divergence against slow NumPy oracles."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from dml_tf import DIST, DKD, Cohort, Mimicry
from dml_tf.method import divergences, targets
from dml_tf.networks import trusted
from dml_tf.runs import build, config

CLASSES, BATCH, DIM = 4, 6, 5
LABELS = np.array([0, 1, 2, 3, 0, -1])
OWN, FIRST, SECOND = (2 * np.random.default_rng(k).normal(size=(BATCH, CLASSES)) for k in range(3))


def constant(*arrays):
    return [tf.constant(array, tf.float32) for array in arrays]


def posteriors_of(name, labels=LABELS):
    own, *peers = constant(OWN, FIRST, SECOND)
    return np.exp(targets.BY_NAME[name](own, peers, tf.constant(labels), None))


def kl(p, q):
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def divergence_of(divergence, p_logits=FIRST, q_logits=OWN, labels=LABELS):
    p, q = constant(log_softmax(p_logits, axis=1), log_softmax(q_logits, axis=1))
    return divergence(p, q, tf.constant(labels)).numpy()


# Targets


def test_each_peer_teaches_and_the_mean_is_that_of_the_posteriors():
    first, second = posteriors_of("each")
    np.testing.assert_allclose(first, softmax(FIRST, axis=1), rtol=1e-5)
    np.testing.assert_allclose(second, softmax(SECOND, axis=1), rtol=1e-5)
    np.testing.assert_allclose(posteriors_of("mean"), (first + second) / 2, rtol=1e-5)
    by_hand = softmax((FIRST + SECOND) / 2, axis=1)
    np.testing.assert_allclose(posteriors_of("logit_mean"), by_hand, rtol=1e-5)


def test_the_naive_target_is_the_network_with_the_smallest_cross_entropy_on_each_image():
    found = posteriors_of("naive")
    chosen = set()
    for i, label in enumerate(LABELS[:-1]):
        rows = [softmax(logits[i]) for logits in (OWN, FIRST, SECOND)]
        best = int(np.argmax([row[label] for row in rows]))
        chosen.add(best)
        np.testing.assert_allclose(found[i], rows[best], rtol=1e-5)
    assert len(chosen) > 1


def test_the_min_logit_target_has_the_smallest_distance_to_the_label_in_each_class():
    found = posteriors_of("min_logit")
    for i, label in enumerate(LABELS[:-1]):
        shifted = [logits[i] - logits[i, label] for logits in (OWN, FIRST, SECOND)]
        np.testing.assert_allclose(found[i], softmax(np.min(shifted, axis=0)), rtol=1e-5)


@pytest.mark.parametrize("name", ["naive", "min_logit"])
def test_an_image_without_a_label_is_taught_by_the_mean(name):
    np.testing.assert_array_equal(posteriors_of(name)[-1], posteriors_of("mean")[-1])
    assert np.abs(posteriors_of(name)[0] - posteriors_of("mean")[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["naive", "min_logit"])
def test_one_hot_labels_teach_as_class_indices(name):
    one_hot = np.eye(CLASSES, dtype="float32")[LABELS] * (LABELS >= 0)[:, None].astype("float32")
    np.testing.assert_allclose(posteriors_of(name, one_hot), posteriors_of(name), rtol=1e-5)


def mean_of(values):
    return tf.add_n(values) / len(values)


def gradient(mimicry, labels=LABELS):
    own, *peers = constant(OWN, FIRST, SECOND)
    with tf.GradientTape() as tape:
        tape.watch(own)
        loss = tf.reduce_sum(mimicry.loss(own, peers, mean_of, tf.constant(labels)))
    return tape.gradient(loss, own).numpy()


def test_each_peer_and_their_mean_have_the_same_gradient():
    each, mean, logits = (gradient(Mimicry(name)) for name in ("each", "mean", "logit_mean"))
    np.testing.assert_allclose(each, mean, atol=1e-6)
    assert np.abs(mean - logits).max() > 1e-2


@pytest.mark.parametrize("name", ["naive", "min_logit"])
def test_a_target_that_has_the_student_is_a_constant_for_it(name):
    p = posteriors_of(name)
    expected = softmax(OWN, axis=1) - p  # of D_KL(p || q) with a fixed p
    np.testing.assert_allclose(gradient(Mimicry(name)), expected, atol=1e-6)


def test_a_target_and_a_divergence_of_ones_own_get_softened_logits_labels_and_step():
    seen = {}

    def first_peer(own, peers, labels, step):
        seen.update(own=own, peers=peers, step=step)
        return tf.nn.log_softmax(peers[0])

    def squared(log_p, log_q, labels):
        seen["labels"] = labels
        return tf.reduce_sum((log_p - log_q) ** 2, axis=-1)

    mimicry = Mimicry(first_peer, squared, temperature=2.0)
    own, *peers = constant(OWN, FIRST, SECOND)
    value = mimicry.loss(own, peers, None, tf.constant(LABELS), tf.constant(7))
    distance = log_softmax(FIRST / 2, axis=1) - log_softmax(OWN / 2, axis=1)
    np.testing.assert_allclose(value, 4 * (distance**2).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(seen["own"], OWN / 2, rtol=1e-6)
    assert len(seen["peers"]) == 2 and int(seen["step"]) == 7 and seen["labels"].shape == (BATCH,)


# Divergences


def test_dkd_is_its_two_parts_by_hand():
    found = divergence_of(DKD(alpha=0.7, beta=3.0))
    for i, label in enumerate(LABELS[:-1]):
        p, q = softmax(FIRST[i]), softmax(OWN[i])
        rest = [c for c in range(CLASSES) if c != label]
        of_label = kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        others = kl(p[rest] / p[rest].sum(), q[rest] / q[rest].sum())
        assert found[i] == pytest.approx(0.7 * of_label + 3.0 * others, rel=1e-4)


def test_dkd_with_the_weights_of_the_kl_divergence_is_the_kl_divergence():
    p_label = softmax(FIRST, axis=1)[np.arange(BATCH), LABELS]
    for i in range(BATCH - 1):
        decoupled = divergence_of(DKD(alpha=1.0, beta=1 - p_label[i]))[i]
        assert decoupled == pytest.approx(divergence_of(divergences.kl)[i], rel=1e-4)


def test_dkd_of_an_image_without_a_label_is_the_kl_divergence():
    assert divergence_of(DKD(beta=5.0))[-1] == divergence_of(divergences.kl)[-1]


def test_dkd_stays_finite_where_a_network_is_certain():
    for p, q in ((FIRST, 500 * OWN), (500 * FIRST, OWN), (500 * FIRST, 500 * OWN)):
        own, peer = constant(q, p)
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss = Mimicry(divergence=DKD())(own, peer, tf.constant(LABELS))
        assert np.isfinite(loss).all() and np.isfinite(tape.gradient(loss, own)).all()


def test_dist_is_one_minus_pearsons_correlations_by_hand():
    p, q = softmax(FIRST, axis=1), softmax(OWN, axis=1)
    between = [1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(BATCH)]
    within = np.mean([1 - np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(CLASSES)])
    found = divergence_of(DIST(between=2.0, within=0.5))
    np.testing.assert_allclose(found, 2 * np.array(between) + 0.5 * within, atol=1e-5)


def test_dist_is_zero_for_posteriors_that_an_affine_map_makes_equal():
    p = softmax(FIRST, axis=1)
    mixed = 0.4 * p + 0.6 / CLASSES
    np.testing.assert_allclose(divergence_of(DIST(), np.log(p), np.log(mixed)), 0, atol=1e-5)
    assert (divergence_of(divergences.kl, np.log(p), np.log(mixed)) > 1e-3).all()


def test_dist_has_a_gradient_where_there_is_nothing_to_correlate():
    flat = tf.zeros((1, CLASSES))
    with tf.GradientTape() as tape:
        tape.watch(flat)
        loss = Mimicry(divergence=DIST())(flat, flat)
    assert np.isfinite(loss).all() and np.isfinite(tape.gradient(loss, flat)).all()


# Standardised logits


def test_standardised_logits_are_the_z_scores_divided_by_the_temperature():
    def soft(logits):
        z = (logits - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)
        return softmax(z / 2, axis=1)

    own, peer = constant(OWN, FIRST)
    by_hand = [4 * kl(p, q) for p, q in zip(soft(FIRST), soft(OWN), strict=True)]
    found = Mimicry(temperature=2.0, standardise=True)(own, peer)
    np.testing.assert_allclose(found, by_hand, rtol=1e-3)


def test_standardised_logits_have_neither_scale_nor_shift():
    own, peer, same = constant(OWN, FIRST, 3 * FIRST + 5)
    standardised = Mimicry(standardise=True)
    np.testing.assert_allclose(standardised(own, same), standardised(own, peer), rtol=1e-4)
    np.testing.assert_allclose(standardised(peer, same), 0, atol=1e-6)
    assert float(tf.reduce_max(Mimicry()(peer, same))) > 0.1


# In a cohort


def linear_peers(count):
    keras.utils.set_random_seed(0)
    return [
        keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(CLASSES)], name=f"linear{k}")
        for k in range(count)
    ]


def trained(cohort):
    cohort.compile("sgd", run_eagerly=True)  # there is nothing to gain from a graph in four steps
    images = np.random.default_rng(0).normal(size=(8, DIM)).astype("float32")
    cohort.fit(images, np.arange(8) % CLASSES, batch_size=4, shuffle=False, verbose=0)
    return cohort.get_weights()


@keras.saving.register_keras_serializable(package="tests")
def last_peer(own, peers, labels, step):
    return tf.nn.log_softmax(peers[-1])


CHOSEN = [
    Mimicry("mean", DKD(alpha=0.5, beta=3.0), 2.0),
    Mimicry("min_logit", DIST(between=0.5, within=2.0)),
    Mimicry(last_peer, "js", standardise=True),
]


@pytest.mark.parametrize("mimicry", CHOSEN)
def test_a_file_keeps_target_divergence_and_options(mimicry, tmp_path):
    cohort = Cohort(linear_peers(2), mimicry=mimicry)
    trained(cohort)
    cohort.save(tmp_path / "cohort.keras")
    loaded = keras.saving.load_model(tmp_path / "cohort.keras")
    assert loaded.mimicry.get_config() == mimicry.get_config()
    for ours, theirs in zip(trained(loaded), trained(cohort), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    trusted.load_model(tmp_path / "cohort.keras", allow=[__name__])


@pytest.mark.parametrize("name", ["dkd", "dist"])
def test_a_divergence_has_a_name_in_a_cohort(name):
    by_name = Cohort(linear_peers(2), mimicry=name, temperature=2.0)._mimicry
    own, peer = constant(OWN, FIRST)
    expected = Mimicry(divergence=name, temperature=2.0)(own, peer, tf.constant(LABELS))
    found = by_name(own, peer, tf.constant(LABELS))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - Mimicry(temperature=2.0)(own, peer)).max() > 1e-3


@pytest.mark.parametrize("name", targets.BY_NAME)
def test_a_target_in_a_cohort_has_a_config_that_makes_it_again(name):
    made = Cohort(linear_peers(3), mimicry=Mimicry(name, "js", 1.5))
    assert Cohort.from_config(made.get_config()).mimicry.get_config() == made.mimicry.get_config()


@pytest.mark.parametrize("option", ["target", "divergence"])
def test_an_unknown_name_is_refused_with_the_names_that_there_are(option):
    with pytest.raises(ValueError, match=f"{option} must be one of .*; got 'best'"):
        Mimicry(**{option: "best"})


# In a run


def test_flags_make_the_mimicry_loss(tmp_path):
    flags = {"dataset": "digits", "net": "resnet8:2", "results_dir": str(tmp_path)}
    asked = config.load(**flags, cohort=2, target="naive", mimicry="dkd", temperature=2.0)
    made = build.build_cohort(asked, build.load_data(asked)).mimicry
    assert (made.target, made.divergence, made.temperature) == ("naive", "dkd", 2.0)
    assert not made.standardise
