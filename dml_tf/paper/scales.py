"""The four scales: what stands in the place of the paper's data sets and networks at each."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from dml_tf import home

# The paper's networks and data sets, by the names that it prints.
NETWORKS = ("ResNet-32", "MobileNet", "InceptionV1", "WRN-28-10")
CIFAR = ("CIFAR-10", "CIFAR-100")
MARKET, IMAGENET = "Market-1501", "ImageNet"
MARKET_IDENTITIES = 751
# Our own studies (paper/items/studies.py): those with a protocol, which only the cpu scale runs,
# and exploratory ones, each with a scale and a results folder of its own.
_WITH_PROTOCOL = ("start", "augmented", "cohorts", "ensemble_teacher")
STUDIES = (*_WITH_PROTOCOL, "teachers")


@dataclasses.dataclass(frozen=True)
class Data:
    """What stands in a data set's place at one scale.

    Attributes:
        dataset: Value of `--dataset`.
        seeds: How many seeds each run has.
        networks: The paper's network -> value of `--net`.
        settings: Flags of every run on it at this scale.
        pretrained: Value of `--pretrained` for networks that start from ImageNet's weights.
        entropy_sgd: Flags that `--optimizer=entropy_sgd` needs in place of the data set's.
        identities: How many training identities there are.
        optional: Pattern of a file or folder in `--data_dir`; without it the scale leaves the data
            set out. '' for a data set that the scale needs.
    """

    dataset: str
    seeds: int
    networks: Mapping[str, str]
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    pretrained: str = ""
    entropy_sgd: Mapping[str, object] = dataclasses.field(default_factory=dict)
    identities: int = MARKET_IDENTITIES
    optional: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """What is run at one scale.

    Attributes:
        name: Value of `--scale`.
        data: The paper's data set -> what stands in its place.
        seeds: Item, or item and data set -> how many seeds its runs have, where that is not the
            number of the data.
        seed_range: Seeds that runs, tables and figures may use. Records of other seeds in the
            results folder are not read.
        exploratory: The name of runs that decide nothing, and of their folder in `results/<name>`.
        is_fixed: Whether an item's tables use its planned seeds only, the first ones of the range.
            Then nothing is concluded before the last of them has finished.
        studies: Which of `STUDIES` it runs.
        is_study: Whether it runs these studies and nothing of the paper.
        baselines: Item -> number of networks trained alone. Their mean is the item's independent
            number at this scale, in place of each network of an independent pair.
        moved: Item and data set -> another of the paper's data sets, on whose stand-in the item
            runs at this scale.
        without: The same, used only if the data set itself has no stand-in.
    """

    name: str
    data: Mapping[str, Data]
    seeds: Mapping[str | tuple[str, str], int] = dataclasses.field(default_factory=dict)
    seed_range: range = range(100)
    exploratory: str = ""
    is_fixed: bool = False
    studies: tuple[str, ...] = ()
    is_study: bool = False
    baselines: Mapping[str, int] = dataclasses.field(default_factory=dict)
    moved: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    without: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    @property
    def is_paper(self) -> bool:
        """Whether results may be compared with the paper's numbers."""
        return self.name == "paper"

    @property
    def is_exploratory(self) -> bool:
        """Whether its runs decide nothing: they have no protocol, or were made before it."""
        return bool(self.exploratory)

    @property
    def results_dir(self) -> Path:
        """Where its records, tables and figures belong, if no other folder is given."""
        return home.HOME / "results" / self.name / self.exploratory

    def has(self, item: str) -> bool:
        """Whether an item of the paper, or one of our studies, belongs to the scale."""
        return item in self.studies if item in STUDIES else not self.is_study

    def place(self, item: str, dataset: str) -> Data | None:
        """What an item runs on in the place of one of the paper's data sets; None if nothing."""
        if not self.has(item):
            return None
        at = (item, dataset)
        own = self.data.get(self.moved.get(at, dataset))
        return own or self.data.get(self.without.get(at, ""))

    def with_seeds(self, count: int) -> "Scale":
        """The scale with another number of seeds for every run; itself for 0."""
        if not count:
            return self
        places = {name: dataclasses.replace(at, seeds=count) for name, at in self.data.items()}
        return dataclasses.replace(self, data=places, seeds={})

    def planned(self, item: str, dataset: str) -> range:
        """The seeds of an item's runs on what stands in a data set's place."""
        place = self.place(item, dataset)
        if not place:
            return range(0)
        count = self.seeds.get((item, dataset), self.seeds.get(item, place.seeds))
        return self.seed_range[:count]

    def used(self, item: str, dataset: str) -> range:
        """The seeds that an item's tables and figures may use."""
        return self.planned(item, dataset) if self.is_fixed else self.seed_range

    def available(self, folder: Path, data_dir: str = "") -> "Scale":
        """The scale without the optional data sets that cannot be had.

        They are kept if the results folder has their records, or `data_dir` their files.
        """
        return dataclasses.replace(
            self,
            data={
                name: data
                for name, data in self.data.items()
                if not data.optional
                or any((folder / "runs").glob(f"{data.dataset}-*.json"))
                or (data_dir and any(Path(data_dir).glob(data.optional)))
            },
        )


PAPER_NETWORKS = dict(
    zip(NETWORKS, ("resnet32", "mobilenet", "inception_v1", "wrn-28-10"), strict=True)
)
_SMALL = {
    "ResNet-32": "resnet8:16",
    "MobileNet": "mobilenet_short:0.5",
    "InceptionV1": "wrn-10-1",
    "WRN-28-10": "wrn-10-2",
}
_TINY = {
    "ResNet-32": "resnet8:4",
    "MobileNet": "mobilenet_short:0.25",
    "InceptionV1": "wrn-10-1:4",
    "WRN-28-10": "wrn-10-1:4",
}
_TWO_STEPS = {"steps": 2, "batch_size": 8}
# Table 5's Entropy-SGD: at a rate of 1 the weights become the mean of the samples around them.
_ENTROPY_SGD = {"learning_rate": 1.0, "momentum": 0.9}
# Photographs and digits say more about a classifier's cohorts than generated pedestrians.
_FIGURE_3 = {(item, MARKET): "CIFAR-10" for item in ("figure3a", "figure3b", "entropy")}
_FIGURE_5 = {("figure5", MARKET): "CIFAR-10"}
# Where CIFAR-100 has no stand-in. Table 2 and Sec. 3.1 also have rows of CIFAR-10.
_WITHOUT_CIFAR_100 = {
    (item, "CIFAR-100"): "CIFAR-10"
    for item in ("table4", "entropy", "figure4a", "figure4b", "figure4c", "figure6a")
}

BY_NAME: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            {
                "CIFAR-10": Data("digits", 1, _TINY, _TWO_STEPS | {"train_images": 100}),
                "CIFAR-100": Data("shapes100", 1, _TINY, _TWO_STEPS | {"train_images": 100}),
                MARKET: Data(
                    "pedestrians",
                    1,
                    _TINY,
                    _TWO_STEPS,
                    entropy_sgd=_ENTROPY_SGD,
                    identities=100,
                ),
                IMAGENET: Data("imagenet_mini", 1, _TINY, _TWO_STEPS),
            },
            moved=_FIGURE_3,
        ),
        Scale(
            "mini",
            {
                # In 24 epochs independent networks fit all training images, as in 100 (seed 100).
                "CIFAR-10": Data("digits", 6, _SMALL, {"epochs": 24, "decay_epochs": 7}),
                MARKET: Data(
                    "pedestrians",
                    1,
                    _SMALL,
                    {"steps": 60},  # three moves of Entropy-SGD
                    pretrained="imagenet_mini-independent-mobilenet_shortw0.5-seed0-43d68192",
                    # The best of two Langevin rates and two numbers of steps, chosen by an
                    # independent network's mAP on seed 100, which no table uses.
                    entropy_sgd={**_ENTROPY_SGD, "langevin_rate": 0.3},
                    identities=100,
                ),
                # What is generated is trained briefly, so that a sweep takes 20 minutes.
                IMAGENET: Data("imagenet_mini", 1, _SMALL, {"epochs": 6, "decay_epochs": 5}),
            },
            # Table 2, Sec. 3.1 and the entropies carry verdicts. The others show that all runs.
            seeds={
                item: 1
                for item in (
                    "table4",
                    "figure3a",
                    "figure3b",
                    "figure4a",
                    "figure4b",
                    "figure4c",
                    "figure5",
                    "figure6a",
                )
            },
            is_fixed=True,
            moved=_FIGURE_3 | _FIGURE_5,
            without=_WITHOUT_CIFAR_100,
        ),
        Scale(
            "cpu",
            {
                "CIFAR-10": Data("cifar10", 16, _SMALL),
                "CIFAR-100": Data("cifar100", 3, _SMALL, optional="cifar-100*"),
                MARKET: Data(
                    "pedestrians",
                    3,
                    _SMALL,
                    pretrained="cifar10-independent-mobilenet_shortw0.5+mobilenet_shortw0.5"
                    "+mobilenet_shortw0.5-seed10",
                    entropy_sgd={**_ENTROPY_SGD, "langevin_rate": 0.3},
                    identities=100,
                ),
            },
            # results/cpu/PROTOCOL.md fixes these numbers. Other seeds are exploratory.
            seeds={
                "start": 12,
                "augmented": 10,
                "cohorts": 8,
                "ensemble_teacher": 10,
                "table4": 10,
                ("table4", MARKET): 0,  # generated pictures are no evidence
                "entropy": 8,
                "figure3a": 0,
                "figure3b": 0,
                "figure6a": 6,
            },
            seed_range=range(10, 50),
            is_fixed=True,
            studies=_WITH_PROTOCOL,
            baselines={
                item: 3
                for item in (
                    "table2",
                    "table4",
                    "entropy",
                    "figure4a",
                    "figure4b",
                    "figure4c",
                    "figure5",
                    "ensemble_teacher",
                )
            },
            moved=_FIGURE_3 | _FIGURE_5,
            without=_WITHOUT_CIFAR_100,
        ),
        Scale(
            "paper",
            {
                "CIFAR-10": Data("cifar10", 3, PAPER_NETWORKS),
                "CIFAR-100": Data("cifar100", 3, PAPER_NETWORKS),
                MARKET: Data(
                    "market1501",
                    3,
                    PAPER_NETWORKS,
                    pretrained="imagenet",
                    entropy_sgd=_ENTROPY_SGD,
                ),
                IMAGENET: Data("imagenet", 1, PAPER_NETWORKS),
            },
        ),
    )
}
# The first runs on photographs, in results/cpu/exploratory: other seeds, and one network alone as
# the baseline. No confirmatory figure uses them.
EXPLORATORY = dataclasses.replace(
    BY_NAME["cpu"],
    seeds={},
    seed_range=range(10),
    exploratory="exploratory",
    is_fixed=False,
    studies=(),
    baselines={
        item: 1
        for item in (
            "table2", "table4", "entropy", "figure4a", "figure4b", "figure4c", "figure6a",
        )
    },
)  # fmt: skip
# Ways to learn from peers, on flipped photographs: one of them is a view of its own for each peer.
TEACHERS = Scale(
    "cpu",
    {"CIFAR-10": Data("cifar10", 6, _SMALL, {"augment": "flip"})},
    seed_range=range(100, 106),
    exploratory="teachers",
    studies=("teachers",),
    is_study=True,
)
EXPLORED: Mapping[str, Scale] = {scale.exploratory: scale for scale in (EXPLORATORY, TEACHERS)}
