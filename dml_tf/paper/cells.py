"""What a table or figure is made of: cells, contrasts between them, and the paper's claims."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

from dml_tf import data
from dml_tf.paper.scales import MARKET_IDENTITIES, Scale
from dml_tf.runs import config
from dml_tf.runs.config import Config

# What names a number, in a cell and in results/paper.csv.
KEYS = ("item", "dataset", "row", "column", "metric")
_IN_NATS = ("train.cross_entropy", "train.entropy", "noise", "filter_noise")


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
            re-identification. A run with `analyse` also has `noise.<sigma>`,
            `relative_noise.<sigma>` (divided by the loss without noise), `filter_noise.<ratio>`,
            `mass.<rank>` and `same_peer`. `millions` counts parameters and needs no run.
        method: Value of `--method` of the run; '' without a run.
        networks: The paper's networks in that run.
        of: Whose number it is: a peer's index, `mean` or `std` over the peers that learn, or
            `ensemble`.
        settings: Further flags of the run.
        pretrained: Whether its networks start from ImageNet's weights.
        printed: Whether the paper prints the number.
        x: Its place on the figure's axis, where that is a number.
        teacher: Where the first networks are frozen teachers: the cell whose run they are the
            first networks of.
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
    teacher: "Cell | None" = None
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
        place = scale.place(self.item, self.dataset)
        if place is None or not self.method or (self.pretrained and not place.pretrained):
            return None
        here = self.at(scale)
        settings = {**place.settings, **dict(self.settings)}
        if settings.get("optimizer") == "entropy_sgd":
            settings |= place.entropy_sgd
        if self.pretrained:
            settings["pretrained"] = place.pretrained
        if identities := settings.get("labelled_identities"):
            settings["labelled_identities"] = round(
                identities * place.identities / MARKET_IDENTITIES
            )
        run = config.load(
            dataset=place.dataset,
            scale=scale.name,
            net=tuple(place.networks[name] for name in here.networks),
            method=self.method,
            **settings,
        )
        if place.dataset in data.GENERATED_DATASETS:
            data_dir = ""  # it is generated in its own place, not among the user's data
        run = _lengthened(run).replace(seed=seed, results_dir=results_dir, data_dir=data_dir)
        if self.teacher:
            teacher = self.teacher.run(scale, seed, results_dir).run_id
            if self.method != "distill" or teacher != run.default_teacher.run_id:
                run = run.replace(teacher=teacher)
        return run

    def at(self, scale: Scale) -> "Cell":
        """The cell as one scale measures it: a scale may have a baseline of its own."""
        size = scale.baselines.get(self.item)
        if self.method != "independent" or not size:
            return self
        return dataclasses.replace(self, networks=self.networks[:1] * size, of="mean")


def _lengthened(run: Config) -> Config:
    """A run without the unlabelled images takes as many steps as one with them (Fig. 6)."""
    images = run.train_images or data.TRAIN_IMAGES.get(run.dataset, 0)
    if run.unlabelled != "drop" or run.steps or not images:
        return run
    all_images, kept = run.schedule(images), round(images * run.labelled_fraction)
    run = run.replace(batch_size=min(run.batch_size, kept))  # at least a batch is left
    labelled = run.schedule(kept)
    longer = all_images.steps_per_epoch / labelled.steps_per_epoch
    return run.replace(steps=all_images.steps, decay_epochs=round(run.decay_epochs * longer))


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
    """Something that the paper says in words, and how it is judged (`results/cpu/PROTOCOL.md`).

    Attributes:
        section: Where it says so.
        text: The claim.
        contrasts: Its places. In each seed their mean is taken. It is above zero if the claim is
            true; within `margin` of zero where there is a margin.
        each: Whether the claim is that every place is above zero, not only their mean.
        margin: Of a claim of equality: a difference that does not matter; else 0.
        useful: The claim is refuted if the interval of the mean ends below it; 0 for no such end.
    """

    section: str
    text: str
    contrasts: tuple[Contrast, ...]
    each: bool = False
    margin: float = 0.0
    useful: float = 0.0


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


def unit(metric: str) -> str:
    """The unit of a metric's differences: points, nats, times, or millions of parameters."""
    if metric == "millions" or metric.startswith("relative_noise."):
        return "millions" if metric == "millions" else "times"
    in_nats = metric in _IN_NATS or metric.partition(".")[0] in _IN_NATS
    return "nats" if in_nats else "points"
