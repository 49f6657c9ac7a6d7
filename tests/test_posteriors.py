"""Measures of posteriors, by hand."""

import math

import numpy as np
import pytest

from dml_tf.measures import posteriors

POSTERIORS = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.25, 0.5, 0.25]], "float32")


def test_accuracy_is_the_fraction_of_correct_first_choices():
    assert posteriors.accuracy(POSTERIORS, np.array([0, 1, 2])) == pytest.approx(2 / 3)


def test_cross_entropy_is_the_mean_negative_log_of_the_true_class():
    value = posteriors.cross_entropy(POSTERIORS, np.array([0, 1, 2]))
    assert value == pytest.approx((math.log(2) + 0 + math.log(4)) / 3, rel=1e-6)


def test_cross_entropy_is_finite_for_a_probability_of_zero():
    value = posteriors.cross_entropy(POSTERIORS[1:2], np.array([0]))
    assert value == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def test_entropy_is_the_mean_over_the_posteriors():
    one = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert posteriors.entropy(POSTERIORS) == pytest.approx((one + 0 + one) / 3, rel=1e-6)


def test_class_1_is_the_true_class_even_where_another_is_more_probable():
    values = np.array([[0.1, 0.2, 0.7], [0.6, 0.1, 0.3]])
    by_hand = [(0.2 + 0.6) / 2, (0.7 + 0.3) / 2, (0.1 + 0.1) / 2]
    np.testing.assert_allclose(posteriors.mass_by_rank(values, np.array([1, 0])), by_hand)


def test_mass_by_rank_sums_to_one_and_decreases_from_class_2_on():
    values = np.random.default_rng(0).dirichlet(np.ones(7), 50)
    mass = posteriors.mass_by_rank(values, np.arange(50) % 7)
    assert mass.sum() == pytest.approx(1)
    assert (np.diff(mass[1:]) < 0).all()


def test_calibration_error_is_the_weighted_gap_of_accuracy_and_confidence():
    confidence = np.array([0.91, 0.95, 0.31, 0.32, 1.0])
    correct = np.array([True, False, True, False, True])
    # Bins of width 1/15: {0.91}, {0.95, 1.0}, {0.31, 0.32}.
    by_hand = (abs(1 - 0.91) + abs(1 - 1.95) + abs(1 - 0.63)) / 5
    assert posteriors.calibration_error(confidence, correct) == pytest.approx(by_hand)
    assert posteriors.calibration_error(np.ones(4), np.ones(4, bool)) == 0
