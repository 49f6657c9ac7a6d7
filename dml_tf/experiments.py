"""The paper's tables as data: cells, the runs that fill them, and the scales they run at.

A cell says which run fills it; the runs of a scale are the union over its cells, so that the
independent ResNet-32 trains once and serves every row that needs it. Nothing here imports
TensorFlow.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from dml_tf import config
from dml_tf.config import Config

# The paper's networks and data sets, by the names that its tables print.
NETWORKS = ("ResNet-32", "MobileNet", "InceptionV1", "WRN-28-10")
CIFAR = ("CIFAR-10", "CIFAR-100")
PAIRS = (
    ("ResNet-32", "ResNet-32"),
    ("WRN-28-10", "ResNet-32"),
    ("MobileNet", "ResNet-32"),
    ("MobileNet", "MobileNet"),
    ("WRN-28-10", "MobileNet"),
    ("WRN-28-10", "WRN-28-10"),
)


@dataclasses.dataclass(frozen=True)
class Data:
    """What stands in a data set's place at one scale.

    Attributes:
        dataset: Value of `--dataset`.
        seeds: How many seeds each run has.
        networks: The paper's network -> value of `--net`.
        settings: Flags of every run on it at this scale.
        pretrained: Value of `--pretrained` for networks that start from ImageNet's weights.
    """

    dataset: str
    seeds: int
    networks: Mapping[str, str]
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    pretrained: str = ""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Which data and networks stand in the paper's places, and how the result is called.

    Attributes:
        name: Value of `--scale`.
        data: The paper's data set -> what stands in its place.
    """

    name: str
    data: Mapping[str, Data]

    @property
    def is_paper(self) -> bool:
        """Whether results may be compared with the paper's numbers."""
        return self.name == "paper"


# Table 3's published competitors -> which columns the paper prints; they need no run.
REID_PUBLISHED = {
    "Gated S-CNN": "",
    "k-reciprocal": "Single",
    "MSCAN": "",
    "PDC": "Single",
    "DLPAR": "Single",
}

PAPER_NETWORKS = dict(
    zip(NETWORKS, ("resnet32", "mobilenet", "inception_v1", "wrn-28-10"), strict=True)
)
_SMALL = {"ResNet-32": "resnet8:16", "MobileNet": "mobilenet_short:0.5", "WRN-28-10": "wrn-10-2"}
_TINY = {"ResNet-32": "resnet8:4", "MobileNet": "mobilenet_short:0.25", "WRN-28-10": "wrn-10-1:4"}

_TWO_STEPS = {"steps": 2, "batch_size": 8}

SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            {
                "CIFAR-10": Data("digits", 1, _TINY, _TWO_STEPS | {"train_images": 100}),
                "CIFAR-100": Data("shapes100", 1, _TINY, _TWO_STEPS | {"train_images": 100}),
                "Market-1501": Data("pedestrians", 1, _TINY, _TWO_STEPS),
            },
        ),
        Scale(
            "mini",
            {
                "CIFAR-10": Data("digits", 3, _SMALL),
                "CIFAR-100": Data("shapes100", 1, _SMALL),
                "Market-1501": Data("pedestrians", 1, _SMALL),
            },
        ),
        Scale("cpu", {"CIFAR-10": Data("cifar10", 5, _SMALL)}),
        Scale(
            "paper",
            {
                "CIFAR-10": Data("cifar10", 3, PAPER_NETWORKS),
                "CIFAR-100": Data("cifar100", 3, PAPER_NETWORKS),
                "Market-1501": Data("market1501", 3, PAPER_NETWORKS, pretrained="imagenet"),
            },
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of a table, in the paper's words, and how it is measured.

    Attributes:
        item: `table1`, `table2`, ...
        dataset: The paper's data set.
        row: The table's row.
        column: The table's column.
        metric: Which of a record's measures, such as `accuracy` or `multi_query.mAP`; or
            `millions` (of parameters).
        method: Value of `--method` of the run that fills the cell; '' where none does.
        networks: The paper's networks in that run.
        peer: Which of them the number belongs to; None for the mean over all.
        pretrained: Whether they start from ImageNet's weights.
    """

    item: str
    dataset: str
    row: str
    column: str
    metric: str
    method: str = ""
    networks: tuple[str, ...] = ()
    peer: int | None = 0
    pretrained: bool = False

    def run(self, scale: Scale, seed: int, results_dir: str, data_dir: str = "") -> Config | None:
        """The run that fills the cell.

        Args:
            scale: Where it runs.
            seed: Which of its seeds.
            results_dir: Where its record belongs.
            data_dir: Where its data are.

        Returns:
            Its settings; None if the cell has no place at this scale, or needs no run.
        """
        data = scale.data.get(self.dataset)
        if data is None or not self.method or (self.pretrained and not data.pretrained):
            return None
        return config.load(
            dataset=data.dataset,
            scale=scale.name,
            net=tuple(data.networks[name] for name in self.networks),
            method=self.method,
            seed=seed,
            results_dir=results_dir,
            data_dir=data_dir,
            **data.settings,
            **({"pretrained": data.pretrained} if self.pretrained else {}),
        )


@dataclasses.dataclass(frozen=True)
class Gain:
    """A computed line of a table: what one cell has over another, paired by seed.

    Attributes:
        row: The table's row.
        column: The table's column, such as `DML-Ind Net 1`.
        cell: The cell that should have gained.
        baseline: What is subtracted, a cell of the same table and data set.
    """

    row: str
    column: str
    cell: Cell
    baseline: Cell


def table1() -> list[Cell]:
    """Table 1: the networks' sizes, which need no training."""
    return [
        Cell("table1", "CIFAR-100", name, "Parameters", "millions", networks=(name,))
        for name in NETWORKS
    ]


def table2() -> list[Cell | Gain]:
    """Table 2: six pairs on two data sets; its DML-Ind columns are computed."""
    lines = []
    for dataset, pair, k in itertools.product(CIFAR, PAIRS, (0, 1)):
        row = " + ".join(pair)
        at = ("table2", dataset, row)
        alone = Cell(*at, f"Independent Net {k + 1}", "accuracy", "independent", (pair[k],))
        dml = Cell(*at, f"DML Net {k + 1}", "accuracy", "dml", pair, k)
        lines += [alone, dml, Gain(row, f"DML-Ind Net {k + 1}", dml, alone)]
    return lines


def table3() -> list[Cell | Gain]:
    """Table 3: re-identification, the average of the two networks of a cohort."""
    columns = {
        "Single-Query mAP": "mAP",
        "Single-Query Rank-1": "rank1",
        "Multi-Query mAP": "multi_query.mAP",
        "Multi-Query Rank-1": "multi_query.rank1",
    }
    lines = [
        Cell("table3", "Market-1501", row, column, metric)
        for row, queries in REID_PUBLISHED.items()
        for column, metric in columns.items()
        if column.startswith(queries)
    ]
    for pretrained, (column, metric) in itertools.product((False, True), columns.items()):
        name = "MobileNet, pre-trained" if pretrained else "MobileNet"
        alone, dml = (
            Cell("table3", "Market-1501", row, column, metric, method, nets, None, pretrained)
            for row, method, nets in (
                (name, "independent", ("MobileNet",)),
                (f"{name}, DML", "dml", ("MobileNet", "MobileNet")),
            )
        )
        lines += [alone, dml, Gain(f"{name}, DML-Ind", column, dml, alone)]
    return lines


ITEMS: Mapping[str, Callable[[], list]] = {"table1": table1, "table2": table2, "table3": table3}


def cells(items: Iterable[str] = tuple(ITEMS)) -> list[Cell]:
    """The cells of some tables.

    Args:
        items: Names of tables.

    Returns:
        Their cells.
    """
    return [line for item in items for line in ITEMS[item]() if isinstance(line, Cell)]


def runs(
    scale: Scale,
    items: Sequence[str] = tuple(ITEMS),
    *,
    results_dir: str,
    data_dir: str = "",
    seeds: int = 0,
) -> list[Config]:
    """The runs that some tables need at one scale, each once.

    Args:
        scale: Where they run.
        items: Names of tables.
        results_dir: Where records belong.
        data_dir: Where data are.
        seeds: Seeds of each run; 0 for the scale's own number.

    Returns:
        Their settings; the first seed of every run comes first.
    """
    wanted: dict[str, Config] = {}
    filled = [cell for cell in cells(items) if cell.dataset in scale.data]
    for seed in range(seeds or max(data.seeds for data in scale.data.values())):
        for cell in filled:
            if seed < (seeds or scale.data[cell.dataset].seeds):
                run = cell.run(scale, seed, results_dir, data_dir)
                if run:
                    wanted.setdefault(run.run_id, run)
    return list(wanted.values())
