"""What a table or figure is made of: cells, contrasts between them, and the paper's claims."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

from dml_tf.data import GENERATED_DATASETS
from dml_tf.paper.scales import MARKET_IDENTITIES, Scale
from dml_tf.runs import config
from dml_tf.runs.config import Config

# What names a number, in a cell and in results/paper.csv.
KEYS = ("item", "dataset", "row", "column", "metric")
_IN_NATS = ("train.cross_entropy", "train.entropy")  # so is weight noise: noise.<sigma>


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of a table or figure, in the paper's words, and the run that measures it.

    Attributes:
        item: `table1`, `figure3a`, ...
        dataset: The paper's data set.
        row: The table's row.
        column: The table's column.
        metric: A measure of the record, such as `multi_query.mAP`: of the test images, or with
            `train.` in front of the training images. `main` is accuracy, or mAP in
            re-identification. A run with `analyse` also has `noise.<sigma>`, `mass.<rank>` and
            `same_peer`. `millions` counts parameters and needs no run.
        method: Value of `--method` of the run; '' without a run.
        networks: The paper's networks in that run.
        of: Whose number it is: a peer's index, `mean` or `std` over the peers, or `ensemble`.
        settings: Further flags of the run.
        pretrained: Whether its networks start from ImageNet's weights.
        printed: Whether the paper prints the number.
        x: Its place on the figure's axis, where that is a number.
    """

    item: str
    dataset: str
    row: str
    column: str
    metric: str
    method: str = ""
    networks: tuple[str, ...] = ()
    of: int | str = 0
    settings: tuple[tuple[str, object], ...] = ()
    pretrained: bool = False
    printed: bool = True
    x: float | None = None
    constant: ClassVar[float] = 0.0

    @property
    def terms(self) -> "tuple[tuple[Cell, float], ...]":
        """The cell as a sum of one term, like a contrast's."""
        return ((self, 1.0),)

    @property
    def key(self) -> tuple[str, ...]:
        """The cell's place in paper.csv: the values of `KEYS`."""
        return tuple(getattr(self, key) for key in KEYS)

    def run(self, scale: Scale, seed: int, results_dir: str, data_dir: str = "") -> Config | None:
        """The run that measures the cell; None if it needs no run, or has none at this scale."""
        data = scale.place(self.item, self.dataset)
        if data is None or not self.method or (self.pretrained and not data.pretrained):
            return None
        settings = {**data.settings, **dict(self.settings)}
        if settings.get("optimizer") == "entropy_sgd":
            settings |= data.entropy_sgd
        if self.pretrained:
            settings["pretrained"] = data.pretrained
        if identities := settings.get("labelled_identities"):
            settings["labelled_identities"] = round(
                identities * data.identities / MARKET_IDENTITIES
            )
        run = config.load(
            dataset=data.dataset,
            scale=scale.name,
            net=tuple(data.networks[name] for name in self.networks),
            method=self.method,
            **settings,
        )
        if data.dataset in GENERATED_DATASETS:
            data_dir = ""  # it is generated in its own place, not among the user's data
        return run.replace(seed=seed, results_dir=results_dir, data_dir=data_dir)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A weighted sum of cells, computed seed by seed, such as DML's gain.

    Attributes:
        row: The table's row.
        column: The table's column, such as `DML-Ind Net 1`.
        terms: Cells of one item and their weights.
        constant: Added to the sum.
    """

    row: str
    column: str
    terms: tuple[tuple[Cell, float], ...]
    constant: float = 0.0

    @property
    def first(self) -> Cell:
        """The first cell, whose item, data set and metric are those of the contrast."""
        return self.terms[0][0]


Line = Cell | Contrast


@dataclasses.dataclass(frozen=True)
class Claim:
    """Something that the paper says in words.

    Attributes:
        section: Where it says so.
        text: The claim.
        contrasts: What is above zero if the claim is true; no different from zero where `equal`.
        equal: Whether the claim is that there is no difference.
    """

    section: str
    text: str
    contrasts: tuple[Contrast, ...]
    equal: bool = False


@dataclasses.dataclass(frozen=True)
class Item:
    """A table or figure of the paper, or numbers of a section.

    Attributes:
        name: Its name in file names and in `--only`, such as `table1`.
        short: Its name in the paper, such as `Table 1`.
        title: What it shows.
        lines: Its cells and contrasts, in order.
        claims: What the paper says of it.
    """

    name: str
    short: str
    title: str
    lines: tuple[Line, ...]
    claims: tuple[Claim, ...] = ()

    @property
    def heading(self) -> str:
        """Name and title: `Table 1: the networks' sizes, ...`."""
        return f"{self.short}: {self.title}"

    @property
    def cells(self) -> list[Cell]:
        """The lines that are measured, not computed."""
        return [line for line in self.lines if isinstance(line, Cell)]


def gain(row: str, column: str, line: Line, baseline: Line) -> Contrast:
    """The difference `line - baseline`."""
    negative = tuple((cell, -weight) for cell, weight in baseline.terms)
    return Contrast(row, column, line.terms + negative, line.constant - baseline.constant)


def contrasts(
    lines: Iterable[Line], rows: Sequence[str] = (), columns: Sequence[str] = ()
) -> tuple[Contrast, ...]:
    """The contrasts among some lines; only of `rows` and `columns` if those are given."""
    return tuple(
        line
        for line in lines
        if isinstance(line, Contrast)
        and (not rows or line.row in rows)
        and (not columns or line.column in columns)
    )


def in_nats(metric: str) -> bool:
    """Whether a cell's metric is in nats; others are in percent, or millions."""
    return metric in _IN_NATS or metric.startswith("noise.")
