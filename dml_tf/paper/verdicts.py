"""What measured differences say of a claim, by the rules of `results/cpu/PROTOCOL.md`."""

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence

import numpy as np

from dml_tf.paper import statistics
from dml_tf.paper.cells import Claim
from dml_tf.paper.statistics import FEWEST_SEEDS, LEVEL

Values = Mapping[int, float]  # seed -> paired difference


class Verdict(enum.StrEnum):
    """What one place says."""

    GAIN = "gain"
    LOSS = "loss"
    NO_CLEAR_GAIN = "no clear gain"
    EQUAL = "equal within the margin"
    DIFFERENCE = "difference"  # where the claim is that there is none
    NO_CLEAR_DIFFERENCE = "no clear difference"
    NO_VERDICT = "no verdict"
    NOT_RUN = "not run"


class Conclusion(enum.StrEnum):
    """What all places of a claim say together."""

    SHOWS = "Shows"
    REFUTED = "Refuted"
    OPPOSITE = "The opposite shows"
    DIFFERENCE = "A difference shows"
    NOT_CLEAR = "Not clear"
    NO_VERDICT = "No verdict"
    NOT_RUN = "Not run"


SAY_NOTHING = (Verdict.NOT_RUN, Verdict.NO_VERDICT)
# Verdict -> its words on the page, where the paper makes a claim.
IN_WORDS = {
    Verdict.GAIN: "as claimed",
    Verdict.LOSS: "against the claim",
    Verdict.NO_CLEAR_GAIN: "not clear",
    Verdict.EQUAL: "as claimed",
    Verdict.DIFFERENCE: "against the claim",
    Verdict.NO_CLEAR_DIFFERENCE: "not clear",
    Verdict.NO_VERDICT: "no verdict",
    Verdict.NOT_RUN: "not run",
}


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What was concluded of a claim.

    Attributes:
        conclusion: The verdict.
        pooled: `statistics.summary` of the mean over the places, seed by seed.
        places: The same of each place, in the claim's order, with its `verdict`. Of several places
            with six seeds, `low` and `high` are simultaneous intervals.
        planned: Number of seeds that must finish first; 0 if any six are enough.
        finished: Of how many of them all runs of the item have finished.
        decisive_p: The p that decided beside the interval: of a conjunction the largest one-sided
            p, of equality the larger one-sided p, else the sign flips'.
    """

    conclusion: Conclusion
    pooled: Mapping[str, float]
    places: Sequence[Mapping]
    planned: int = 0
    finished: int = 0
    decisive_p: float = math.nan

    @property
    def words(self) -> str:
        """The conclusion, or why there is none: `5 of 16 seeds: no verdict`."""
        if self.conclusion is not Conclusion.NO_VERDICT:
            return str(self.conclusion)
        count = min(self.pooled["seeds"], self.finished)
        if self.planned > max(count, 1):
            return f"{count} of {self.planned} seeds: no verdict"
        return "one seed: no verdict" if count == 1 else f"{count} seeds: no verdict"


def judge(
    claim: Claim, places: Sequence[Values], planned: int = 0, finished: int | None = None
) -> Judgement:
    """Judges a claim by the seeds that all of its places have.

    Args:
        claim: Whether it speaks of the mean, of each place, or of equality.
        places: Of each place, seed -> paired difference; empty where it was not run.
        planned: Number of seeds that must finish first; 0 if any six are enough.
        finished: Of how many of them all runs of the item have finished. Default: those that its
            places share.

    Returns:
        The judgement. Places that were not run are left out of the mean.

    Examples:
        >>> claim = Claim("4.2", "It gains", ())
        >>> judge(claim, [dict(enumerate([2.0, 1.0, 2.0, 3.0, 2.5, 1.5]))]).words
        'Shows'
        >>> judge(claim, [{0: 1.0, 1: 2.0}]).words
        '2 seeds: no verdict'
    """
    run = [values for values in places if values]
    seeds = sorted(set.intersection(*(set(values) for values in run))) if run else []
    rows = np.array([[values[seed] for seed in seeds] for values in run])
    mean = rows.mean(axis=0) if len(seeds) else []
    pooled = statistics.summary(dict(zip(seeds, mean, strict=True)))
    finished = len(seeds) if finished is None else finished
    is_enough = len(seeds) >= max(FEWEST_SEEDS, planned) and finished >= planned
    if not run:
        conclusion, p = Conclusion.NOT_RUN, math.nan
    elif not is_enough:
        conclusion, p = Conclusion.NO_VERDICT, math.nan
    else:
        conclusion, p = _conclude(claim, rows, pooled)
    each = _places(claim, places, seeds, is_enough)
    return Judgement(conclusion, pooled, each, planned, finished, p)


def single(values: Values) -> dict:
    """A difference of which nothing is claimed: its summary, and whether it is clear."""
    line = statistics.summary(values)
    if line["seeds"] < FEWEST_SEEDS:
        return line | {"verdict": Verdict.NO_VERDICT if line["seeds"] else Verdict.NOT_RUN}
    return line | {"verdict": _side(line)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean over seeds (`measured`), standard deviation (`std`) and number (`seeds`)."""
    line = statistics.summary(dict(enumerate(values)))
    return {name: line[name] for name in ("measured", "std", "seeds")}


def _conclude(
    claim: Claim, rows: np.ndarray, pooled: Mapping[str, float]
) -> tuple[Conclusion, float]:
    """The conclusion from enough seeds, and the p that decided."""
    if claim.margin:
        p = statistics.equality_p(rows.mean(axis=0), claim.margin)
        if p < LEVEL:
            return Conclusion.SHOWS, p
        differs = pooled["low"] > 0 or pooled["high"] < 0
        return (Conclusion.DIFFERENCE if differs else Conclusion.NOT_CLEAR), p
    if claim.useful and pooled["high"] < claim.useful:
        return Conclusion.REFUTED, pooled["p"]
    if claim.each:
        p = statistics.conjunction_p(rows)
        if p < LEVEL:
            return Conclusion.SHOWS, p
        loses = _holm_losses(rows).any() or _side(pooled) is Verdict.LOSS
        return (Conclusion.OPPOSITE if loses else Conclusion.NOT_CLEAR), p
    sides = {Verdict.GAIN: Conclusion.SHOWS, Verdict.LOSS: Conclusion.OPPOSITE}
    return sides.get(_side(pooled), Conclusion.NOT_CLEAR), pooled["p"]


def _side(line: Mapping[str, float]) -> Verdict:
    """On which side of zero both the interval and the sign flips see a mean."""
    if line["p"] >= LEVEL:
        return Verdict.NO_CLEAR_GAIN
    if line["low"] > 0:
        return Verdict.GAIN
    return Verdict.LOSS if line["high"] < 0 else Verdict.NO_CLEAR_GAIN


def _holm_losses(rows: np.ndarray) -> np.ndarray:
    """Whether each place is below zero, by two-sided p after Holm's correction."""
    p = [min(1.0, 2 * statistics.student_p(-row)) for row in rows]
    return (statistics.holm(p) < LEVEL) & (rows.mean(axis=1) < 0)


def _places(
    claim: Claim, places: Sequence[Values], seeds: Sequence[int], is_enough: bool
) -> list[dict]:
    """Each place's summary, interval and verdict; over the seeds of all places, if those decide."""
    if not is_enough:
        return [
            statistics.summary(values)
            | {"verdict": Verdict.NO_VERDICT if values else Verdict.NOT_RUN}
            for values in places
        ]
    shared = [{seed: values[seed] for seed in seeds} for values in places if values]
    rows = np.array([list(values.values()) for values in shared])
    judged = zip(shared, rows, statistics.simultaneous(rows), _holm_losses(rows), strict=True)
    run = iter([_place(claim, *place) for place in judged])
    not_run = statistics.summary({}) | {"verdict": Verdict.NOT_RUN}
    return [next(run) if values else dict(not_run) for values in places]


def _place(
    claim: Claim, values: Values, row: np.ndarray, interval: np.ndarray, loses: bool
) -> dict:
    line = statistics.summary(values)
    line["low"], line["high"] = interval
    is_apart = line["low"] > 0 or line["high"] < 0
    if claim.margin:
        is_equal = statistics.equality_p(row, claim.margin) < LEVEL
        differs = Verdict.DIFFERENCE if is_apart else Verdict.NO_CLEAR_DIFFERENCE
        return line | {"verdict": Verdict.EQUAL if is_equal else differs}
    if line["p"] < LEVEL and (loses or line["low"] > 0):
        return line | {"verdict": Verdict.LOSS if loses else Verdict.GAIN}
    return line | {"verdict": Verdict.NO_CLEAR_GAIN}
