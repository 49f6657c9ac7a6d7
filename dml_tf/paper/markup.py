"""The report's small parts: numbers, cells and tables as HTML."""

import inspect
import math
from collections.abc import Iterable

import pandas as pd

from dml_tf.paper import items as experiments
from dml_tf.paper import tables
from dml_tf.paper.items import Contrast, Line

NOTHING = ("not run", "too few seeds to say")  # verdicts that say nothing
# A comparison's verdict -> how the page says it, and its class.
SAID = {
    "gain": ("as claimed", "good"),
    "loss": ("against the claim", "bad"),
    "no clear gain": ("not clear", "soft"),
    "difference": ("against the claim", "bad"),
    "no clear difference": ("no clear difference", "soft"),
    "too few seeds to say": ("too few seeds", "soft"),
    "not run": ("not run", "soft"),
}
_STATUS = {"reproduced": "good", "differs": "bad"}  # a number's status -> its class


def cell(line: Line, values: pd.Series, reach: float) -> str:
    """What was measured, how it compares, and what the paper prints, one below the other.

    Args:
        line: The declared line.
        values: What `tables.table` has of it.
        reach: Half of the axis that intervals are drawn on.

    Returns:
        HTML.
    """
    _, places = unit(values["metric"])
    status = values["status"].removeprefix("stand-in").removeprefix(": ")
    if isinstance(line, Contrast):
        measured = difference(values, places) + drawn(values, reach)
        paper = signed(values["paper"], places)
        # 'Gain' is a word for what the paper claims, not for any difference.
        words, kind = SAID[status] if values["claim"] or status in NOTHING else ("", "")
    else:
        million = " M" if values["metric"] == "millions" else ""
        spread = "" if math.isnan(values["std"]) else f" ± {values['std']:.{places}f}"
        measured = f"{values['measured']:.{places}f}{spread}{million}"
        paper = f"{values['paper']:.1f} M" if million else f"{values['paper']:.{places}f}"
        words, kind = status.removeprefix("not printed"), _STATUS.get(status, "")
    return (
        (measured if values["seeds"] else "")
        + (f'<small class="{kind}">{words}</small>' if words else "")
        + ("" if math.isnan(values["paper"]) else f"<small>paper {paper}</small>")
    )


def drawn(line, reach: float) -> str:
    """An interval on an axis with zero in its middle; the numbers stand beside it.

    Args:
        line: Something with `measured`, `low` and `high`.
        reach: Half of the axis.

    Returns:
        A small picture as SVG, nothing without an interval.
    """
    if math.isnan(line.low):
        return ""
    low, middle, high = (50 + 46 * v / (reach or 1) for v in (line.low, line.measured, line.high))
    return (
        '<svg width="100" height="18" aria-hidden="true">'
        '<path d="M50 1V17" stroke="#8a94a3" stroke-dasharray="2 2"/>'
        f'<path d="M{low:.1f} 9H{high:.1f}" stroke="#0072b2" stroke-width="2.5"/>'
        f'<circle cx="{middle:.1f}" cy="9" r="3.5" fill="#0072b2"/></svg>'
    )


def reach_of(lines: pd.DataFrame) -> float:
    """How far the intervals of some lines go from zero.

    Args:
        lines: With columns `low` and `high`.

    Returns:
        The greatest distance.
    """
    return lines[["low", "high"]].abs().max().max()


def box(frame: pd.DataFrame, kind: str = "") -> str:
    """A table in a box of its own, which scrolls where the table is wider than the page.

    Args:
        frame: Cells and column names in HTML; the first column heads the rows.
        kind: A class for its style.

    Returns:
        HTML.
    """
    frame = frame.set_index(frame.columns[0]).rename_axis(index=None, columns=frame.columns[0])
    table = frame.to_html(escape=False, border=0, classes=kind or None)
    return f'<div class="scroll" tabindex="0">{table}</div>'


def difference(line, places: int) -> str:
    """A difference with its 95% interval, if it has one.

    Args:
        line: Something with `measured`, `low` and `high`.
        places: Decimals.

    Returns:
        Such as `+1.20 [+0.30, +2.10]`; nothing where nothing was measured.
    """
    if math.isnan(line.measured):
        return ""
    if math.isnan(line.low):
        return signed(line.measured, places)
    ends = f"[{signed(line.low, places)}, {signed(line.high, places)}]"
    return f"{signed(line.measured, places)} {ends}"


def signed(value: float, places: int) -> str:
    """A number with its sign.

    Args:
        value: The number.
        places: Decimals.

    Returns:
        Such as `+1.20`; below zero with a minus sign, not a hyphen.
    """
    return f"{value:+.{places}f}".replace("-", "\N{MINUS SIGN}")


def unit(metric: str) -> tuple[str, int]:
    """What a measure's differences are counted in.

    Args:
        metric: A cell's.

    Returns:
        The unit, and how many decimals are shown.
    """
    return ("nats", 4) if tables.in_nats(metric) else ("points", 2)


def span(numbers: Iterable[int]) -> str:
    """The least and the greatest of some numbers of seeds.

    Args:
        numbers: At least one.

    Returns:
        Such as `3`, `0 to 3` or `none`.

    Example:
        >>> span([3, 1, 2])
        '1 to 3'
    """
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(map(str, ends)) if any(ends) else "none"


def count(number: int, what: str) -> str:
    """A number of things.

    Args:
        number: How many.
        what: One of them.

    Returns:
        Such as `3 seeds`.
    """
    return f"{number} {what}" + ("" if number == 1 else "s")


def title(item: str) -> str:
    """An item's heading: the first line of its declaration.

    Args:
        item: Name of a table or figure.

    Returns:
        Such as `Table 1: the networks' sizes, which need no training`.
    """
    return inspect.getdoc(experiments.ITEMS[item]).splitlines()[0].rstrip(".")


def short(item: str) -> str:
    """An item's name as the paper has it.

    Args:
        item: Name of a table or figure.

    Returns:
        Such as `Table 1`.
    """
    return title(item).partition(":")[0]
