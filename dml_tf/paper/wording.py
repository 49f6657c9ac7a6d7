"""Numbers and counts as the page says them."""

import math
from collections.abc import Iterable

from dml_tf.paper.cells import in_nats


def difference(line, places: int) -> str:
    """A difference with its 95% interval, if it has one: `+1.20 [+0.30, +2.10]`."""
    if math.isnan(line.measured):
        return ""
    if math.isnan(line.low):
        return signed(line.measured, places)
    ends = f"[{signed(line.low, places)}, {signed(line.high, places)}]"
    return f"{signed(line.measured, places)} {ends}"


def signed(value: float, places: int) -> str:
    """A number with its sign; below zero with a minus sign, not a hyphen."""
    return f"{value:+.{places}f}".replace("-", "\N{MINUS SIGN}")


def unit(metric: str) -> tuple[str, int]:
    """The unit of a metric's differences, and how many decimals are shown."""
    return ("nats", 4) if in_nats(metric) else ("points", 2)


def span(numbers: Iterable[int]) -> str:
    """The least and the greatest of some numbers of seeds: `3`, `0 to 3` or `none`."""
    numbers = list(numbers)
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(map(str, ends)) if any(ends) else "none"


def count(number: int, what: str) -> str:
    """A number of things: `1 seed`, `3 seeds`."""
    return f"{number} {what}" + ("" if number == 1 else "s")
