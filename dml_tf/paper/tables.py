"""The tables: what was measured beside the paper's numbers, as data frames and CSV files."""

import enum
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dml_tf import data
from dml_tf.atomic import write_whole
from dml_tf.paper import items as paper_items
from dml_tf.paper import over_seeds, verdicts
from dml_tf.paper.cells import KEYS, Cell, Claim, Contrast, Line, unit
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.paper.verdicts import Judgement, Verdict

CLAIMS = "claims.csv"
_ABOUT = ("scale", "data", "networks", "runs", "seed_numbers")
_NUMBERS = ("measured", "std", "seeds", "low", "high", "p", "detectable")
_COMPARED = ("paper", "compared_with_paper", "difference", "gap_in_std", "status", "claim")


class Status(enum.StrEnum):
    """How far a cell's number can be compared with the paper's."""

    NOT_RUN = "not run"
    PUBLISHED = "published"
    STAND_IN = "stand-in"
    NOT_PRINTED = "not printed"
    ONE_SEED = "one seed"
    REPRODUCED = "reproduced"
    DIFFERS = "differs"


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(ITEMS)) -> list[Path]:
    """Writes `<folder>/<item>.csv` of each item, and `claims.csv`, from `<folder>/runs`.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder.
        items: Names of tables and figures.

    Returns:
        The files written. An item's own lines come first, then the other contrasts of its claims.
        A scale whose items claim nothing has no `claims.csv`.
    """
    written = []
    for item in items:
        lines = dict.fromkeys([*ITEMS[item].lines, *_claimed(item)])
        frame = table(scale, folder, item, tuple(lines)).drop(columns="verdict")
        written.append(_write(frame, folder / f"{item}.csv"))
    claims = conclusions(scale, folder)
    if len(claims):  # a study of our own may make none
        written.append(_write(claims, folder / CLAIMS))
    return written


def _write(frame: pd.DataFrame, file: Path) -> Path:
    with write_whole(file) as part:
        frame.to_csv(part, index=False, float_format="%.6g")
    return file


def table(scale: Scale, folder: Path, item: str, lines: Sequence[Line] = ()) -> pd.DataFrame:
    """One table: the paper's number, what was measured, and how the two compare.

    Args:
        scale: Which runs fill the cells.
        folder: Results folder with `runs/`.
        item: Name of the table.
        lines: What to list; by default the item's lines.

    Returns:
        One row for each line: `KEYS`, then what ran (`scale`, `data`, `networks`, ids of `runs`,
        `seed_numbers`), then percent, nats, times or millions. A contrast has the mean over seeds
        of the difference of runs that share a seed, and from three seeds on its 95% interval,
        simultaneous for several places of one claim; `p` by sign flips; and the smallest
        difference `detectable` with 80% power. `paper` is text, as printed. `status` is for
        readers, `verdict` for programs: a `Status` of a cell, a `Verdict` of a contrast.
    """
    lines, paper = lines or ITEMS[item].lines, over_seeds.printed()
    judged = _judged_lines(scale, folder, item)
    rows = [
        {
            **dict(zip(KEYS, _key(line), strict=True)),
            **_about(line, scale, folder),
            **(
                _cell_row(line, scale, over_seeds.values(line, scale, folder), paper)
                if isinstance(line, Cell)
                else _contrast_row(line, scale, folder, paper, judged)
            ),
        }
        for line in lines
    ]
    columns = [*KEYS, *_ABOUT, *_NUMBERS, *_COMPARED, "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns)


def judge(claim: Claim, scale: Scale, folder: Path) -> Judgement:
    """What the records of one scale say of a claim.

    Places on generated pictures count only if no other place was run. At a scale with fixed seeds
    nothing is concluded before all runs of the claim's item have finished.
    """
    places = [over_seeds.differences(line, scale, folder) for line in claim.contrasts]
    of_data = [_data(line.first, scale) for line in claim.contrasts]
    generated = [name in data.GENERATED_DATASETS for name in of_data]
    if any(values and not made for values, made in zip(places, generated, strict=True)):
        places = [{} if made else values for values, made in zip(places, generated, strict=True)]
    run = [line.first for line, values in zip(claim.contrasts, places, strict=True) if values]
    if not (scale.is_fixed and run):
        return verdicts.judge(claim, places)
    planned = max(len(scale.planned(first.item, first.dataset)) for first in run)
    finished = over_seeds.finished(run[0].item, scale, folder)
    return verdicts.judge(claim, places, planned, len(finished))


def conclusions(scale: Scale, folder: Path, items: Sequence[str] = tuple(ITEMS)) -> pd.DataFrame:
    """The paper's claims and what was concluded of each.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`.
        items: Names of tables and figures.

    Returns:
        One row for each claim: where it stands, `conclusion`, the pooled difference with its
        `std`, `seeds`, `low`, `high`, `p` and `detectable`; `decisive_p`; `places` that were run,
        the claim's `margin`, and `unit`.
    """
    rows = []
    for item, claim in paper_items.claims(items):
        if not scale.has(item.name):
            continue
        judgement = judge(claim, scale, folder)
        run = [
            line
            for line, place in zip(claim.contrasts, judgement.places, strict=True)
            if place["seeds"]
        ]
        rows.append(
            {
                "item": item.name,
                "section": claim.section,
                "claim": claim.text,
                "conclusion": judgement.words,
                **judgement.pooled,
                "decisive_p": judgement.decisive_p,
                "unit": unit(claim.contrasts[0].first.metric),
                "margin": claim.margin or math.nan,
                "places": len(run),
                "scale": scale.name,
                "data": "; ".join(dict.fromkeys(_data(line.first, scale) for line in run)),
            }
        )
    return pd.DataFrame(rows)


def _claimed(item: str) -> dict[Contrast, list[Claim]]:
    """What the paper says of an item's contrasts."""
    claimed: dict[Contrast, list[Claim]] = {}
    for claim in ITEMS[item].claims:
        for compared in claim.contrasts:
            claimed.setdefault(compared, []).append(claim)
    return claimed


def _judged_lines(scale: Scale, folder: Path, item: str) -> dict[Contrast, dict]:
    """What was concluded of each contrast that an item's claims have; the first claim counts.

    A place that a claim leaves out, as one on generated pictures, has no conclusion.
    """
    judged: dict[Contrast, dict] = {}
    for claim in ITEMS[item].claims:
        for line, place in zip(claim.contrasts, judge(claim, scale, folder).places, strict=True):
            if place["seeds"]:
                judged.setdefault(line, place)
    return judged


def _key(line: Line) -> tuple[str, ...]:
    first = line.terms[0][0]
    return (first.item, first.dataset, line.row, line.column, first.metric)


def _about(line: Line, scale: Scale, folder: Path) -> dict[str, str]:
    """What ran for a line: scale, data, networks, ids of the runs and their seeds."""
    runs: dict[str, over_seeds.Measured] = {}
    for cell, _ in line.terms:
        for found_run in over_seeds.runs_of(cell, scale, folder).values():
            runs[found_run.run_id] = found_run
    return {
        "scale": scale.name,
        "data": _data(line.terms[0][0], scale),
        "networks": "; ".join(dict.fromkeys(run.networks for run in runs.values())),
        "runs": "; ".join(sorted(runs)),
        "seed_numbers": " ".join(map(str, sorted({run.seed for run in runs.values()}))),
    }


def _cell_row(
    cell: Cell, scale: Scale, values: Mapping[int, float], paper: Mapping[tuple, str]
) -> dict:
    row = {
        **verdicts.spread(list(values.values())),
        "paper": paper.get(cell.key, ""),
        "compared_with_paper": _compares(cell, scale),
    }
    if row["paper"] and (scale.is_paper or cell.metric == "millions"):
        row["difference"] = row["measured"] - float(row["paper"])
        if row["std"] > 0:
            row["gap_in_std"] = row["difference"] / row["std"]
    status = _status(cell, scale, row)
    return row | {"status": _with_gap(status, row), "verdict": status}


def _compares(cell: Cell, scale: Scale) -> str:
    """Whether the paper's number is of the same data and networks."""
    if scale.is_paper or cell.metric == "millions" or not cell.method:
        return "yes"
    place = scale.place(cell.item, cell.dataset)
    return f"no: the paper's is of {cell.dataset}" + (
        f", measured is of {place.dataset} with small networks" if place else ""
    )


def _with_gap(status: "Status", row: Mapping) -> str:
    """`reproduced, gap 0.4 standard deviations`."""
    if status not in (Status.REPRODUCED, Status.DIFFERS) or "gap_in_std" not in row:
        return str(status)
    return f"{status}, gap {abs(row['gap_in_std']):.1f} standard deviations"


def _status(cell: Cell, scale: Scale, row: Mapping) -> Status:
    is_size = cell.metric == "millions"
    if cell.printed and not cell.method and not is_size:
        return Status.PUBLISHED
    if not row["seeds"]:
        return Status.NOT_RUN
    if not (scale.is_paper or is_size):
        return Status.STAND_IN
    if not row["paper"]:
        return Status.NOT_PRINTED
    if not is_size and row["seeds"] < 2:
        return Status.ONE_SEED
    allowed = 0.05 if is_size else 2 * row["std"]  # the paper prints sizes with one decimal
    return Status.REPRODUCED if abs(row["difference"]) <= allowed else Status.DIFFERS


def _contrast_row(
    line: Contrast,
    scale: Scale,
    folder: Path,
    paper: Mapping[tuple, str],
    judged: Mapping[Contrast, Mapping],
) -> dict:
    """A computed row; the paper's number is computed from those that it prints."""
    measured = judged.get(line) or verdicts.single(over_seeds.differences(line, scale, folder))
    if line not in judged and _data(line.first, scale) in data.GENERATED_DATASETS:
        measured = {**measured, "verdict": Verdict.NO_VERDICT}
    printed = _printed(line, paper)
    can_compare = scale.is_paper and printed
    claims = [claim.text for claim in _claimed(line.first.item).get(line, [])]
    verdict = _in_seeds(measured)
    return {
        **measured,
        "paper": printed,
        "compared_with_paper": _compares(line.first, scale),
        "difference": measured["measured"] - float(printed) if can_compare else math.nan,
        "status": verdict if scale.is_paper else f"{Status.STAND_IN}: {verdict}",
        "claim": "; ".join(claims),
    }


def _in_seeds(line: Mapping) -> str:
    """A place's verdict, or how many seeds are too few: `one seed: no verdict`."""
    if line["verdict"] != Verdict.NO_VERDICT:
        return str(line["verdict"])
    count = line["seeds"]
    return "one seed: no verdict" if count == 1 else f"{count} seeds: no verdict"


def _printed(line: Contrast, paper: Mapping[tuple, str]) -> str:
    """The contrast of the printed numbers, with the most digits that one of them has."""
    numbers = [paper.get(cell.key, "") for cell, _ in line.terms]
    if not all(numbers):
        return ""
    places = max(len(number.partition(".")[2]) for number in numbers)
    weights = [weight for _, weight in line.terms]
    total = sum(w * float(number) for w, number in zip(weights, numbers, strict=True))
    return f"{line.constant + total:.{places}f}"


def _data(cell: Cell, scale: Scale) -> str:
    place = scale.place(cell.item, cell.dataset)
    return place.dataset if place else ""
