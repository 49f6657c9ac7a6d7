"""Tables of who teaches, and of our own studies in the Markdown files, from `results/cpu`."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dml_tf.paper import over_seeds, scales, statistics, tables
from dml_tf.paper.cells import Cell, Item, gain
from dml_tf.paper.items import ITEMS
from docs import formats
from docs.evidence import CONFIRMATORY, CPU, state


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
    scale, folder = CONFIRMATORY
    rows = list(_gains("augmented").values())
    if not rows[0]["seeds"]:
        return formats.markdown([])
    fitted = [
        over_seeds.measure(dataclasses.replace(cell, metric="train.accuracy"), scale, folder)
        for cell in ITEMS["augmented"].cells
    ]
    trained = " and ".join(f"{accuracy['measured']:.2f}" for accuracy in fitted)
    [judged] = [tables.judge(claim, scale, folder) for claim in ITEMS["augmented"].claims]
    return (
        f"{formats.markdown(rows)}\n\n"
        f"The difference: {state(judged)}. Training accuracy is {trained}%."
    )


def teaching() -> str:
    """A network taught by trained ones, against labels alone and against a peer; confirmatory."""
    scale, folder = CONFIRMATORY
    rows = []
    for name, alone, distilled, dml in _teachings(scale):
        taught, mutual = gain("", "", distilled, alone), gain("", "", dml, distilled)
        measured = [over_seeds.measure(line, scale, folder) for line in (taught, mutual)]
        rows.append(
            {
                "teacher, or peer": name,
                "labels alone": _mean(alone),
                "taught": _mean(distilled),
                "with a peer": _mean(dml),
                "taught less alone [95% interval]": formats.interval(measured[0]),
                "with a peer less taught [95% interval]": formats.interval(measured[1]),
                "seeds": measured[1]["seeds"],
            }
        )
    claims = (*ITEMS["table4"].claims, *ITEMS["ensemble_teacher"].claims)
    verdicts = [
        f"- {claim.text}: {formats.interval(judged.pooled)} points ({state(judged)})."
        for claim in claims
        if (judged := tables.judge(claim, scale, folder)).pooled["seeds"]
    ]
    return "\n".join([formats.markdown(rows), "", *verdicts])


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
    "teaching": teaching,
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
        found[row] = {
            "independent": _mean(alone),
            "DML": _mean(dml),
            "difference [95% interval]": formats.interval(less),
            "seeds": less["seeds"],
        }
    return found


def _teachings(scale: scales.Scale) -> Iterator[tuple[str, Cell, Cell, Cell]]:
    """Who teaches whom; the student alone, taught, and with the teacher as a peer."""
    names = scale.data["CIFAR-10"].networks
    cells = {(cell.row, cell.column): cell for cell in ITEMS["table4"].cells}
    for row, column in cells:
        taught = cells[row, column]
        if column == "1 distills 2" and scale.planned("table4", taught.dataset):
            first, second = (f"`{names[name]}`" for name in taught.networks)
            alone, dml = cells[row, "Independent Net 2"], cells[row, "DML Net 2"]
            yield f"{first}, to {second}", alone, taught, dml
    alone, taught, dml = ITEMS["ensemble_teacher"].cells
    name = f"`{names[taught.networks[0]]}`"
    yield f"two {name}, or one, to {name}", alone, taught, dml


def _mean(cell: Cell) -> str:
    """Accuracy with its deviation over seeds, in percent."""
    return formats.mean_and_spread(list(over_seeds.values(cell, *CONFIRMATORY).values()))


def _ways(item: Item, scale: scales.Scale, folder: Path, others: Sequence[str]) -> str:
    found = {line.row: over_seeds.differences(line, scale, folder) for line in item.lines}
    seconds = {
        cell.row: [record["cpu_s"] for record in over_seeds.found(cell, scale, folder).values()]
        for cell in item.cells
    }
    of_dml = np.median(seconds["DML"])
    rows = []
    for cell in item.cells:
        gains = {
            other: statistics.summary(found.get(f"{cell.row} - {other}", {})) for other in others
        }
        rows.append(
            {
                "way": cell.row,
                "test accuracy, %": formats.mean_and_spread(list(found[cell.row].values())),
                **{
                    f"gain over {other} [95% interval]": formats.interval(gain)
                    for other, gain in gains.items()
                },
                "CPU time / DML's": f"{np.median(seconds[cell.row]) / of_dml:.2f}",
                "seeds": len(found[cell.row]),
            }
        )
    return formats.markdown(rows)
