"""The forest plot: places on an axis, by hand."""

import numpy as np
import pytest

from dml_tf.paper import verdicts
from dml_tf.paper.cells import Cell, Claim, Contrast, Item
from dml_tf.paper.page import forest
from dml_tf.paper.page.claims import Judged


def judged(text, *places, metric="accuracy", **more):
    """A claim with a place for each list of differences."""
    lines = tuple(
        Contrast("row", str(k), ((Cell("item", "CIFAR-10", "row", str(k), metric), 1.0),))
        for k in range(len(places))
    )
    claim = Claim("4.2", text, lines, **more)
    judgement = verdicts.judge(claim, [dict(enumerate(values)) for values in places])
    return Judged(Item("item", "Item", "title", lines, (claim,)), claim, judgement, ("d",), False)


def around(mean, count=6):
    return mean + np.resize([-0.1, 0.1], count)


def values(group):
    """Maps a place on a group's axis back to a difference."""
    ticks = [tick for tick in group["ticks"] if tick["text"] != "0"]
    number = float(ticks[-1]["text"].replace("\N{MINUS SIGN}", "-"))
    return lambda x: number * (x - group["zero"]) / (ticks[-1]["x"] - group["zero"])


def test_places_on_the_axis_are_the_numbers():
    first, second = judged("a", around(2.0), around(1.0)), judged("b", around(-1.0))
    (group,) = forest.groups([first, second])
    back = values(group)
    for row, found in zip(group["rows"], (first, second), strict=True):
        line = found.judgement.pooled
        assert back(row["middle"]) == pytest.approx(line["measured"], abs=1e-3)
        assert back(row["interval"]["low"]) == pytest.approx(line["low"], abs=1e-3)
        assert back(row["interval"]["high"]) == pytest.approx(line["high"], abs=1e-3)
        assert not row["leaves_left"] and not row["leaves_right"]
    assert [back(x) for x in group["rows"][0]["places"]] == pytest.approx([2, 1], abs=1e-3)
    assert group["rows"][1]["places"] == []  # one place is the mean itself
    assert group["rows"][0]["numbers"].startswith("+1.50 [+1.")


def test_a_claim_far_off_does_not_squeeze_the_others():
    near = [judged(str(k), around(1.0 + 0.1 * k)) for k in range(4)]
    for mean, side, other in ((40.0, "leaves_right", "leaves_left"),
                              (-40.0, "leaves_left", "leaves_right")):  # fmt: skip
        (group,) = forest.groups([*near, judged("far", around(mean))])
        *rows, far = group["rows"]
        assert far[side] and not far[other] and far["middle"] is None
        assert far["numbers"].startswith("+40" if mean > 0 else "\N{MINUS SIGN}40")
        assert rows[0]["middle"] - group["zero"] > 40


def test_units_have_axes_of_their_own():
    found = [judged("a", around(1.0)), judged("b", around(0.01), metric="train.entropy"),
             judged("c", around(50.0), metric="same_peer")]  # fmt: skip
    groups = forest.groups(found)
    assert [group["title"].partition(" ")[0] for group in groups] == ["points", "nats", "points"]
    assert all(len(group["rows"]) == 1 and len(group["ticks"]) > 1 for group in groups)


def test_one_seed_has_no_interval_and_a_margin_is_a_band_around_zero():
    (group,) = forest.groups([judged("a", [0.3]), judged("b", around(0.1), margin=0.5)])
    one, equal = group["rows"]
    assert one["interval"] is None and not one["is_decided"] and one["margin"] is None
    back, band = values(group), equal["margin"]
    assert equal["is_decided"]
    assert back(band["low"]) == pytest.approx(-0.5, abs=1e-3)
    assert back(band["low"] + band["width"]) == pytest.approx(0.5, abs=1e-3)


def test_differences_of_zero_still_have_an_axis():
    (group,) = forest.groups([judged("a", [0.0])])
    assert group["rows"][0]["middle"] == group["zero"] == 50
