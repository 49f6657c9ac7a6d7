"""The page that says what was measured: one HTML file with everything in it, and no program."""

import base64
import collections
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template

import pandas as pd

from dml_tf import home
from dml_tf.paper import claims, figures, markup, tables
from dml_tf.paper import items as experiments
from dml_tf.paper.claims import Claim
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.markup import NOTHING, SAID
from dml_tf.paper.scales import SCALES, Scale

_HERE = Path(__file__).parent
_README = home.HOME / "README.md"
_DEVIATIONS = "README.md, Deviations and choices"
_ON_GENERATED = "on generated pictures only"


def judge(verdicts: pd.Series) -> tuple[str, str]:
    """What the comparisons of a claim say of it together.

    Args:
        verdicts: One a comparison, as `tables.verdicts` gives them.

    Returns:
        The verdict in plain words, and its class on the page.

    Example:
        >>> judge(pd.Series(["gain", "no clear gain", "not run"]))
        ('Shows in part', 'partly')
    """
    said = set(verdicts) - set(NOTHING)
    if not said:
        few = "too few seeds to say" in set(verdicts)
        return ("Too few seeds to say" if few else "Not run"), ""
    if "difference" in said:
        return "A difference shows", "against"
    if "no clear difference" in said:
        return "No clear difference", ""
    if "loss" in said:
        return ("Mixed", "partly") if "gain" in said else ("The opposite shows", "against")
    if "gain" not in said:
        return "Not clear", ""
    return ("Shows", "shows") if said == {"gain"} else ("Shows in part", "partly")


class Page:
    """What the records of a folder say at one scale.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`, and the figures' PNG files.
        items: Names of tables and figures.

    Raises:
        RecordMismatch: A record was made with other settings.
    """

    def __init__(self, scale: Scale, folder: Path, items: Sequence[str]):
        self._scale, self._folder, self._items = scale, folder, items
        self._found = {c: tables.found(c, scale, folder) for c in experiments.cells(items)}
        runs = [run for seeds in self._found.values() for run in seeds.values()]
        self._runs = list({run["run_id"]: run for run in runs}.values())
        # Data set -> its name as printed.
        self._names = {run["config"]["dataset"]: run["data"] for run in runs}
        lines = tables.verdicts(scale, folder, items)
        self._claims = [
            (claim, lines[(lines.item == claim.item) & (lines.claim == claim.text)])
            for claim in claims.claims()
            if claim.item in items
        ]

    def render(self) -> str:
        """The page.

        Returns:
            HTML that loads nothing from elsewhere.
        """
        template = Template((_HERE / "report.html").read_text(encoding="utf-8"))
        return template.substitute(
            scale=self._scale.name,
            style=(_HERE / "report.css").read_text(encoding="utf-8"),
            what=self._what(),
            claims="\n".join(self._claim(claim, lines) for claim, lines in self._claims),
            items="\n".join(map(self._item, self._items)),
            again=self._again(),
        )

    def _what(self) -> str:
        """The first screen: what was run, on what, and how much that can say."""
        if self._scale.is_paper:
            lead = (
                "The paper's data, networks and schedules. A number is called reproduced where "
                "the paper's lies within two standard deviations of it."
            )
        else:
            lead = (
                "Stand-ins for the paper's data, networks and schedules: they are compared with "
                "what the paper claims, never with its numbers. Only Table 1 has the paper's own "
                "networks."
            )
        if any(map(_generated, self._names.values())):
            lead += " Generated pictures show that the machinery works; they are no evidence."
        facts = "".join(
            f"<dt>{label}</dt><dd>{escape(text)}</dd>" for label, text in self._facts().items()
        )
        return f'<p>{lead}</p>\n<dl class="facts">{facts}</dl>\n{self._data()}'

    def _facts(self) -> dict[str, str]:
        """What the records say of themselves."""
        said = collections.Counter()
        for _, lines in self._claims:
            deciding, generated = self._deciding(lines)
            words, _ = judge(deciding.verdict)
            said[_ON_GENERATED if generated else words.lower()] += 1
        open_last = sorted(said.items(), key=lambda pair: pair[0] in (*NOTHING, _ON_GENERATED))
        facts = {"Claims": ", ".join(f"{words}: {count}" for words, count in open_last)}
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

    def _data(self) -> str:
        """What stands in the place of the paper's data and networks, for which items."""
        rows: dict[tuple[str, str], dict[str, dict]] = {}
        for cell, found in self._found.items():
            place = self._scale.place(cell.item, cell.dataset)
            if not cell.method or place is None:
                continue
            row = rows.setdefault((cell.dataset, self._here(cell.item, cell.dataset)), {})
            row.setdefault("Networks", {}).update(
                {f"{name}: {place.networks[name]}": None for name in cell.networks}
            )
            row.setdefault("For", {})[markup.short(cell.item)] = None
            row.setdefault("Seeds", {})[len(found)] = None
        lines = [
            {
                "In the paper": paper,
                "Here": here,
                "For": ", ".join(row["For"]),
                "Seeds": markup.span(row["Seeds"]),
                "Networks": ", ".join(row["Networks"]),
            }
            for (paper, here), row in rows.items()
        ]
        return markup.box(pd.DataFrame(lines).map(escape), "wrap") if lines else ""

    def _here(self, item: str, dataset: str) -> str:
        """What an item ran on in a data set's place, in words."""
        place = self._scale.place(item, dataset)
        if place is None:
            return "nothing stands in its place at this scale"
        name = self._names.get(place.dataset, place.dataset)
        if place.dataset != SCALES["paper"].data[dataset].dataset:
            return f"{name}, a stand-in"
        return name if self._scale.is_paper else f"{name}, reduced"

    def _deciding(self, lines: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
        """The comparisons that decide on a claim, and whether their pictures are generated.

        Those on generated pictures decide only where no others say anything.
        """
        made = lines.data.map(lambda name: _generated(self._names.get(name, "")))
        real = lines[~made]
        if made.any() and real.verdict.isin(NOTHING).all():
            return lines, not lines.verdict.isin(NOTHING).all()
        return real, False

    def _claim(self, claim: Claim, lines: pd.DataFrame) -> str:
        """A claim in the list: verdict, what the paper says, what was measured."""
        deciding, generated = self._deciding(lines)
        words, kind = judge(deciding.verdict)
        measured = self._measured(claim, deciding)
        if more := len(lines) - len(deciding):
            measured += f"; {markup.count(more, 'other')} on generated pictures"
        where = dict.fromkeys((f"Sec. {claim.section}", markup.short(claim.item)))
        link = f'<a href="#{claim.item}">{", ".join(where)}</a>'
        on = "<br><small>on generated pictures</small>" if generated else ""
        return (
            f'<li><div><span class="badge {"" if generated else kind}">{words}</span>{on}</div>'
            f"<div>{escape(claim.text)} <small>({link})</small><br>"
            f"<small>{escape(measured)}</small></div></li>"
        )

    def _measured(self, claim: Claim, lines: pd.DataFrame) -> str:
        """The comparisons of a claim in one sentence."""
        run = lines[lines.seeds > 0]
        if run.empty:
            return f"{markup.count(len(lines), 'comparison')}, not run"
        unit, places = markup.unit(_metric(claim))
        names = ", ".join(dict.fromkeys(self._names[name] for name in run.data))
        if len(lines) == 1:
            line = run.iloc[0]
            return (
                f"Difference {markup.difference(line, places)} {unit}; "
                f"{markup.count(line.seeds, 'seed')}; {names}"
            )
        counts = collections.Counter(lines.verdict.map(lambda verdict: SAID[verdict][0]))
        said = ", ".join(f"{count} {words}" for words, count in counts.items())
        least, most = run.measured.min(), run.measured.max()
        if threshold := -lines.constant.iloc[0]:
            low, high = (f"{value + threshold:.{places}f}" for value in (least, most))
            what = f"{low} to {high}, against {threshold:g}"
        else:
            ends = dict.fromkeys(markup.signed(value, places) for value in (least, most))
            what = f"differences of {' to '.join(ends)} {unit}"
        return (
            f"Of {len(lines)} comparisons, {said}; {what}; seeds: {markup.span(run.seeds)}; {names}"
        )

    def _item(self, item: str) -> str:
        """An item's section: figure, tables, comparisons, and the command."""
        frame = tables.table(self._scale, self._folder, item)
        parts = [f'<section id="{item}">\n<h3>{escape(markup.title(item))}</h3>']
        parts.append(self._picture(item))
        if frame.seeds.any() or frame.paper.notna().any():
            parts += self._tables(item, frame)
        else:
            parts.append("<p>Not run.</p>")
        if frame.seeds.any():
            parts += [self._comparisons(*pair) for pair in self._claims if pair[0].item == item]
        parts.append(
            f"<p><small>Run it: <code>{self._command(item)}</code></small></p>\n</section>"
        )
        return "\n".join(parts)

    def _picture(self, item: str) -> str:
        file = self._folder / f"{item}.png"
        if item not in DRAWINGS or not file.exists():
            return ""
        data = base64.b64encode(file.read_bytes()).decode()
        seen = figures.describe(self._scale, self._folder, item)
        alt = escape(f"{markup.title(item)}. {seen}")
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{alt}">'
            f"<figcaption>{escape(DRAWINGS[item].reading)}</figcaption></figure>"
        )

    def _tables(self, item: str, frame: pd.DataFrame) -> Iterator[str]:
        """A table for each of the paper's data sets: its rows and columns, and what ran here."""
        declared, reach = experiments.ITEMS[item](), markup.reach_of(frame[frame.low.notna()])
        lines = zip(declared, frame.iterrows(), strict=True)
        frame = frame.assign(cell=[markup.cell(line, values, reach) for line, (_, values) in lines])
        for dataset, part in frame.groupby("dataset", sort=False):
            wide = part.pivot(index="row", columns="column", values="cell")
            wide = wide.reindex(index=part.row.unique(), columns=part.column.unique()).fillna("")
            wide = wide.rename(columns=escape)
            if item != "table1":  # the paper's own networks, which need no data
                wide.insert(0, "Seeds", part.groupby("row").seeds.agg(markup.span))
                here = escape(self._here(item, dataset))
                yield f"<p><b>{escape(dataset)}</b>: {here}</p>"
            wide.insert(0, "", wide.index.map(escape))
            yield markup.box(wide)

    def _comparisons(self, claim: Claim, lines: pd.DataFrame) -> str:
        """A claim's comparisons that are no lines of its table."""
        own = [line for line in claim.contrasts if line not in experiments.ITEMS[claim.item]()]
        shown = lines[[line in own for line in claim.contrasts]]
        if shown.empty:
            return ""
        _, places = markup.unit(_metric(claim))
        reach = markup.reach_of(shown)
        cells = {
            "Compared": (shown.row + ": " + shown.column).map(escape),
            "Here": [escape(self._names.get(name, name)) for name in shown.data],
            "Seeds": shown.seeds,
            "Difference": [markup.difference(line, places) for line in shown.itertuples()],
            "": [markup.drawn(line, reach) for line in shown.itertuples()],
            "Verdict": ['<span class="{1}">{0}</span>'.format(*SAID[v]) for v in shown.verdict],
        }
        return f"<h4>{escape(claim.text)}</h4>\n{markup.box(pd.DataFrame(cells), 'compared')}"

    def _command(self, item: str = "") -> str:
        default = self._folder.resolve() == home.HOME / "results" / self._scale.name
        return (
            f"bash run_all.sh --scale={self._scale.name}"
            + (f" --only={item}" if item else "")
            + ("" if default else " --results_dir=FOLDER")
        )

    def _again(self) -> str:
        link = _DEVIATIONS
        if home.HOME in self._folder.resolve().parents:
            path = os.path.relpath(_README, self._folder)
            link = f'<a href="{path}#deviations-and-choices">{_DEVIATIONS}</a>'
        rebuild = self._command().replace("bash run_all.sh", "python -m dml_tf.report")
        return (
            f"<p>Where we deviate from the paper, and why: {link}.</p>\n"
            f"<p>Everything on this page: <code>{self._command()}</code>, with "
            "<code>--data_dir=FOLDER</code> for data that cannot be made or downloaded. What is "
            "done is not trained again; <code>--dry_run</code> lists what is left.</p>\n"
            f"<p>Only the tables, figures and this page anew, from the records: "
            f"<code>{rebuild}</code></p>"
        )


def _metric(claim: Claim) -> str:
    return claims.cells(claim)[0].metric


def _generated(name: str) -> bool:
    """Whether a data set's printed name says that its pictures are generated."""
    return "(generated)" in name
