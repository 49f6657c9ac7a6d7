"""Statistics over seeds: numbers by hand, slow oracles, and simulated data with known truth."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dml_tf.paper import statistics

# Gosset's sleep data (1908): the published paired t is 4.0621 with 9 degrees of freedom.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


def test_students_interval_and_test_of_gossets_sleep_data():
    low, high = statistics.student(SLEEP)
    assert (low, high) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))
    assert statistics.student_p(SLEEP) == pytest.approx(0.002833 / 2, rel=1e-3)


def test_equal_seeds_have_no_spread_and_are_tested_by_their_sign():
    values = [(0.5, 0.0), (-0.5, 1.0), (0.0, 1.0)]
    assert [statistics.student_p([value] * 6) for value, _ in values] == [p for _, p in values]


def test_sign_flips_are_counted_by_hand():
    # Of the 8 flips of 1, 2 and -4, these have |sum| >= 1: all but none; sums 1, 7, 5, 3 and back.
    assert statistics.sign_flip_p([1, 2, -4]) == 1
    assert statistics.sign_flip_p([1, 2, 4]) == 2 / 8
    assert statistics.sign_flip_p([-1, 2, 4]) == 4 / 8  # sums of 5 and 7
    assert statistics.sign_flip_p([0.1] * 6) == 2 / 64
    assert statistics.sign_flip_p([0.0] * 6) == 1


def test_sign_flips_agree_with_scipys_enumeration():
    found = stats.permutation_test(
        (np.array(SLEEP) - 0.9,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    ours = statistics.sign_flip_p(np.array(SLEEP) - 0.9)
    assert ours == pytest.approx(found.pvalue)


def test_sixteen_seeds_are_enumerated_and_seventeen_are_drawn():
    row = np.random.default_rng(1).normal(0.5, 1, 17)
    exact = sum(
        abs(np.dot(signs, row[:12])) >= abs(row[:12].sum()) - 1e-12
        for signs in itertools.product((1, -1), repeat=12)
    )
    assert statistics.sign_flip_p(row[:12]) == exact / 2**12
    assert statistics._signs(16).shape == (2**15, 16)
    drawn = statistics.sign_flip_p(row)
    assert statistics._signs(17).shape == (statistics.DRAWS, 17)
    assert drawn == pytest.approx(2 * statistics.student_p(row), abs=0.02)
    assert drawn == statistics.sign_flip_p(row)


def slow_largest_t(rows):
    """The 95% quantile of the largest |t| over all flips of residuals, one flip at a time."""
    residuals = rows - rows.mean(axis=1, keepdims=True)
    largest = []
    for signs in itertools.product((1, -1), repeat=rows.shape[1]):
        flipped = residuals * np.array(signs)
        largest.append(np.abs(stats.ttest_1samp(flipped, 0, axis=1).statistic).max())
    return np.quantile(largest, 0.95, method="higher")


def test_simultaneous_intervals_use_the_largest_t_over_flips_of_whole_seeds():
    rows = np.random.default_rng(0).normal(1, [[1], [2], [0.5]], (3, 7))
    half = slow_largest_t(rows) * rows.std(axis=1, ddof=1) / math.sqrt(7)
    expected = rows.mean(axis=1)[:, None] + np.outer(half, [-1, 1])
    np.testing.assert_allclose(statistics.simultaneous(rows), expected)


def test_simultaneous_intervals_of_one_row_are_students_and_of_copies_of_it_nearly():
    row = np.random.default_rng(3).normal(0, 1, 8)
    np.testing.assert_allclose(statistics.simultaneous([row])[0], statistics.student(row))
    low, high = statistics.simultaneous([row] * 12)[0]
    assert high - low == pytest.approx(np.ptp(statistics.student(row)), rel=0.15)


def test_simultaneous_intervals_hold_for_all_rows_at_once():
    """Of 12 correlated rows, far from zero, over six to ten seeds."""
    rng, missed = np.random.default_rng(0), 0
    for seeds in (6, 8, 10):
        for _ in range(100):
            rows = 2 + rng.normal(0, 1, seeds) + rng.normal(0, 1, (12, seeds))
            low, high = statistics.simultaneous(rows).T
            missed += not np.all((low < 2) & (high > 2))
    assert 3 <= missed <= 30  # 15 are expected; single Student intervals miss more than 60


def test_coarse_numbers_that_a_flip_makes_equal_have_bonferronis_intervals():
    rows = np.array([[1, 1, 1, 3, 3, 3], [1, 3, 1, 3, 1, 3]]) / 10
    half = stats.t.ppf(1 - 0.05 / 4, 5) * rows.std(axis=1, ddof=1) / math.sqrt(6)
    expected = rows.mean(axis=1)[:, None] + np.outer(half, [-1, 1])
    np.testing.assert_allclose(statistics.simultaneous(rows), expected)


def test_a_row_without_spread_has_an_interval_without_width():
    low, high = statistics.simultaneous([[0.5] * 6, [1, 2, 3, 4, 5, 6.0]]).T
    assert (low[0], high[0]) == (0.5, 0.5) and high[1] > 3.5 > low[1]


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert statistics.holm([0.04, 0.01, 0.03, 0.9]).tolist() == [
        pytest.approx(p) for p in (0.09, 0.04, 0.09, 0.9)
    ]  # fmt: skip
    assert statistics.holm([0.6, 0.7]).tolist() == [1, 1]


def test_a_conjunction_is_as_weak_as_its_weakest_row():
    rows = [SLEEP, np.array(SLEEP) - 1.3]
    assert statistics.conjunction_p(rows) == statistics.student_p(rows[1]) > 0.05


def test_equality_needs_both_one_sided_tests():
    row = np.array([0.1, -0.2, 0.3, 0.0, -0.1, 0.2])
    error = row.std(ddof=1) / math.sqrt(6)
    by_hand = stats.t.sf((0.5 - row.mean()) / error, 5)  # the nearer end of the margin
    assert statistics.equality_p(row, 0.5) == pytest.approx(by_hand) and by_hand < 0.05
    assert statistics.equality_p(row, 0.06) > 0.05
    assert statistics.equality_p(-row, 0.5) == pytest.approx(by_hand)
    # Equality at 5% is a 90% interval inside the margin.
    half = stats.t.ppf(0.95, 5) * error
    assert statistics.equality_p(row, row.mean() + half) == pytest.approx(0.05)


def test_the_smallest_detectable_difference_is_found_in_80_percent_of_simulations():
    # G*Power: 10 pairs find 0.996 deviations, 34 pairs 0.495, with 80% power.
    assert statistics.smallest_detectable(1.0, 10) == pytest.approx(0.996, abs=0.002)
    assert statistics.smallest_detectable(2.0, 34) == pytest.approx(2 * 0.4949, abs=0.002)
    rows = np.random.default_rng(0).normal(statistics.smallest_detectable(3.0, 6), 3, (5000, 6))
    found = stats.ttest_1samp(rows, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_few_and_many_seeds_have_a_detectable_difference():
    found = [statistics.smallest_detectable(1.0, seeds) for seeds in range(3, 60)]
    assert found == sorted(found, reverse=True) and np.isfinite(found).all()


def test_a_standard_deviation_over_few_values_is_unbiased():
    assert [round(statistics.c4(n), 4) for n in (2, 3, 4, 5, 10)] == [
        0.7979, 0.8862, 0.9213, 0.94, 0.9727,
    ]  # fmt: skip
    values = np.random.default_rng(0).normal(0, 2, (20_000, 2))
    assert np.mean([statistics.unbiased_std(pair) for pair in values]) == pytest.approx(2, 0.02)


def test_seeds_and_images_both_widen_an_interval():
    """Simulated accuracies: seeds, images and their noise with known deviations."""
    rng, missed, width = np.random.default_rng(0), 0, []
    for _ in range(300):
        values = rng.normal(0, 0.5, (8, 1)) + rng.normal(0, 2, (1, 60)) + rng.normal(0, 1, (8, 60))
        low, high = statistics.over_seeds_and_images(values)
        missed += not low < 0 < high
        width.append((high - low) / 2)
    assert 4 <= missed <= 30  # 15 are expected
    true = math.sqrt(0.5**2 / 8 + 2**2 / 60 + 1 / (8 * 60))
    assert np.mean(width) == pytest.approx(2.02 * true, rel=0.06)


def test_an_interval_over_seeds_and_images_by_hand():
    # Two seeds, three images; means 2 and 4 of seeds, 1, 3 and 5 of images, no residual.
    values = np.array([[0.0, 2, 4], [2, 4, 6]])
    low, high = statistics.over_seeds_and_images(values)
    squares = 3 * 2 + 2 * 4  # of seeds and of images
    freedom = squares**2 / (6**2 / 1 + 8**2 / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(squares / 6)
    assert (low, high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_without_effects_of_seeds_or_images_only_noise_is_left():
    values = np.array([[1.0, 0], [0, 1]])  # both mean squares are 0, the residual's is 1
    low, high = statistics.over_seeds_and_images(values)
    half = stats.t.ppf(0.975, 1) * math.sqrt(1 / 4)
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_churn_is_a_mean_over_pairs_of_runs():
    correct = np.random.default_rng(0).random((6, 50)) < 0.7
    pairs = [np.mean(a != b) for a, b in itertools.combinations(correct, 2)]
    assert statistics.churn(correct) == pytest.approx(np.mean(pairs))


def test_the_jackknife_of_a_mean_is_students_interval():
    row = np.array(SLEEP)
    found = statistics.jackknife(lambda index: row[index].mean(), len(row))
    assert found == pytest.approx(statistics.student(row))


def test_a_summary_has_an_interval_from_three_seeds_on():
    assert math.isnan(statistics.summary({})["measured"])
    assert math.isnan(statistics.summary({0: 1.0})["std"])
    two = statistics.summary({0: 1.0, 1: 3.0})
    assert (two["measured"], two["std"]) == (2, pytest.approx(math.sqrt(2)))
    assert math.isnan(two["low"]) and math.isnan(two["p"])
    three = statistics.summary({4: 1.03, 5: 1.85, 6: 1.80})  # Table 2's exploratory seeds
    assert [round(float(three[name]), 2) for name in ("measured", "low", "high", "p")] == [
        1.56, 0.42, 2.70, 0.25,
    ]  # fmt: skip
