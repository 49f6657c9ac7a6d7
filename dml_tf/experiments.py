"""The paper's tables as data: cells, the runs that fill them, and the scales they run at.

A cell says which run fills it; the runs of a scale are the union over its cells, so that the
independent ResNet-32 trains once and serves every row that needs it. Nothing here imports
TensorFlow.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

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
    """

    dataset: str
    seeds: int
    networks: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Scale:
    """Which data and networks stand in the paper's places, and how the result is called.

    Attributes:
        name: Value of `--scale`.
        data: The paper's data set -> what stands in its place.
        settings: Flags of every run of this scale.
    """

    name: str
    data: Mapping[str, Data]
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def is_paper(self) -> bool:
        """Whether results may be compared with the paper's numbers."""
        return self.name == "paper"


PAPER_NETWORKS = dict(
    zip(NETWORKS, ("resnet32", "mobilenet", "inception_v1", "wrn-28-10"), strict=True)
)
_SMALL = {"ResNet-32": "resnet8:16", "MobileNet": "mobilenet_short:0.5", "WRN-28-10": "wrn-10-2"}
_TINY = {"ResNet-32": "resnet8:4", "MobileNet": "mobilenet_short:0.25", "WRN-28-10": "wrn-10-1:4"}

SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            {"CIFAR-10": Data("digits", 1, _TINY), "CIFAR-100": Data("shapes100", 1, _TINY)},
            {"steps": 2, "train_images": 100, "batch_size": 8},
        ),
        Scale(
            "mini",
            {"CIFAR-10": Data("digits", 3, _SMALL), "CIFAR-100": Data("shapes100", 1, _SMALL)},
        ),
        Scale("cpu", {"CIFAR-10": Data("cifar10", 5, _SMALL)}),
        Scale(
            "paper",
            {
                "CIFAR-10": Data("cifar10", 3, PAPER_NETWORKS),
                "CIFAR-100": Data("cifar100", 3, PAPER_NETWORKS),
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
        metric: `accuracy` or `millions` (of parameters).
        method: Value of `--method` of the run that fills the cell.
        networks: The paper's networks in that run.
        peer: Which of them the number belongs to.
    """

    item: str
    dataset: str
    row: str
    column: str
    metric: str
    method: str
    networks: tuple[str, ...]
    peer: int = 0

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
        if data is None or self.metric == "millions":
            return None
        return config.load(
            dataset=data.dataset,
            scale=scale.name,
            net=tuple(data.networks[name] for name in self.networks),
            method=self.method,
            seed=seed,
            results_dir=results_dir,
            data_dir=data_dir,
            **scale.settings,
        )


def table1() -> list[Cell]:
    """Table 1: the networks' sizes, which need no training."""
    return [
        Cell("table1", "CIFAR-100", name, "Parameters", "millions", "independent", (name,))
        for name in NETWORKS
    ]


def table2() -> list[Cell]:
    """Table 2: six pairs on two data sets; its DML-Ind columns are computed."""
    return [
        Cell("table2", dataset, " + ".join(pair), f"{title} Net {k + 1}", "accuracy", *by, k_of_run)
        for dataset in CIFAR
        for pair in PAIRS
        for k in (0, 1)
        for title, by, k_of_run in (
            ("Independent", ("independent", (pair[k],)), 0),
            ("DML", ("dml", pair), k),
        )
    ]


ITEMS = {"table1": table1, "table2": table2}


def cells(items: Iterable[str] = tuple(ITEMS)) -> list[Cell]:
    """The cells of some tables.

    Args:
        items: Names of tables.

    Returns:
        Their cells.
    """
    return [cell for item in items for cell in ITEMS[item]()]


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
