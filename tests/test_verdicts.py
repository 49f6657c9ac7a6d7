"""Verdicts on made-up differences with known answers, by the rules of results/cpu/PROTOCOL.md."""

import math

import pytest

from dml_tf.paper import wording
from dml_tf.paper.cells import Cell, Claim, Contrast
from dml_tf.paper.verdicts import Conclusion, Verdict, judge, single

CELL = Cell("table2", "CIFAR-10", "row", "column", "accuracy")
PLACE = Contrast("row", "column", ((CELL, 1.0),))


def claim(**how):
    return Claim("4.2", "It gains", (PLACE,), **how)


def seeds(*values, first=0):
    return dict(enumerate(values, first))


GAINS = seeds(1.0, 1.2, 0.8, 1.1, 0.9, 1.0)
NOISE = seeds(1.0, -1.2, 0.8, -1.1, 0.9, -0.4)
LOSES = {seed: -value for seed, value in GAINS.items()}


@pytest.mark.parametrize(
    ("places", "how", "expected"),
    [
        ([GAINS], {}, Conclusion.SHOWS),
        ([NOISE], {}, Conclusion.NOT_CLEAR),
        ([LOSES], {}, Conclusion.OPPOSITE),
        ([GAINS, NOISE], {}, Conclusion.NOT_CLEAR),
        ([GAINS, GAINS, NOISE, {}], {}, Conclusion.SHOWS),  # the mean over what was run
        ([GAINS, GAINS, NOISE], {"each": True}, Conclusion.NOT_CLEAR),
        ([GAINS, GAINS], {"each": True}, Conclusion.SHOWS),
        ([GAINS, LOSES], {"each": True}, Conclusion.OPPOSITE),  # a loss after Holm
        ([GAINS, LOSES], {}, Conclusion.NOT_CLEAR),
        ([GAINS], {"margin": 1.5}, Conclusion.SHOWS),
        ([GAINS], {"margin": 0.5}, Conclusion.DIFFERENCE),
        ([NOISE], {"margin": 0.5}, Conclusion.NOT_CLEAR),
        ([GAINS], {"useful": 0.5}, Conclusion.SHOWS),
        ([GAINS], {"useful": 1.5}, Conclusion.REFUTED),
        ([LOSES], {"useful": 0.5}, Conclusion.REFUTED),
        ([{}, {}], {}, Conclusion.NOT_RUN),
    ],
)
def test_a_claim_is_judged_by_its_rule(places, how, expected):
    assert judge(claim(**how), places).conclusion is expected


def test_the_mean_over_places_is_taken_in_each_seed():
    first, second = seeds(1, 2, 3, 4, 5, 6), seeds(3, 2, 1, 0, -1, -2)
    pooled = judge(claim(), [first, second]).pooled
    assert (pooled["measured"], pooled["std"]) == (2, 0)  # each place alone varies by 1.9


def test_only_seeds_that_all_places_have_are_used():
    pooled = judge(claim(), [GAINS, {seed: 1.0 for seed in range(2, 12)}]).pooled
    assert pooled["seeds"] == 4


@pytest.mark.parametrize(
    ("count", "planned", "words"),
    [
        (1, 0, "one seed: no verdict"),
        (1, 1, "one seed: no verdict"),
        (5, 0, "5 seeds: no verdict"),
        (5, 16, "5 of 16 seeds: no verdict"),
        (15, 16, "15 of 16 seeds: no verdict"),
        (6, 0, "Shows"),
        (16, 16, "Shows"),
    ],
)
def test_too_few_or_unfinished_seeds_give_no_verdict(count, planned, words):
    values = {seed: 1 + 0.01 * seed for seed in range(count)}
    judged = judge(claim(), [values], planned)
    assert judged.words == words
    (place,) = judged.places
    assert place["verdict"] == (Verdict.GAIN if words == "Shows" else Verdict.NO_VERDICT)


def test_a_claim_waits_for_the_runs_of_its_item_that_it_does_not_need():
    values = {seed: 1 + 0.01 * seed for seed in range(8)}
    assert judge(claim(), [values], planned=8, finished=8).words == "Shows"
    judged = judge(claim(), [values], planned=8, finished=3)
    assert judged.words == "3 of 8 seeds: no verdict"
    assert judged.pooled["seeds"] == 8  # what was measured is shown


def test_a_single_place_loses_only_after_holm():
    # Alone its two-sided p is 0.02; of twelve places it is the only loss.
    weak = seeds(-0.2, -1.8, -1.0, -2.2, -0.1, -1.4)
    assert judge(claim(), [weak]).places[0]["verdict"] is Verdict.LOSS
    places = judge(claim(each=True), [GAINS] * 11 + [weak]).places
    assert places[-1]["verdict"] is Verdict.NO_CLEAR_GAIN
    assert places[0]["verdict"] is Verdict.GAIN


def test_intervals_of_several_places_are_simultaneous():
    alone = judge(claim(), [NOISE]).places[0]
    together = judge(claim(), [NOISE, GAINS, LOSES]).places[0]
    assert together["low"] < alone["low"] and together["high"] > alone["high"]


def test_a_difference_without_a_claim_has_an_interval_and_a_side():
    assert single(GAINS)["verdict"] is Verdict.GAIN
    assert single(seeds(1.0, 2.0))["verdict"] is Verdict.NO_VERDICT
    assert math.isnan(single({})["measured"]) and single({})["verdict"] is Verdict.NOT_RUN


def test_beside_a_verdict_stands_what_its_seeds_could_have_shown():
    judged = judge(claim(), [NOISE])
    words = wording.judged(claim(), judged, "digits")
    assert words.startswith("Difference +0.00 [")
    assert words.endswith(f"{judged.pooled['detectable']:.2f} points could have been shown "
                          "(80% power)")  # fmt: skip
    assert "equal if within 0.5" in wording.judged(claim(margin=0.5), judged, "digits")
