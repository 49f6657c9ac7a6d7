"""The paper's claims, as the records of one scale judge them."""

from pathlib import Path
from typing import NamedTuple

from dml_tf.data import GENERATED_DATASETS
from dml_tf.paper import items as paper_items
from dml_tf.paper import over_seeds, tables, wording
from dml_tf.paper.cells import Claim, Item
from dml_tf.paper.items.tables import PRIMARY
from dml_tf.paper.scales import Scale
from dml_tf.paper.verdicts import SAY_NOTHING, Conclusion, Judgement, Verdict

# Conclusion, verdict or status -> its class in page.css.
KIND = {
    tables.Status.REPRODUCED: "good",
    tables.Status.DIFFERS: "bad",
    Verdict.GAIN: "good",
    Verdict.LOSS: "bad",
    Verdict.EQUAL: "good",
    Verdict.DIFFERENCE: "bad",
    **dict.fromkeys((Verdict.NO_CLEAR_GAIN, Verdict.NO_CLEAR_DIFFERENCE, *SAY_NOTHING), "soft"),
    Conclusion.SHOWS: "shows",
    Conclusion.OPPOSITE: "against",
    Conclusion.REFUTED: "against",
    Conclusion.DIFFERENCE: "against",
}


class Judged(NamedTuple):
    """A claim, what was concluded, and on which pictures.

    Attributes:
        item: The table or figure that shows it.
        claim: What the paper says.
        judgement: What the records say.
        data: The printed names of the data sets on which its places ran.
        on_generated: Whether all of those are generated.
    """

    item: Item
    claim: Claim
    judgement: Judgement
    data: tuple[str, ...]
    on_generated: bool

    @property
    def is_run(self) -> bool:
        """Whether any of its places ran."""
        return self.judgement.pooled["seeds"] > 0

    @property
    def is_primary(self) -> bool:
        """Whether it is the one comparison that the page opens with."""
        return self.claim.text == PRIMARY

    @property
    def kind(self) -> str:
        """Its class in page.css; generated pictures are no evidence."""
        return "" if self.on_generated else KIND.get(self.judgement.conclusion, "")

    @property
    def where(self) -> str:
        """Where the paper says so: `Sec. 4.2, Table 2`."""
        return ", ".join(dict.fromkeys((f"Sec. {self.claim.section}", self.item.short)))

    @property
    def measured(self) -> str:
        """What was measured, in words."""
        return wording.judged(self.claim, self.judgement, ", ".join(self.data))


def judged(scale: Scale, folder: Path) -> list[Judged]:
    """All claims of a scale, in the order of the paper's sections."""
    return [
        _judge(item, claim, scale, folder)
        for item, claim in paper_items.claims()
        if scale.has(item.name)
    ]


def opening(scale: Scale, folder: Path) -> str:
    """What the records of a scale show, in one sentence."""
    if scale.is_study:
        return "This is an exploratory comparison: it decides nothing."
    claims = paper_items.claims()
    item, claim = next(found for found in claims if found[1].text == PRIMARY)
    primary = _judge(item, claim, scale, folder)
    if not primary.is_run:
        return f"{item.short} was not run, so that nothing is concluded here."
    where = ", ".join(primary.data)
    return wording.opening(claim, primary.judgement, where, scale.is_exploratory)


def _judge(item: Item, claim: Claim, scale: Scale, folder: Path) -> Judged:
    judgement = tables.judge(claim, scale, folder)
    run = [
        line.first
        for line, place in zip(claim.contrasts, judgement.places, strict=True)
        if place["seeds"]
    ]
    names = {}
    for cell in run:
        dataset = scale.place(cell.item, cell.dataset).dataset
        if dataset not in names:
            names[dataset] = next(iter(over_seeds.found(cell, scale, folder).values()))["data"]
    on_generated = bool(names) and set(names) <= set(GENERATED_DATASETS)
    return Judged(item, claim, judgement, tuple(names.values()), on_generated)
