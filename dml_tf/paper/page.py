"""The page: everything that was measured, in one HTML file that loads nothing.

`python -m dml_tf.paper report` writes it, the tables and the figures from the records of one scale.
"""

import argparse
import base64
import collections
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import jinja2
import pandas as pd

from dml_tf import home
from dml_tf.atomic import write_text
from dml_tf.data import GENERATED_DATASETS
from dml_tf.errors import RunFailed, exit_status
from dml_tf.paper import checksums, figures, scales, tables, wording
from dml_tf.paper import items as paper_items
from dml_tf.paper.cells import Claim, Contrast, Item, Line
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.paper.tables import Status
from dml_tf.paper.verdicts import IN_WORDS, SAY_NOTHING, Conclusion, Judgement, Verdict

_HERE = Path(__file__).parent
_ON_GENERATED = "on generated pictures only"
_PRIMARY = ("table2", "Mutual learning gains, in the mean of Table 2's places")
# Conclusion or verdict -> its class in page.css.
_KIND = {
    Status.REPRODUCED: "good",
    Status.DIFFERS: "bad",
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


def main(argv: Sequence[str]) -> int:
    """The command `python -m dml_tf.paper report`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dml_tf.paper report", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--scale", choices=scales.BY_NAME, default="mini")
    parser.add_argument("--results_dir", default="", help="default: results/<scale>")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of each run; 0: the scale's")
    parser.add_argument(
        "--exploratory",
        action="store_true",
        help="the first runs at cpu scale, in results/cpu/exploratory; they decide nothing",
    )
    options = parser.parse_args(argv)
    if options.exploratory and options.scale != "cpu":
        parser.error("--exploratory: only --scale=cpu has exploratory runs")
    scale = scales.EXPLORATORY if options.exploratory else scales.BY_NAME[options.scale]
    folder = home.HOME / "results" / options.scale / ("exploratory" * options.exploratory)
    folder = Path(options.results_dir or folder)
    return exit_status("report", partial(_report, scale.with_seeds(options.seeds), folder))


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
    with checksums.listed(folder, items) as written:
        written += [*tables.write(scale, folder, items), *figures.write(scale, folder, items)]
        write_text(folder / "report.html", render(scale, folder))
    return [*written, folder / "report.html"]


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
        self._claims = [
            (item, claim, tables.judge(claim, scale, folder))
            for item, claim in paper_items.claims()
            if item.name not in scales.STUDIES or item.name in scale.studies
        ]

    @property
    def opening(self) -> str:
        """What showed, in one sentence."""
        item, claim, judgement = next(
            found for found in self._claims if (found[0].name, found[1].text) == _PRIMARY
        )
        if not judgement.pooled["seeds"]:
            return f"{item.short} was not run, so that nothing is concluded here."
        return wording.opening(judgement, self._where(claim, judgement), self.scale.is_exploratory)

    @property
    def has_generated(self) -> bool:
        """Whether any run was trained on generated pictures."""
        return not set(GENERATED_DATASETS).isdisjoint(self._names)

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
        counts = collections.Counter(
            _ON_GENERATED if self._on_generated(claim, judgement) else judgement.conclusion
            for _, claim, judgement in self._claims
        )
        last = (_ON_GENERATED, Conclusion.NO_VERDICT, Conclusion.NOT_RUN)
        in_order = sorted(counts, key=lambda words: last.index(words) if words in last else -1)
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
        for item, claim, judgement in self._claims:
            on_generated = self._on_generated(claim, judgement)
            yield {
                "conclusion": judgement.words,
                "kind": "" if on_generated else _KIND.get(judgement.conclusion, ""),
                "on_generated": on_generated,
                "text": claim.text,
                "item": item.name,
                "where": ", ".join(dict.fromkeys((f"Sec. {claim.section}", item.short))),
                "measured": wording.judged(claim, judgement, self._where(claim, judgement)),
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
                "tables": list(self._tables(item, frame)) if is_run or frame.paper.any() else [],
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

    def _run_on(self, claim: Claim, judgement: Judgement) -> list[str]:
        """The data sets of the places that count."""
        places = [
            self.scale.place(line.first.item, line.first.dataset).dataset
            for line, place in zip(claim.contrasts, judgement.places, strict=True)
            if place["seeds"]
        ]
        return list(dict.fromkeys(places))

    def _on_generated(self, claim: Claim, judgement: Judgement) -> bool:
        """Whether the pictures of all places that were run are generated."""
        names = self._run_on(claim, judgement)
        return bool(names) and set(names) <= set(GENERATED_DATASETS)

    def _where(self, claim: Claim, judgement: Judgement) -> str:
        return ", ".join(self._names[name] for name in self._run_on(claim, judgement))

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
        for claimed, claim, judgement in self._claims:
            shown = [
                (line, place)
                for line, place in zip(claim.contrasts, judgement.places, strict=True)
                if line not in item.lines
            ]
            if claimed is item and shown:
                yield {"text": claim.text, "rows": list(self._compared(shown))}

    def _compared(self, shown: Sequence[tuple[Contrast, Mapping]]) -> Iterator[dict]:
        reach = _reach(pd.DataFrame([place for _, place in shown]))
        for compared, place in shown:
            line = pd.Series(place)
            first = compared.first
            at = self.scale.place(first.item, first.dataset)
            _, places = wording.unit(first.metric)
            yield {
                "name": f"{compared.row}: {compared.column}",
                "here": self._names.get(at.dataset, at.dataset) if at else "",
                "seeds": line.seeds,
                "difference": wording.difference(line, places),
                "interval": _interval(line, reach),
                "words": IN_WORDS[line.verdict],
                "kind": _KIND[line.verdict],
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
        cell |= {"words": IN_WORDS[values["verdict"]], "kind": _KIND[values["verdict"]]}
    return cell


def _number(values: pd.Series, places: int, _: float) -> dict:
    is_size = values["metric"] == "millions"
    spread = "" if math.isnan(values["std"]) else f" ± {values['std']:.{places}f}"
    is_silent = values["verdict"] in (Status.STAND_IN, Status.NOT_PRINTED)
    return {
        "measured": f"{values['measured']:.{places}f}{spread}" + (" M" if is_size else ""),
        "paper": f"{values['paper']} M" if is_size else values["paper"],
        "words": "" if is_silent else values["status"],
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
