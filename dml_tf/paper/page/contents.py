"""What page.html shows."""

import collections
import os
from pathlib import Path

from markupsafe import Markup

from dml_tf import home
from dml_tf.data import GENERATED_DATASETS
from dml_tf.paper import figures, over_seeds, scales, tables, wording
from dml_tf.paper import items as paper_items
from dml_tf.paper.cells import Item
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.items import ITEMS
from dml_tf.paper.page import claims, commands, forest, item_tables, pictures
from dml_tf.paper.scales import Scale
from dml_tf.paper.verdicts import Conclusion

_ON_GENERATED = "on generated pictures only"


class Page:
    """What page.html shows.

    Args:
        scale: Which runs are looked at.
        folder: Results folder with `runs/`, and the figures' PNG files: those figures are shown.

    Raises:
        RecordMismatch: A record was made with other settings.
    """

    def __init__(self, scale: Scale, folder: Path):
        self.scale, self._folder = scale, folder
        self._found = {cell: over_seeds.found(cell, scale, folder) for cell in paper_items.cells()}
        runs = [run for seeds in self._found.values() for run in seeds.values()]
        self._runs = list({run["run_id"]: run for run in runs}.values())
        # Data set -> its name as printed.
        self._names = {run["config"]["dataset"]: run["data"] for run in runs}
        self.claims = claims.judged(scale, folder)
        self.groups = forest.groups([found for found in self.claims if found.is_run])
        self.not_run = [found for found in self.claims if not found.is_run]
        self.run_command = commands.run(scale, folder)
        self.items = [self._item(item) for item in ITEMS.values() if scale.has(item.name)]

    @property
    def opening(self) -> str:
        """What showed, in one sentence."""
        return claims.opening(self.scale, self._folder)

    @property
    def has_generated(self) -> bool:
        """Whether any run was trained on generated pictures."""
        return not set(GENERATED_DATASETS).isdisjoint(self._names)

    @property
    def report_command(self) -> str:
        """The command that writes the page again."""
        return commands.report(self.scale, self._folder)

    @property
    def deviations_link(self) -> str:
        """The way from the page to the deviations; '' outside the repository."""
        page = home.HOME / "docs" / "deviations.md"
        if home.HOME not in self._folder.resolve().parents or not page.is_file():
            return ""
        return os.path.relpath(page, self._folder)

    def summary(self) -> dict[str, str]:
        """How much was run, and what was concluded."""
        counts = collections.Counter(
            _ON_GENERATED if found.on_generated else found.judgement.conclusion
            for found in self.claims
        )
        last = (_ON_GENERATED, Conclusion.NO_VERDICT, Conclusion.NOT_RUN)
        in_order = sorted(counts, key=lambda words: last.index(words) if words in last else -1)
        claimed = ", ".join(f"{words.lower()}: {counts[words]}" for words in in_order)
        shown = {"Claims": claimed} if claimed else {}
        if not self._runs:
            return shown | {"Runs": "none has finished yet"}
        hours = sum(run["cpu_s"] for run in self._runs) / 3600
        seeds = sorted({run["config"]["seed"] for run in self._runs})
        return shown | {
            "Runs": f"{len(self._runs)} finished, {hours:.1f} CPU hours",
            "Seeds": ", ".join(map(str, seeds)),
        }

    def circumstances(self) -> dict[str, str]:
        """When and where it was run."""
        if not self._runs:
            return {}
        days = sorted(run["finished"][:10] for run in self._runs)
        versions = {", ".join(map(" ".join, run["versions"].items())) for run in self._runs}
        return {
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

    def _item(self, item: Item) -> dict:
        """A table or figure: picture, tables, claims with their comparisons, command."""
        frame = tables.table(self.scale, self._folder, item.name)
        is_run = bool(frame.seeds.any())
        return {
            "name": item.name,
            "short": item.short,
            "heading": item.heading,
            "is_run": is_run,
            **self._picture(item),
            "tables": list(item_tables.tables(item, frame, self._here))
            if is_run or frame.paper.any()
            else [],
            "claims": [
                {"found": found, "rows": item_tables.comparisons(found, self._printed)}
                for found in self.claims
                if found.item is item
            ],
            "command": commands.run(self.scale, self._folder, item.name),
        }

    def _picture(self, item: Item) -> dict[str, str | Markup]:
        is_written = (self._folder / f"{item.name}.png").exists()
        figure = is_written and figures.draw(self.scale, self._folder, item.name)
        if not figure:
            return {"picture": ""}
        return {
            "picture": pictures.inline(figure, item.name),
            "alt": f"{item.heading}. {figures.describe(self.scale, self._folder, item.name)}",
            "reading": DRAWINGS[item.name].reading,
        }

    def _printed(self, item: str, dataset: str) -> str:
        """The name of the data that an item ran on in a data set's place; '' for none."""
        place = self.scale.place(item, dataset)
        return self._names.get(place.dataset, place.dataset) if place else ""

    def _here(self, item: str, dataset: str) -> str:
        """What an item ran on in a data set's place, in words."""
        place = self.scale.place(item, dataset)
        if place is None:
            return "nothing stands in its place at this scale"
        name = self._printed(item, dataset)
        if place.dataset != scales.BY_NAME["paper"].data[dataset].dataset:
            return f"{name}, a stand-in"
        return name if self.scale.is_paper else f"{name}, reduced"
