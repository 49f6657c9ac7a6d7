"""How the measured tables of the Markdown files are set."""

from collections.abc import Mapping, Sequence

import numpy as np


def markdown(rows: Sequence[Mapping]) -> str:
    """Rows as a Markdown table, columns named by the first row's keys."""
    if not rows:
        return "No run has finished yet."
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def interval(line: Mapping, places: int = 2) -> str:
    """A difference with its 95% interval, if there is one."""
    if np.isnan(line["measured"]):
        return ""
    shown = f"{line['measured']:+.{places}f}"
    if np.isnan(line["low"]):
        return f"{shown} [too few seeds]"
    return f"{shown} [{line['low']:+.{places}f}, {line['high']:+.{places}f}]"


def mean_and_spread(values: Sequence[float], places: int = 2) -> str:
    """Mean ± standard deviation over seeds; the mean alone of one seed."""
    if not len(values):
        return ""
    mean = f"{np.mean(values):.{places}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{places}f}"
