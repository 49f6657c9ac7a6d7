"""What the paper says in words, as contrasts that are above zero where it is so."""

import dataclasses
from collections.abc import Iterable, Sequence

from dml_tf.paper import items as experiments
from dml_tf.paper.items import Cell, Contrast


@dataclasses.dataclass(frozen=True)
class Claim:
    """Something that the paper says of a table or figure.

    Attributes:
        item: Which one.
        section: Where it says so.
        text: The claim.
        contrasts: What should be above zero, or no different from it where `equal`.
        equal: Whether the claim is that there is no difference.
    """

    item: str
    section: str
    text: str
    contrasts: tuple[Contrast, ...]
    equal: bool = False


def claims() -> list[Claim]:
    """All claims, in the paper's order."""
    return [
        Claim("section31", "3.1", "Eq. (7) in place of the KL divergence does equally well",
              _lines("section31"), equal=True),
        Claim("table2", "4.2", "Each network of each pair gains from mutual learning",
              _lines("table2")),
        Claim("table2", "4.2", "The smaller network of a pair gains more",
              tuple(_smaller_gains_more())),
        Claim("table3", "4.3", "Re-identification gains, with and without pre-training",
              _lines("table3")),
        Claim("figure2a", "4.4", "Both architectures gain on ImageNet", _lines("figure2a")),
        Claim("figure2b", "4.5", "Updating all peers at once is better still",
              _lines("figure2b", columns=("Average",))),
        Claim("figure2b", "4.5", "Peers are more equal when they are updated at once",
              (_difference("figure2b", "Sequential", "Spread", "Distributed", "Spread"),)),
        Claim("table4", "4.6", "A peer teaches more than a trained teacher does",
              _lines("table4", columns=("DML-Distilled Net 2",))),
        Claim("table4", "4.6", "The network in the teacher's place gains as well",
              _lines("table4", columns=("DML-Ind Net 1",))),
        Claim("figure3a", "4.7", "The average network is better in larger cohorts",
              (_difference("figure3a", "DML", "average of 5", "DML", "average of 2"),)),
        Claim("figure3a", "4.7", "Networks of larger cohorts differ less in accuracy",
              (_difference("figure3a", "DML", "spread of 2", "DML", "spread of 5"),)),
        Claim("figure3b", "4.7", "Ensembles gain from mutual learning",
              _lines("figure3b", rows=("DML-Ind",))),
        Claim("figure3a", "4.8", "Peers teach better than their ensemble",
              (_difference("figure3a", "DML", "average of 5", "DML_e, logits", "average of 5"),)),
        Claim("figure4a", "4.8", "Training accuracy reaches 100%, of both", tuple(_all_learnt())),
        Claim("figure4b", "4.8", "Noise on the parameters raises the training loss less",
              _lines("figure4b")),
        Claim("figure4c", "4.8", "More mass is on secondary probabilities",
              _lines("figure4c", columns=[f"Class {rank}" for rank in range(2, 6)])),
        Claim("entropy", "4.8", "Posteriors have more entropy", _lines("entropy")),
        Claim("table5", "4.8", "Mutual learning is better than seeking entropy blindly",
              _lines("table5", rows=("DML - (Independent, Entropy)",
                                     "DML - (Independent, confidence penalty)"))),
        Claim("table5", "4.9", "Making features alike takes from the gain",
              _lines("table5", rows=("DML - (DML, L2)",))),
        Claim("figure5", "4.9", "Peers have features of their own, as networks trained alone",
              tuple(_own_features())),
        *_semi_supervised("figure6a", "images"),
        *_semi_supervised("figure6b", "identities"),
    ]  # fmt: skip


def cells(claim: Claim) -> list[Cell]:
    """The cells that a claim is about.

    Args:
        claim: Any claim.

    Returns:
        Its contrasts' cells.
    """
    return [cell for contrast in claim.contrasts for cell, _ in contrast.terms]


def _lines(
    item: str, rows: Sequence[str] = (), columns: Sequence[str] = ()
) -> tuple[Contrast, ...]:
    """The computed lines of an item, or some of them."""
    return tuple(
        line
        for line in experiments.ITEMS[item]()
        if isinstance(line, Contrast)
        and (not rows or line.row in rows)
        and (not columns or line.column in columns)
    )


def _cell(item: str, row: str, column: str) -> Cell:
    return next(c for c in experiments.cells([item]) if (c.row, c.column) == (row, column))


def _difference(item: str, row: str, column: str, other_row: str, other_column: str) -> Contrast:
    first, second = _cell(item, row, column), _cell(item, other_row, other_column)
    rows, columns = (
        a if a == b else f"({a}) - ({b})" for a, b in ((row, other_row), (column, other_column))
    )
    return experiments.gain(rows, columns, first, second)


def _smaller_gains_more() -> Iterable[Contrast]:
    gains = {
        (line.terms[0][0].dataset, line.row, line.column): line.terms for line in _lines("table2")
    }
    for dataset in ("CIFAR-10", "CIFAR-100"):
        for row in ("WRN-28-10 + ResNet-32", "WRN-28-10 + MobileNet"):
            small, large = (gains[dataset, row, f"DML-Ind Net {k}"] for k in (2, 1))
            negative = tuple((cell, -weight) for cell, weight in large)
            yield Contrast(f"{dataset}: {row}", "gain of Net 2 - gain of Net 1", small + negative)


def _all_learnt() -> Iterable[Contrast]:
    for cell in experiments.cells(["figure4a"]):
        if cell.metric == "train.accuracy":
            yield Contrast(cell.row, f"{cell.column} - 99.5", ((cell, 1.0),), -99.5)


def _own_features() -> Iterable[Contrast]:
    for cell in experiments.cells(["figure5"]):
        yield Contrast(cell.row, f"{cell.column} - half", ((cell, 1.0),), -50.0)


def _semi_supervised(item: str, what: str) -> list[Claim]:
    fewest = next(iter(experiments.LABELLED[item]))
    half = list(experiments.LABELLED[item])[-2]
    unlabelled = {line.row: line for line in _lines(item, columns=("DML-all - DML-labelled",))}
    more = unlabelled[fewest].terms + tuple((c, -w) for c, w in unlabelled[half].terms)
    return [
        Claim(item, "4.10", f"Mutual learning gains at every number of labelled {what}",
              _lines(item, columns=("DML-labelled - Independent",))),
        Claim(item, "4.10", f"Unlabelled {what} help mutual learning", tuple(unlabelled.values())),
        Claim(item, "4.10", f"They help more where fewer {what} have labels",
              (Contrast(f"{fewest} - {half}", "DML-all - DML-labelled", more),)),
    ]  # fmt: skip
