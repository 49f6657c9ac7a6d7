"""The page: everything that was measured, in one HTML file that loads nothing.

`python -m dml_tf.paper report` writes it, the tables and the figures from the records of one scale.
"""

import argparse
import base64
import collections
import math
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jinja2
import pandas as pd

from dml_tf import home
from dml_tf.atomic import write_text
from dml_tf.errors import RunFailed, exit_status
from dml_tf.paper import checksums, figures, scales, tables, verdicts, wording
from dml_tf.paper import items as paper_items
from dml_tf.paper.cells import Claim, Contrast, Item, Line
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.paper.tables import Status
from dml_tf.paper.verdicts import IN_WORDS, SAY_NOTHING, Conclusion, Verdict

_HERE = Path(__file__).parent
_ON_GENERATED = "on generated pictures only"
# Conclusion or verdict -> its class in page.css.
_KIND = {
    Status.REPRODUCED: "good",
    Status.DIFFERS: "bad",
    Verdict.GAIN: "good",
    Verdict.LOSS: "bad",
    Verdict.DIFFERENCE: "bad",
    **dict.fromkeys((Verdict.NO_CLEAR_GAIN, Verdict.NO_CLEAR_DIFFERENCE, *SAY_NOTHING), "soft"),
    Conclusion.SHOWS: "shows",
    Conclusion.IN_PART: "partly",
    Conclusion.MIXED: "partly",
    Conclusion.OPPOSITE: "against",
    Conclusion.DIFFERENCE: "against",
}


def main(argv: Sequence[str]) -> int:
    """The command `python -m dml_tf.paper report`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dml_tf.paper report", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--scale", choices=scales.BY_NAME, default="mini")
    parser.add_argument("--results_dir", default="", help="default: results/<scale>")
    options = parser.parse_args(argv)
    folder = Path(options.results_dir or home.HOME / "results" / options.scale)
    return exit_status("report", partial(_report, scales.BY_NAME[options.scale], folder))


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(ITEMS)) -> list[Path]:
    """Writes each item's CSV, the figures' PNG and `report.html` from `<folder>/runs`.

    Args:
        scale: Which runs they show.
        folder: Results folder; made if it is missing.
        items: Names of tables and figures; the page has all.

    Returns:
        The files written, the page last.

    Raises:
        RecordMismatch: A record was made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _name_altered(folder)
    checksums.drop(folder, (folder / name for item in items for name in _files_of(folder, item)))
    written = [*tables.write(scale, folder, items), *figures.write(scale, folder, items)]
    write_text(folder / "report.html", render(scale, folder))
    checksums.add(folder, written)
    return [*written, folder / "report.html"]


def _files_of(folder: Path, item: str) -> list[str]:
    """Names of an item's CSV and PNG files, of which a figure may have several."""
    return [file.name for file in folder.glob(f"{item}*") if re.match(rf"{item}(_|\.)", file.name)]


def _name_altered(folder: Path):
    for name in checksums.altered(folder):
        print(
            f"{folder / name} is damaged, missing, or was altered after it was written. What the "
            "records say is written in its place, if its table or figure is asked for."
        )


def render(scale: Scale, folder: Path) -> str:
    """The page's HTML, from the records and the PNG files of a results folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(page=Page(scale, folder))


def _report(scale: Scale, folder: Path):
    if not folder.is_dir():
        raise RunFailed(f"there is no folder {folder}. Give the --results_dir of run_all.sh.")
    if not any((folder / "runs").glob("*.json")):
        raise RunFailed(f"no run has finished in {folder / 'runs'}. Train with run_all.sh first.")
    print(*(f"wrote {file}" for file in write(scale.available(folder), folder)), sep="\n")


class Page:
    """What page.html shows.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`, and the figures' PNG files.

    Raises:
        RecordMismatch: A record was made with other settings.
    """

    def __init__(self, scale: Scale, folder: Path):
        self.scale, self._folder = scale, folder
        self._found = {cell: tables.found(cell, scale, folder) for cell in paper_items.cells()}
        runs = [run for seeds in self._found.values() for run in seeds.values()]
        self._runs = list({run["run_id"]: run for run in runs}.values())
        # Data set -> its name as printed.
        self._names = {run["config"]["dataset"]: run["data"] for run in runs}
        lines = tables.comparisons(scale, folder, tuple(ITEMS))
        self._claims = [
            (item, claim, lines[(lines.item == item.name) & (lines.claim == claim.text)])
            for item, claim in paper_items.claims()
            if item.name not in scales.STUDIES or item.name in scale.studies
        ]

    @property
    def has_generated(self) -> bool:
        """Whether any run was trained on generated pictures."""
        return any(map(_is_generated, self._names.values()))

    @property
    def report_command(self) -> str:
        """The command that writes the page again."""
        return f"python -m dml_tf.paper report {self._options()}"

    @property
    def deviations_link(self) -> str:
        """The way from the page to the deviations; '' outside the repository."""
        page = home.HOME / "docs" / "deviations.md"
        if home.HOME not in self._folder.resolve().parents or not page.is_file():
            return ""
        return os.path.relpath(page, self._folder)

    def run_command(self, item: str = "") -> str:
        """The command that trains what an item needs, or everything."""
        return f"bash run_all.sh {self._options(item)}"

    def facts(self) -> dict[str, str]:
        """What the records say of themselves."""
        counts = collections.Counter()
        for _, _, lines in self._claims:
            deciding, on_generated = self._deciding(lines)
            conclusion = verdicts.judge(deciding.verdict)
            counts[_ON_GENERATED if on_generated else conclusion] += 1
        last = (Conclusion.NOT_RUN, Conclusion.TOO_FEW_SEEDS, _ON_GENERATED)
        in_order = sorted(counts, key=lambda words: words in last)
        facts = {"Claims": ", ".join(f"{words.lower()}: {counts[words]}" for words in in_order)}
        if not self._runs:
            return facts | {"Runs": "none has finished yet"}
        hours = sum(run["cpu_s"] for run in self._runs) / 3600
        seeds = sorted({run["config"]["seed"] for run in self._runs})
        days = sorted(run["finished"][:10] for run in self._runs)
        versions = {", ".join(map(" ".join, run["versions"].items())) for run in self._runs}
        return facts | {
            "Runs": f"{len(self._runs)} finished, {hours:.1f} CPU hours",
            "Seeds": ", ".join(map(str, seeds)),
            "Dates": " to ".join(dict.fromkeys((days[0], days[-1]))),
            "Machine": "; ".join(sorted({run["machine"] for run in self._runs})),
            "Versions": "; ".join(sorted(versions)),
        }

    def stand_ins(self) -> list[dict[str, str]]:
        """What stands in the place of the paper's data and networks, and for which items."""
        rows = collections.defaultdict(list)
        for cell in self._found:
            if cell.method and self.scale.place(cell.item, cell.dataset):
                rows[cell.dataset, self._here(cell.item, cell.dataset)].append(cell)
        return [
            {
                "paper": dataset,
                "here": here,
                "used_by": ", ".join(dict.fromkeys(ITEMS[cell.item].short for cell in cells)),
                "seeds": wording.span(len(self._found[cell]) for cell in cells),
                "networks": ", ".join(
                    dict.fromkeys(
                        f"{name}: {self.scale.place(cell.item, cell.dataset).networks[name]}"
                        for cell in cells
                        for name in cell.networks
                    )
                ),
            }
            for (dataset, here), cells in rows.items()
        ]

    def claims(self) -> Iterator[dict]:
        """The paper's claims: conclusion, what the paper says, what was measured."""
        for item, claim, lines in self._claims:
            deciding, on_generated = self._deciding(lines)
            conclusion = verdicts.judge(deciding.verdict)
            measured = self._in_a_sentence(deciding)
            if more := len(lines) - len(deciding):
                measured += f"; {wording.count(more, 'other')} on generated pictures"
            yield {
                "conclusion": conclusion,
                "kind": "" if on_generated else _KIND.get(conclusion, ""),
                "on_generated": on_generated,
                "text": claim.text,
                "item": item.name,
                "where": ", ".join(dict.fromkeys((f"Sec. {claim.section}", item.short))),
                "measured": measured,
            }

    def items(self) -> Iterator[dict]:
        """The tables and figures: picture, tables, comparisons."""
        for item in ITEMS.values():
            if item.name in scales.STUDIES and item.name not in self.scale.studies:
                continue
            frame = tables.table(self.scale, self._folder, item.name)
            is_run = frame.seeds.any()
            yield {
                "name": item.name,
                "heading": item.heading,
                **self._picture(item),
                "tables": list(self._tables(item, frame))
                if is_run or frame.paper.notna().any()
                else [],
                "comparisons": list(self._comparisons(item)) if is_run else [],
            }

    def _options(self, item: str = "") -> str:
        is_default = self._folder.resolve() == home.HOME / "results" / self.scale.name
        return (
            f"--scale={self.scale.name}"
            + (f" --only={item}" if item else "")
            + ("" if is_default else " --results_dir=FOLDER")
        )

    def _here(self, item: str, dataset: str) -> str:
        """What an item ran on in a data set's place, in words."""
        place = self.scale.place(item, dataset)
        if place is None:
            return "nothing stands in its place at this scale"
        name = self._names.get(place.dataset, place.dataset)
        if place.dataset != scales.BY_NAME["paper"].data[dataset].dataset:
            return f"{name}, a stand-in"
        return name if self.scale.is_paper else f"{name}, reduced"

    def _deciding(self, lines: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
        """The comparisons that decide on a claim, and whether their pictures are generated.

        Comparisons on generated pictures decide only if no others say anything.
        """
        generated = lines.data.map(lambda name: _is_generated(self._names.get(name, "")))
        real = lines[~generated]
        if generated.any() and real.verdict.isin(SAY_NOTHING).all():
            return lines, not lines.verdict.isin(SAY_NOTHING).all()
        return real, False

    def _in_a_sentence(self, lines: pd.DataFrame) -> str:
        """The comparisons of a claim in one sentence."""
        run = lines[lines.seeds > 0]
        if run.empty:
            return f"{wording.count(len(lines), 'comparison')}, not run"
        unit, places = wording.unit(run.metric.iloc[0])
        names = ", ".join(dict.fromkeys(self._names[name] for name in run.data))
        if len(lines) == 1:
            line = run.iloc[0]
            return (
                f"Difference {wording.difference(line, places)} {unit}; "
                f"{wording.count(line.seeds, 'seed')}; {names}"
            )
        counts = collections.Counter(IN_WORDS[verdict] for verdict in lines.verdict)
        outcomes = ", ".join(f"{count} {words}" for words, count in counts.items())
        least, most = run.measured.min(), run.measured.max()
        if threshold := -lines.constant.iloc[0]:
            low, high = (f"{value + threshold:.{places}f}" for value in (least, most))
            what = f"{low} to {high}, against {threshold:g}"
        else:
            ends = dict.fromkeys(wording.signed(value, places) for value in (least, most))
            what = f"differences of {' to '.join(ends)} {unit}"
        seeds = wording.span(run.seeds)
        return f"Of {len(lines)} comparisons, {outcomes}; {what}; seeds: {seeds}; {names}"

    def _picture(self, item: Item) -> dict[str, str]:
        file = self._folder / f"{item.name}.png"
        if item.name not in DRAWINGS or not file.exists():
            return {"picture": ""}
        return {
            "picture": base64.b64encode(file.read_bytes()).decode(),
            "alt": f"{item.heading}. {figures.describe(self.scale, self._folder, item.name)}",
            "reading": DRAWINGS[item.name].reading,
        }

    def _tables(self, item: Item, frame: pd.DataFrame) -> Iterator[dict]:
        """A table for each of the paper's data sets: its rows and columns, and what ran here."""
        reach = _reach(frame[frame.low.notna()])
        lines = zip(item.lines, frame.iterrows(), strict=True)
        cells = {(v["dataset"], v.row, v.column): _cell(line, v, reach) for line, (_, v) in lines}
        for dataset, part in frame.groupby("dataset", sort=False):
            columns = list(part.column.unique())
            yield {
                "dataset": dataset,
                # Table 1 has the paper's own networks, which need no data.
                "here": "" if item.name == "table1" else self._here(item.name, dataset),
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

    def _comparisons(self, item: Item) -> Iterator[dict]:
        """The comparisons of each claim that are no lines of the item's table."""
        for claimed, claim, lines in self._claims:
            shown = lines[[compared not in item.lines for compared in claim.contrasts]]
            if claimed is item and not shown.empty:
                yield {"text": claim.text, "rows": list(self._compared(claim, shown))}

    def _compared(self, claim: Claim, lines: pd.DataFrame) -> Iterator[dict]:
        _, places = wording.unit(claim.contrasts[0].first.metric)
        reach = _reach(lines)
        for line in lines.itertuples():
            yield {
                "name": f"{line.row}: {line.column}",
                "here": self._names.get(line.data, line.data),
                "seeds": line.seeds,
                "difference": wording.difference(line, places),
                "interval": _interval(line, reach),
                "words": IN_WORDS[line.verdict],
                "kind": _KIND[line.verdict],
            }


def _is_generated(name: str) -> bool:
    """Whether a data set's printed name says that its pictures are generated."""
    return "(generated)" in name


def _cell(line: Line, values: pd.Series, reach: float) -> dict:
    """A cell of an item's table: what was measured, how it compares, what the paper prints."""
    _, places = wording.unit(values["metric"])
    show = _contrast if isinstance(line, Contrast) else _number
    cell = {"interval": None, "words": "", "kind": "", **show(values, places, reach)}
    if not values["seeds"]:
        cell["measured"] = ""
    if math.isnan(values["paper"]):
        cell["paper"] = ""
    return cell


def _contrast(values: pd.Series, places: int, reach: float) -> dict:
    cell = {
        "measured": wording.difference(values, places),
        "interval": _interval(values, reach),
        "paper": wording.signed(values["paper"], places),
    }
    # 'Gain' is a word for what the paper claims, not for any difference.
    if values["claim"] or values["verdict"] in SAY_NOTHING:
        cell |= {"words": IN_WORDS[values["verdict"]], "kind": _KIND[values["verdict"]]}
    return cell


def _number(values: pd.Series, places: int, _: float) -> dict:
    is_size = values["metric"] == "millions"
    spread = "" if math.isnan(values["std"]) else f" ± {values['std']:.{places}f}"
    is_silent = values["verdict"] in (Status.STAND_IN, Status.NOT_PRINTED)
    return {
        "measured": f"{values['measured']:.{places}f}{spread}" + (" M" if is_size else ""),
        "paper": f"{values['paper']:.1f} M" if is_size else f"{values['paper']:.{places}f}",
        "words": "" if is_silent else values["verdict"],
        "kind": _KIND.get(values["verdict"], ""),
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
