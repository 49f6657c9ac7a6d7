"""What measured differences say of the paper's claims: intervals, verdicts, conclusions."""

import enum
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats


class Verdict(enum.StrEnum):
    """What the interval of one comparison says."""

    GAIN = "gain"
    LOSS = "loss"
    NO_CLEAR_GAIN = "no clear gain"
    DIFFERENCE = "difference"  # where the claim is that there is none
    NO_CLEAR_DIFFERENCE = "no clear difference"
    TOO_FEW_SEEDS = "too few seeds to say"
    NOT_RUN = "not run"


class Conclusion(enum.StrEnum):
    """What all comparisons of a claim say together."""

    SHOWS = "Shows"
    IN_PART = "Shows in part"
    MIXED = "Mixed"
    OPPOSITE = "The opposite shows"
    NOT_CLEAR = "Not clear"
    DIFFERENCE = "A difference shows"
    NO_CLEAR_DIFFERENCE = "No clear difference"
    TOO_FEW_SEEDS = "Too few seeds to say"
    NOT_RUN = "Not run"


SAY_NOTHING = (Verdict.NOT_RUN, Verdict.TOO_FEW_SEEDS)
# Verdict -> its words on the page, where the paper makes a claim.
IN_WORDS = {
    Verdict.GAIN: "as claimed",
    Verdict.LOSS: "against the claim",
    Verdict.NO_CLEAR_GAIN: "not clear",
    Verdict.DIFFERENCE: "against the claim",
    Verdict.NO_CLEAR_DIFFERENCE: "no clear difference",
    Verdict.TOO_FEW_SEEDS: "too few seeds",
    Verdict.NOT_RUN: "not run",
}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean over seeds (`measured`), standard deviation (`std`) and number (`seeds`)."""
    return {
        "measured": np.mean(values) if len(values) else math.nan,
        "std": np.std(values, ddof=1) if len(values) > 1 else math.nan,
        "seeds": len(values),
    }


def contrast(
    terms: Sequence[tuple[Mapping[int, float], float]], constant: float = 0.0
) -> dict[str, float]:
    """A weighted sum of settings, over the seeds that all of them have.

    Args:
        terms: For each setting, seed -> value, and its weight.
        constant: Added to each sum.

    Returns:
        `measured`, the mean; `std`; `seeds`; and from three seeds on `low` and `high`, the 95%
        interval by Student's t.

    Examples:
        >>> line = contrast([({0: 3.0, 1: 5.0, 2: 4.0}, 1), ({0: 1.0, 1: 2.0, 2: 3.0}, -1)])
        >>> [round(float(line[name]), 2) for name in ("measured", "std", "low", "high")]
        [2.0, 1.0, -0.48, 4.48]
    """
    shared = set.intersection(*(set(values) for values, _ in terms))
    line = spread(
        [constant + sum(w * values[seed] for values, w in terms) for seed in sorted(shared)]
    )
    line["low"] = line["high"] = math.nan
    if line["seeds"] >= 3:
        half = stats.t.ppf(0.975, line["seeds"] - 1) * line["std"] / math.sqrt(line["seeds"])
        line["low"], line["high"] = line["measured"] - half, line["measured"] + half
    return line


def verdict(line: Mapping[str, float], equal: bool = False) -> Verdict:
    """What a contrast's interval says.

    Args:
        line: As `contrast` returns it.
        equal: Whether the claim is that there is no difference.

    Returns:
        Whether the interval is on one side of zero; or why nothing can be said.
    """
    if not line["seeds"]:
        return Verdict.NOT_RUN
    if line["seeds"] < 3:
        return Verdict.TOO_FEW_SEEDS
    if line["low"] > 0:
        return Verdict.DIFFERENCE if equal else Verdict.GAIN
    if line["high"] < 0:
        return Verdict.DIFFERENCE if equal else Verdict.LOSS
    return Verdict.NO_CLEAR_DIFFERENCE if equal else Verdict.NO_CLEAR_GAIN


def judge(verdicts: Iterable[str]) -> Conclusion:
    """What the comparisons of a claim say together; those that say nothing are left out.

    Examples:
        >>> str(judge(["gain", "no clear gain", "not run"]))
        'Shows in part'
    """
    verdicts = set(verdicts)
    saying = verdicts - set(SAY_NOTHING)
    if not saying:
        few = Verdict.TOO_FEW_SEEDS in verdicts
        return Conclusion.TOO_FEW_SEEDS if few else Conclusion.NOT_RUN
    if Verdict.DIFFERENCE in saying:
        return Conclusion.DIFFERENCE
    if Verdict.NO_CLEAR_DIFFERENCE in saying:
        return Conclusion.NO_CLEAR_DIFFERENCE
    if Verdict.LOSS in saying:
        return Conclusion.MIXED if Verdict.GAIN in saying else Conclusion.OPPOSITE
    if Verdict.GAIN not in saying:
        return Conclusion.NOT_CLEAR
    return Conclusion.SHOWS if saying == {Verdict.GAIN} else Conclusion.IN_PART
