"""Measures of posteriors, by hand."""

import math

import numpy as np
import pytest

from dml_tf.measures import posteriors as metrics

POSTERIORS = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.25, 0.5, 0.25]], "float32")


def test_accuracy_is_the_fraction_of_right_first_choices():
    assert metrics.accuracy(POSTERIORS, np.array([0, 1, 2])) == pytest.approx(2 / 3)


def test_cross_entropy_is_the_mean_surprise_at_the_true_class():
    value = metrics.cross_entropy(POSTERIORS, np.array([0, 1, 2]))
    assert value == pytest.approx((math.log(2) + 0 + math.log(4)) / 3, rel=1e-6)


def test_a_probability_of_zero_costs_much_but_not_infinitely():
    value = metrics.cross_entropy(POSTERIORS[1:2], np.array([0]))
    assert value == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def test_entropy_is_the_mean_over_the_posteriors():
    one = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert metrics.entropy(POSTERIORS) == pytest.approx((one + 0 + one) / 3, rel=1e-6)
