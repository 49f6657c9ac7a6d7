"""An item's tables and comparisons, as the page shows them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from dml_tf.paper import wording
from dml_tf.paper.cells import Contrast, Item, Line
from dml_tf.paper.page.claims import KIND, Judged
from dml_tf.paper.tables import Status
from dml_tf.paper.verdicts import IN_WORDS, SAY_NOTHING


def tables(item: Item, frame: pd.DataFrame, here: Callable[[str, str], str]) -> Iterator[dict]:
    """A table for each of the paper's data sets: its rows and columns, and what ran here.

    Args:
        item: The table or figure.
        frame: Its lines, as `paper.tables.table` gives them.
        here: Tells what an item ran on in a data set's place.
    """
    reach = _reach(frame[frame.low.notna()])
    lines = zip(item.lines, frame.iterrows(), strict=True)
    cells = {(v["dataset"], v.row, v.column): _cell(line, v, reach) for line, (_, v) in lines}
    for dataset, part in frame.groupby("dataset", sort=False):
        columns = list(part.column.unique())
        yield {
            "dataset": dataset,
            # Table 1 has the paper's own networks, which need no data.
            "here": "" if item.name == "table1" else here(item.name, dataset),
            "is_run": bool(part.seeds.any()),
            "columns": columns,
            "rows": [
                {
                    "name": row,
                    "seeds": wording.span(values.seeds),
                    "cells": [cells.get((dataset, row, column)) for column in columns],
                }
                for row, values in part.groupby("row", sort=False)
            ],
        }


def comparisons(found: Judged, printed: Callable[[str, str], str]) -> list[dict]:
    """The comparisons of a claim that are no lines of its item's table; none if nothing ran.

    Args:
        found: The claim.
        printed: Tells the name of the data that an item ran on in a data set's place.
    """
    shown = [
        (line, place)
        for line, place in zip(found.claim.contrasts, found.judgement.places, strict=True)
        if line not in found.item.lines
    ]
    return list(_compared(shown, printed)) if shown and found.is_run else []


def _compared(
    shown: Sequence[tuple[Contrast, Mapping]], printed: Callable[[str, str], str]
) -> Iterator[dict]:
    reach = _reach(pd.DataFrame([place for _, place in shown]))
    for compared, place in shown:
        line, first = pd.Series(place), compared.first
        _, places = wording.unit(first.metric)
        yield {
            "name": f"{compared.row}: {compared.column}",
            "here": printed(first.item, first.dataset),
            "seeds": line.seeds,
            "difference": wording.difference(line, places),
            "interval": _interval(line, reach),
            "words": IN_WORDS[line.verdict],
            "kind": KIND[line.verdict],
        }


def _cell(line: Line, values: pd.Series, reach: float) -> dict:
    """A cell of an item's table: what was measured, how it compares, what the paper prints."""
    _, places = wording.unit(values["metric"])
    show = _contrast if isinstance(line, Contrast) else _number
    cell = {"interval": None, "words": "", "kind": "", **show(values, places, reach)}
    if not values["seeds"]:
        cell["measured"] = ""
    if not values["paper"]:
        cell["paper"] = ""
    return cell


def _contrast(values: pd.Series, places: int, reach: float) -> dict:
    cell = {
        "measured": wording.difference(values, places),
        "interval": _interval(values, reach),
        "paper": wording.signed_text(values["paper"]),
    }
    # 'Gain' is a word for what the paper claims, not for any difference.
    if values["claim"] or values["verdict"] in SAY_NOTHING:
        cell |= {"words": IN_WORDS[values["verdict"]], "kind": KIND[values["verdict"]]}
    return cell


def _number(values: pd.Series, places: int, _: float) -> dict:
    is_size = values["metric"] == "millions"
    spread = "" if math.isnan(values["std"]) else f" ± {values['std']:.{places}f}"
    is_silent = values["verdict"] in (Status.STAND_IN, Status.NOT_PRINTED)
    return {
        "measured": f"{values['measured']:.{places}f}{spread}" + (" M" if is_size else ""),
        "paper": f"{values['paper']} M" if is_size else values["paper"],
        "words": "" if is_silent else values["status"],
        "kind": KIND.get(values["verdict"], ""),
    }


def _interval(line, reach: float) -> dict[str, float] | None:
    """Where to draw an interval on an axis from 0 to 100 with zero at 50; None without one."""
    if math.isnan(line.low):
        return None
    ends = {"low": line.low, "middle": line.measured, "high": line.high}
    return {name: 50 + 46 * value / (reach or 1) for name, value in ends.items()}


def _reach(lines: pd.DataFrame) -> float:
    """The greatest distance of some intervals' ends from zero."""
    return lines[["low", "high"]].abs().max().max()
