"""Tables of our own studies, of Table 4 and of Figure 6a in the Markdown files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dml_tf.paper import over_seeds, scales, statistics, tables
from dml_tf.paper.cells import Claim, Item, gain
from dml_tf.paper.items import ITEMS
from docs import formats
from docs.evidence import CONFIRMATORY, CPU, shared, state

# Item -> columns: the student alone, taught, and with the teacher as a peer; the differences.
_TEACHINGS = {
    "table4": (
        "Independent Net 2", "1 distills 2", "DML Net 2", "Distilled-Ind Net 2",
        "DML-Distilled Net 2",
    ),
    "ensemble_teacher": (
        "Independent", "Two teach a third", "DML", "Distilled-Ind", "DML-Distilled",
    ),
}  # fmt: skip
_LEARNERS = ("Independent", "DML-labelled", "DML-all")
_LABELLED_GAINS = ("DML-labelled - Independent", "DML-all - DML-labelled")


def start() -> str:
    """The study of first weights: both methods with both, confirmatory."""
    names = {"He": "He's", "Goyal": "near the identity"}
    rows = [{"first weights": names[row]} | gained for row, gained in _gains("start").items()]
    helped = tables.judge(ITEMS["start"].claims[-1], *CONFIRMATORY)
    return (
        f"{formats.markdown(rows)}\n\n"
        f"First weights near the identity raised independent networks by "
        f"{formats.interval(helped.pooled)} points ({state(helped)})."
    )


def schedule() -> str:
    """The study with the paper's schedule of 200 epochs, crops and flips, confirmatory."""
    [judged] = [tables.judge(claim, *CONFIRMATORY) for claim in ITEMS["augmented"].claims]
    rows = formats.markdown(list(_gains("augmented").values()))
    return f"{rows}\n\nThe difference: {state(judged)}."


def teaching() -> str:
    """A network taught by trained ones, against labels alone and against a peer; confirmatory."""
    names = CONFIRMATORY[0].data["CIFAR-10"].networks
    rows = []
    for item, columns in _TEACHINGS.items():
        frame = _table(item)
        for row in dict.fromkeys(frame.row[frame.seeds > 0]):
            cells = {cell.column: cell for cell in ITEMS[item].cells if cell.row == row}
            at = frame[frame.row == row].set_index("column")
            alone, taught, dml, helped, mutual = (at.loc[column] for column in columns)
            *teachers, student = (f"`{names[name]}`" for name in cells[columns[1]].networks)
            count = "two " if len(teachers) > 1 else ""
            rows.append(
                {
                    "teachers, and student": f"{count}{teachers[0]}, {student}",
                    "labels alone": _spread(alone),
                    "taught": _spread(taught),
                    "with a peer": _spread(dml),
                    "taught less alone [95% interval]": formats.interval(helped),
                    "with a peer less taught [95% interval]": formats.interval(mutual),
                    "seeds": int(mutual.seeds),
                }
            )
    claims = (*ITEMS["table4"].claims, *ITEMS["ensemble_teacher"].claims)
    return "\n".join([formats.markdown(rows), "", *map(_verdict, claims)])


def few_labels() -> str:
    """Figure 6a: accuracy and differences by the part of the images that has labels."""
    frame = _table("figure6a")
    rows = []
    for row in dict.fromkeys(frame.row[frame.seeds > 0]):
        at = frame[frame.row == row].set_index("column").reindex(_LEARNERS + _LABELLED_GAINS)
        if at.seeds["Independent"] > 0:  # the last row is a difference of two others
            gains = {f"{n} [95% interval]": formats.interval(at.loc[n]) for n in _LABELLED_GAINS}
            learners = {name: _spread(at.loc[name]) for name in _LEARNERS}
            rows.append({"labels": row, **learners, **gains, "seeds": int(at.seeds["Independent"])})
    return "\n".join([formats.markdown(rows), "", *map(_verdict, ITEMS["figure6a"].claims)])


def ways() -> str:
    """Ways to learn from peers, against independent networks and against DML, by seed."""
    folder = CPU / scales.TEACHERS.exploratory
    return _ways(ITEMS["teachers"], scales.TEACHERS, folder, ("Independent", "DML"))


def cohorts() -> str:
    """Ways to learn from four peers, against independent networks, by seed; confirmatory."""
    return _ways(ITEMS["cohorts"], *CONFIRMATORY, ("Independent",))


FIGURES = {
    "start": start,
    "article_start": start,
    "schedule": schedule,
    "article_schedule": schedule,
    "teaching": teaching,
    "few_labels": few_labels,
    "ways": ways,
    "cohorts": cohorts,
}


def _gains(item: str) -> dict[str, dict]:
    """Row of a study -> independent training, DML, and their difference by seed."""
    cells = {(cell.row, cell.column): cell for cell in ITEMS[item].cells}
    found = {}
    for row in dict.fromkeys(row for row, _ in cells):
        alone, dml = cells[row, "Independent"], cells[row, "DML"]
        less = over_seeds.measure(gain("", "", dml, alone), *CONFIRMATORY)
        values = [over_seeds.values(cell, *CONFIRMATORY) for cell in (alone, dml)]
        both = shared(*values)
        fitted = [
            over_seeds.measure(dataclasses.replace(cell, metric="train.accuracy"), *CONFIRMATORY)
            for cell in (alone, dml)
        ]
        found[row] = {
            "independent": formats.mean_and_spread([values[0][seed] for seed in both]),
            "DML": formats.mean_and_spread([values[1][seed] for seed in both]),
            "difference [95% interval]": formats.interval(less),
            "training accuracy of both": " and ".join(f"{made['measured']:.2f}" for made in fitted),
            "seeds": less["seeds"],
        }
    return found


def _table(item: str) -> pd.DataFrame:
    """An item's table, whose places have simultaneous intervals."""
    return tables.table(*CONFIRMATORY, item)


def _verdict(claim: Claim) -> str:
    judged = tables.judge(claim, *CONFIRMATORY)
    return f"- {claim.text}: {formats.interval(judged.pooled)} points ({state(judged)})."


def _spread(place: pd.Series) -> str:
    """Accuracy with its deviation over seeds, in percent; empty without runs."""
    return "" if np.isnan(place.measured) else f"{place.measured:.2f} ± {place['std']:.2f}"


def _ways(item: Item, scale: scales.Scale, folder: Path, others: Sequence[str]) -> str:
    found = {line.row: over_seeds.differences(line, scale, folder) for line in item.lines}
    seconds = {
        cell.row: {s: run["cpu_s"] for s, run in over_seeds.found(cell, scale, folder).items()}
        for cell in item.cells
    }
    rows = []
    for cell in item.cells:
        gains = {
            other: statistics.summary(found.get(f"{cell.row} - {other}", {})) for other in others
        }
        own, of_dml = seconds[cell.row], seconds["DML"]
        ratios = [own[seed] / of_dml[seed] for seed in shared(own, of_dml)]
        rows.append(
            {
                "way": cell.row,
                "test accuracy, %": formats.mean_and_spread(list(found[cell.row].values())),
                **{
                    f"gain over {other} [95% interval]": formats.interval(gain)
                    for other, gain in gains.items()
                },
                "CPU time / DML's": f"{np.median(ratios):.2f}" if ratios else "",
                "seeds": len(found[cell.row]),
            }
        )
    return formats.markdown(rows)
