"""The forest plot: all claims that were run, each with its difference and interval on one axis.

Positions are percentages of an axis, so that the plot fits any screen and its text keeps its size.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

from matplotlib.ticker import MaxNLocator

from dml_tf.paper import wording
from dml_tf.paper.page.claims import Judged
from dml_tf.paper.verdicts import Conclusion

# Start of a metric's name -> what its differences are of; of anything else: _CORRECT.
_MEASURED = {
    "train.entropy": "nats of posterior entropy",
    "train.cross_entropy": "nats of training loss",
    "noise.": "nats of training loss",
    "filter_noise.": "nats of training loss",
    "relative_noise.": "times the training loss without noise",
    "mass.": "points of posterior mass",
    "same_peer": "points of features whose nearest is of the same network",
}
_CORRECT = "points of accuracy, mAP or rank-1"
# An end so many times as far from zero as the median claim's is off the axis.
_FAR = 4.0
_ROOM = 0.05  # of the axis, at each end


def groups(claims: Sequence[Judged]) -> list[dict]:
    """The claims by what their differences measure, each group with an axis of its own.

    Args:
        claims: Claims that were run.

    Returns:
        For each group: `title`, `ticks` with `x` and `text`, `zero`, and `rows`.
    """
    by_title: dict[str, list[Judged]] = {}
    for found in sorted(claims, key=lambda found: not found.is_primary):
        by_title.setdefault(_title(found.claim.contrasts[0].first.metric), []).append(found)
    return [_group(title, members) for title, members in by_title.items()]


def _title(metric: str) -> str:
    named = (title for start, title in _MEASURED.items() if metric.startswith(start))
    return next(named, _CORRECT)


def _group(title: str, members: Sequence[Judged]) -> dict:
    low, high = _ends(members)
    ticks = [
        tick
        for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        if low <= tick <= high
    ]

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "title": title,
        "ticks": [{"x": place(tick), "text": _short(tick)} for tick in ticks],
        "zero": place(0.0),
        "rows": [_row(found, place) for found in members],
    }


def _ends(members: Sequence[Judged]) -> tuple[float, float]:
    """Where a group's axis begins and ends: around zero and all numbers but those far off."""
    numbers = [_numbers(found) for found in members]
    far = _FAR * statistics.median(max(map(abs, own)) for own in numbers)
    near = [value for value in (0.0, *itertools.chain(*numbers)) if abs(value) <= far]
    low, high = min(near), max(near)
    room = _ROOM * (high - low or 1.0)
    return low - room, high + room


def _numbers(found: Judged) -> list[float]:
    """What a claim's row shows: its interval, or its mean without one, its places, its margin."""
    line = found.judgement.pooled
    ends = [line["measured"] if math.isnan(line["low"]) else line[end] for end in ("low", "high")]
    return [*ends, *_means(found), found.claim.margin, -found.claim.margin]


def _row(found: Judged, place: Callable[[float], float]) -> dict:
    line, claim = found.judgement.pooled, found.claim
    _, digits = wording.unit(claim.contrasts[0].first.metric)
    low, middle, high = (place(line[name]) for name in ("low", "measured", "high"))
    has_interval = not math.isnan(low)
    is_decided = found.judgement.conclusion is not Conclusion.NO_VERDICT
    notes = [wording.count(line["seeds"], "seed")] if is_decided else []
    notes += ["on generated pictures"] if found.on_generated else []
    return {
        "found": found,
        "is_decided": is_decided,
        "notes": notes,
        "numbers": wording.difference(line, digits),
        "interval": {"low": max(low, 0.0), "high": min(high, 100.0)} if has_interval else None,
        "middle": middle if 0 <= middle <= 100 else None,
        "leaves_left": min(low, middle) < 0 if has_interval else middle < 0,
        "leaves_right": max(high, middle) > 100 if has_interval else middle > 100,
        "margin": {"low": place(-claim.margin), "width": place(claim.margin) - place(-claim.margin)}
        if claim.margin
        else None,
        "places": [x for x in map(place, _means(found)) if 0 <= x <= 100],
    }


def _means(found: Judged) -> list[float]:
    """The means of a claim's places, if it has several."""
    means = [place["measured"] for place in found.judgement.places if place["seeds"]]
    return means if len(means) > 1 else []


def _short(number: float) -> str:
    """A number at a tick: `+0.5`, and `0` without a sign."""
    text = f"{number:+g}" if abs(number) > 1e-12 else "0"
    return text.replace("-", "\N{MINUS SIGN}")
