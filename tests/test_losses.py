"""The losses of Sec. 3 against numbers by hand, NumPy and identities."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, rel_entr, softmax

from dml_tf.method import losses


def draw_logits(*shape, scale=3.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def gradient(function, z):
    z = tf.Variable(z)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(function(z))
    return tape.gradient(value, z).numpy()


def test_posterior_is_the_softmax_of_eq_1_and_a_temperature_divides_the_logits():
    z = draw_logits(4, 5)
    np.testing.assert_allclose(losses.log_posterior(z), log_softmax(z, axis=1), rtol=1e-5)
    np.testing.assert_allclose(losses.log_posterior(z, 4.0), log_softmax(z / 4, axis=1), rtol=1e-5)


def test_posterior_is_float32_for_half_precision_logits():
    assert losses.log_posterior(tf.zeros((2, 3), tf.float16)).dtype == tf.float32


def test_cross_entropy_of_a_quarter_is_log_four():
    log_q = tf.math.log([[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(
        losses.cross_entropy(log_q, tf.constant([0, 1])), [math.log(4), math.log(2)], rtol=1e-6
    )


def test_label_smoothing_moves_its_mass_to_the_uniform_distribution():
    log_q = tf.math.log([[0.25, 0.75]])
    by_hand = 0.9 * math.log(4) + 0.1 * (math.log(4) + math.log(4 / 3)) / 2
    smoothed = losses.cross_entropy(log_q, tf.constant([0]), 0.1)
    np.testing.assert_allclose(smoothed, [by_hand], rtol=1e-6)


def test_supervised_loss_is_the_mean_over_labelled_examples_only():
    log_q = tf.math.log([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]])
    value = losses.supervised_loss(log_q, tf.constant([0, 1, -1]))
    assert float(value) == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_a_batch_without_labels_has_no_supervised_loss_and_no_gradient():
    z, labels = draw_logits(3, 4), tf.constant([-1, -1, -1])
    value = losses.supervised_loss(losses.log_posterior(z), labels)
    assert float(value) == 0.0
    grad = gradient(lambda z: losses.supervised_loss(losses.log_posterior(z), labels), z)
    np.testing.assert_array_equal(grad, 0.0)


def test_kl_divergence_is_that_of_scipy_with_the_peer_first():
    p, q = softmax(draw_logits(6, 5), axis=1), softmax(draw_logits(6, 5, seed=1), axis=1)
    value = losses.kl_divergence(tf.math.log(p), tf.math.log(q))
    np.testing.assert_allclose(value, rel_entr(p, q).sum(axis=1), rtol=1e-5)


def test_kl_divergence_pulls_up_a_class_that_the_student_gives_up():
    log_p = tf.math.log([[0.7, 0.3]])
    grad = gradient(
        lambda z: losses.kl_divergence(log_p, losses.log_posterior(z)),
        np.array([[0.0, -20.0]], "float32"),
    )
    np.testing.assert_allclose(grad, [[0.3, -0.3]], rtol=1e-5)


def test_js_is_half_the_symmetric_divergence_of_eq_7():
    p, q = softmax(draw_logits(6, 5), axis=1), softmax(draw_logits(6, 5, seed=1), axis=1)
    half = 0.5 * (rel_entr(p, q) + rel_entr(q, p)).sum(axis=1)
    value = losses.js_divergence(tf.math.log(p), tf.math.log(q))
    np.testing.assert_allclose(value, half, rtol=1e-5)


def test_entropy_of_the_uniform_posterior_is_log_of_the_number_of_classes():
    np.testing.assert_allclose(
        losses.entropy(losses.log_posterior(tf.zeros((1, 8)))), [math.log(8)], rtol=1e-6
    )


@pytest.mark.parametrize("peers", [1, 2, 4])
def test_ensemble_is_the_mean_posterior_of_eq_11(peers):
    z = [draw_logits(3, 5, seed=k) for k in range(peers)]
    mean = np.mean([softmax(member, axis=1) for member in z], axis=0)
    np.testing.assert_allclose(tf.exp(losses.ensemble_log_posterior(z)), mean, rtol=1e-5)


def test_logit_ensemble_is_the_posterior_of_the_mean_logits():
    z = [draw_logits(3, 5, seed=k) for k in range(3)]
    np.testing.assert_allclose(
        tf.exp(losses.ensemble_log_posterior(z, "logit", 2.0)),
        softmax(np.mean(z, axis=0) / 2, axis=1),
        rtol=1e-5,
    )


@pytest.mark.parametrize("peers", [2, 3, 5])
def test_eq_10_and_eq_11_have_the_same_gradient_for_the_student(peers):
    log_p = [losses.log_posterior(draw_logits(4, 6, seed=k)) for k in range(1, peers)]
    student = draw_logits(4, 6, seed=9)

    def eq_10(z):
        log_q = losses.log_posterior(z)
        return tf.add_n([losses.kl_divergence(p, log_q) for p in log_p]) / len(log_p)

    def eq_11(z):
        ensemble = losses.ensemble_log_posterior(log_p)
        return losses.kl_divergence(ensemble, losses.log_posterior(z))

    np.testing.assert_allclose(gradient(eq_10, student), gradient(eq_11, student), atol=1e-6)
    if peers > 2:  # and yet they are different quantities
        assert np.all(eq_10(student).numpy() > eq_11(student).numpy())


def test_eq_11_of_mean_logits_is_another_gradient():
    z = [draw_logits(4, 6, seed=k) for k in (1, 2)]
    student = draw_logits(4, 6, seed=9)

    def dml_e(average):
        target = losses.ensemble_log_posterior(z, average)
        return gradient(lambda s: losses.kl_divergence(target, losses.log_posterior(s)), student)

    assert np.abs(dml_e("logit") - dml_e("probability")).max() > 0.01


def test_feature_distance_is_the_mean_squared_difference():
    value = losses.feature_distance(tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 1.0]]))
    np.testing.assert_allclose(value, [2.5])
