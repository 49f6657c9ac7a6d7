"""Numbers, counts and conclusions as the page says them."""

import math
from collections.abc import Iterable, Mapping

from dml_tf.paper import cells
from dml_tf.paper.cells import Claim
from dml_tf.paper.statistics import FEWEST_SEEDS
from dml_tf.paper.verdicts import Judgement


def difference(line: Mapping[str, float], places: int) -> str:
    """A difference with its 95% interval, if it has one: `+1.20 [+0.30, +2.10]`."""
    middle, low, high = (line[name] for name in ("measured", "low", "high"))
    if math.isnan(middle):
        return ""
    if math.isnan(low):
        return signed(middle, places)
    return f"{signed(middle, places)} [{signed(low, places)}, {signed(high, places)}]"


def signed(value: float, places: int) -> str:
    """A number with its sign; below zero with a minus sign, not a hyphen."""
    return f"{value:+.{places}f}".replace("-", "\N{MINUS SIGN}")


def unit(metric: str) -> tuple[str, int]:
    """The unit of a metric's differences, and how many decimals are shown."""
    name = cells.unit(metric)
    return name, 4 if name == "nats" else 2


def span(numbers: Iterable[int]) -> str:
    """The least and the greatest of some numbers of seeds: `3`, `0 to 3` or `none`."""
    numbers = list(numbers)
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(map(str, ends)) if any(ends) else "none"


def count(number: int, what: str) -> str:
    """A number of things: `1 seed`, `3 seeds`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def signed_text(number: str) -> str:
    """A printed difference with its sign."""
    return f"{'' if number.startswith('-') else '+'}{number}".replace("-", "\N{MINUS SIGN}")


def pooled(line: Mapping[str, float], unit_name: str, places: int) -> str:
    """A difference with its interval, p and seeds."""
    words = f"{difference(line, places)} {unit_name}"
    if not math.isnan(line["p"]):
        words += f", p = {line['p']:.2g}"
    return f"{words}; {count(line['seeds'], 'seed')}"


def judged(claim: Claim, judgement: Judgement, where: str) -> str:
    """What was measured of a claim, and the smallest difference that the seeds could show."""
    run = sum(place["seeds"] > 0 for place in judgement.places)
    if not run:
        return "not run"
    name, places = unit(claim.contrasts[0].first.metric)
    line = judgement.pooled
    limit = -claim.contrasts[0].constant
    start = "Difference" if run == 1 else f"Mean of {run} places:"
    if limit:
        start = f"{start.removesuffix(':')} from the limit of {limit:g}:".replace("  ", " ")
    words = [f"{start} {pooled(line, name, places)}", where]
    if claim.each and line["seeds"] >= FEWEST_SEEDS:
        least = min(place["measured"] for place in judgement.places if place["seeds"])
        words.append(f"smallest place {signed(least, places)}")
    if claim.margin:
        words.append(f"equal if within {claim.margin:g}")
    if not math.isnan(line["detectable"]):
        words.append(f"{line['detectable']:.{places}f} {name} could have been shown (80% power)")
    return "; ".join(words)


def opening(claim: Claim, judgement: Judgement, where: str, is_exploratory: bool = False) -> str:
    """The primary comparison in one sentence: what showed, with the gain and its interval."""
    verdicts = {
        "Shows": "the mean of Table 2's places gains from mutual learning",
        "Refuted": f"a gain of {claim.useful:g} points from mutual learning is refuted",
        "Not clear": "it is not clear whether mutual learning gains",
    }
    first = "Exploratory runs: on" if is_exploratory else "On"
    if judgement.words not in verdicts:
        change = difference(judgement.pooled, 2)
        return (
            f"{first} {where}, mutual learning changed the mean accuracy of Table 2's places by "
            f"{change} points ({judgement.words})."
        )
    ends = verdicts[judgement.words]
    return f"{first} {where}, {ends}: {pooled(judgement.pooled, 'points', 2)}."
