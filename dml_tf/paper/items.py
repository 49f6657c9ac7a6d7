"""The paper's tables and figures as data: cells, and contrasts between them.

A cell says which run fills it; the runs of a scale are the union over its cells, so that the
independent ResNet-32 trains once and serves every row that needs it. Nothing here imports
TensorFlow.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from dml_tf.measures.analysis import SIGMAS
from dml_tf.paper.scales import CIFAR, IMAGENET, MARKET, MARKET_IDENTITIES, NETWORKS, Scale
from dml_tf.runs import config
from dml_tf.runs.config import Config

PAIRS = (
    ("ResNet-32", "ResNet-32"),
    ("WRN-28-10", "ResNet-32"),
    ("MobileNet", "ResNet-32"),
    ("MobileNet", "MobileNet"),
    ("WRN-28-10", "MobileNet"),
    ("WRN-28-10", "WRN-28-10"),
)
# Table 3's published competitors -> which columns the paper prints; they need no run.
REID_PUBLISHED = {
    "Gated S-CNN": "",
    "k-reciprocal": "Single",
    "MSCAN": "",
    "PDC": "Single",
    "DLPAR": "Single",
}
REID_COLUMNS = {
    "Single-Query mAP": "mAP",
    "Single-Query Rank-1": "rank1",
    "Multi-Query mAP": "multi_query.mAP",
    "Multi-Query Rank-1": "multi_query.rank1",
}
DISTILLATIONS = (
    ("CIFAR-100", "WRN-28-10", "ResNet-32"),
    ("CIFAR-100", "MobileNet", "ResNet-32"),
    (MARKET, "InceptionV1", "MobileNet"),
    (MARKET, "MobileNet", "MobileNet"),
)
COHORT_SIZES = (1, 2, 3, 4, 5)
# Row of Fig. 6 -> settings; identities are counted as in the paper, of 751.
LABELLED = {
    "figure6a": {f"{p}%": (("labelled_fraction", p / 100),) for p in (10, 25, 50)} | {"100%": ()},
    "figure6b": {str(m): (("labelled_identities", m),) for m in (100, 250, 500)} | {"751": ()},
}
# How the mimicry of Fig. 3's cohorts may be read: Eqs. (10) and (11) have one gradient, so that the
# figure's two curves need one of the authors' sum or another average.
COHORT_METHODS = {
    "Independent": ("independent", ()),
    "DML": ("dml", ()),
    "DML, sum": ("dml", (("peer_reduction", "sum"),)),
    "DML_e, logits": ("dml_e", (("ensemble_average", "logit"),)),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of a table or figure, in the paper's words, and how it is measured.

    Attributes:
        item: `table1`, `figure3a`, ...
        dataset: The paper's data set.
        row: The table's row.
        column: The table's column.
        metric: Which of a record's measures, such as `multi_query.mAP`, of the test images unless
            it begins with `train.`; `main` for accuracy, or mAP in re-identification; of a run with
            `analyse`, `noise.<sigma>`, `mass.<rank>` or `same_peer`; `millions` (of parameters).
        method: Value of `--method` of the run that fills the cell; '' where none does.
        networks: The paper's networks in that run.
        of: Whose it is: a peer's index, `mean` or `std` over the peers, or `ensemble`.
        settings: Further flags of the run.
        pretrained: Whether its networks start from ImageNet's weights.
        printed: Whether the paper prints a number.
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
        return run.replace(seed=seed, results_dir=results_dir, data_dir=data_dir)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A computed line: a weighted sum of cells, seed by seed, such as what DML gains.

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


Line = Cell | Contrast


def gain(row: str, column: str, cell: Cell, baseline: Cell) -> Contrast:
    """What one cell has over another.

    Args:
        row: The line's row.
        column: The line's column.
        cell: The cell that should have gained.
        baseline: What is subtracted.

    Returns:
        Their difference.
    """
    return Contrast(row, column, ((cell, 1.0), (baseline, -1.0)))


def section31() -> list[Line]:
    """Sec. 3.1: the mimicry loss of Eq. (7) in place of the KL divergence."""
    nets = ("ResNet-32", "ResNet-32")
    lines = []
    for dataset in CIFAR:
        kl, js = (
            Cell("section31", dataset, " + ".join(nets), column, "accuracy", "dml", nets, "mean",
                 settings, printed=False)
            for column, settings in (("KL", ()), ("Eq. (7)", (("mimicry", "js"),)))
        )  # fmt: skip
        lines += [kl, js, gain(kl.row, "Eq. (7) - KL", js, kl)]
    return lines


def table1() -> list[Line]:
    """Table 1: the networks' sizes, which need no training."""
    return [
        Cell("table1", "CIFAR-100", name, "Parameters", "millions", networks=(name,))
        for name in NETWORKS
    ]


def table2() -> list[Line]:
    """Table 2: six pairs on two data sets; its DML-Ind columns are computed."""
    lines = []
    for dataset, pair, k in itertools.product(CIFAR, PAIRS, (0, 1)):
        row = " + ".join(pair)
        at = ("table2", dataset, row)
        alone = Cell(*at, f"Independent Net {k + 1}", "accuracy", "independent", (pair[k],))
        dml = Cell(*at, f"DML Net {k + 1}", "accuracy", "dml", pair, k)
        lines += [alone, dml, gain(row, f"DML-Ind Net {k + 1}", dml, alone)]
    return lines


def table3() -> list[Line]:
    """Table 3: re-identification, the average of the two networks of a cohort."""
    lines = [
        Cell("table3", MARKET, row, column, metric)
        for row, queries in REID_PUBLISHED.items()
        for column, metric in REID_COLUMNS.items()
        if column.startswith(queries)
    ]
    for pretrained, (column, metric) in itertools.product((False, True), REID_COLUMNS.items()):
        name = "MobileNet, pre-trained" if pretrained else "MobileNet"
        alone, dml = (
            Cell("table3", MARKET, row, column, metric, method, nets, "mean", (), pretrained)
            for row, method, nets in (
                (name, "independent", ("MobileNet",)),
                (f"{name}, DML", "dml", ("MobileNet", "MobileNet")),
            )
        )
        lines += [alone, dml, gain(f"{name}, DML-Ind", column, dml, alone)]
    return lines


def table4() -> list[Line]:
    """Table 4: a trained teacher against a peer."""
    lines = []
    for dataset, *pair in DISTILLATIONS:
        row, nets = " + ".join(pair), tuple(pair)
        at = ("table4", dataset, row)
        metric = "mAP" if dataset == MARKET else "accuracy"
        alone = [
            Cell(*at, f"Independent Net {k + 1}", metric, "independent", (nets[k],)) for k in (0, 1)
        ]
        distilled = Cell(*at, "1 distills 2", metric, "distill", nets, 1)
        dml = [Cell(*at, f"DML Net {k + 1}", metric, "dml", nets, k) for k in (0, 1)]
        lines += [*alone, distilled, *dml, gain(row, "DML-Distilled Net 2", dml[1], distilled)]
        lines += [gain(row, f"DML-Ind Net {k + 1}", dml[k], alone[k]) for k in (0, 1)]
    return lines


def table5() -> list[Line]:
    """Table 5: DML against seeking entropy blindly, and with like features; single-query."""
    lines = []
    one, two = ("MobileNet",), ("MobileNet", "MobileNet")
    for column, metric in (("mAP", "mAP"), ("Rank-1", "rank1")):
        rows = {
            "Independent": ("independent", one, (), True),
            "DML": ("dml", two, (), True),
            "Independent, Entropy": ("independent", one, (("optimizer", "entropy_sgd"),), True),
            "Independent, confidence penalty": (
                "independent", one, (("entropy_weight", 0.1),), False,
            ),
            "DML, L2": ("dml", two, (("feature_weight", 0.1),), True),
        }  # fmt: skip
        cells = {
            row: Cell("table5", MARKET, row, column, metric, method, nets, "mean", flags,
                      printed=printed)
            for row, (method, nets, flags, printed) in rows.items()
        }  # fmt: skip
        lines += cells.values()
        lines += [
            gain(f"DML - ({row})", column, cells["DML"], cell)
            for row, cell in cells.items()
            if row != "DML"
        ]
    return lines


def entropy() -> list[Line]:
    """Sec. 4.8: mean posterior entropy on the training images, in nats.

    For DML and DML_e the paper names neither data nor network; Fig. 3's largest cohorts are taken
    (in pairs the two are one).
    """
    lines = []
    most = COHORT_SIZES[-1]
    for dataset, networks, lower, (method, settings) in (
        ("CIFAR-100", ("ResNet-32",) * 2, "Independent", ("independent", ())),
        (MARKET, ("MobileNet",) * most, "DML_e", COHORT_METHODS["DML_e, logits"]),
    ):
        at = ("entropy", dataset, "Training images")
        fewer = networks[:1] if method == "independent" else networks
        low = Cell(*at, lower, "train.entropy", method, fewer, "mean", settings)
        high = Cell(*at, "DML", "train.entropy", "dml", networks, "mean")
        lines += [low, high, gain("Training images", f"DML-{lower}", high, low)]
    return lines


def figure2a() -> list[Line]:
    """Figure 2a: ImageNet, a pair of two architectures; curves are the same runs' histories."""
    nets, settings = ("MobileNet", "InceptionV1"), (("watch_test", True),)
    lines = []
    for k, net in enumerate(nets):
        alone, dml = (
            Cell("figure2a", IMAGENET, net, column, "accuracy", method, peers, of, settings,
                 printed=False)
            for column, method, peers, of in (
                ("Independent", "independent", (net,), 0),
                ("DML", "dml", nets, k),
            )
        )  # fmt: skip
        lines += [alone, dml, gain(net, "DML-Ind", dml, alone)]
    return lines


def figure2b() -> list[Line]:
    """Figure 2b: peers updated in turn, or all from the same predictions ('distributed')."""
    lines = []
    updates = {"Sequential": (), "Distributed": (("update", "simultaneous"),)}
    for column, of in (("Net 1", 0), ("Net 2", 1), ("Average", "mean"), ("Spread", "std")):
        first, second = (
            Cell("figure2b", MARKET, row, column, "mAP", "dml", ("MobileNet", "MobileNet"), of,
                 settings, printed=False)
            for row, settings in updates.items()
        )  # fmt: skip
        lines += [first, second, gain("Distributed - Sequential", column, second, first)]
    return lines


def _figure3(item: str, title: str, of: str) -> list[Line]:
    cells = {}
    for (row, (method, settings)), size in itertools.product(COHORT_METHODS.items(), COHORT_SIZES):
        if size == 1:
            method, settings = COHORT_METHODS["Independent"]
        elif size == 2 and method != "independent":  # one peer: its sum, its mean, its average
            method, settings = COHORT_METHODS["DML"]
        cells[row, size] = Cell(
            item, MARKET, row, f"{title} of {size}", "main", method, ("MobileNet",) * size,
            "mean" if size == 1 else of, settings, printed=False,
        )  # fmt: skip
    gains = [
        gain(f"{row}-Ind", cell.column, cell, cells["Independent", size])
        for (row, size), cell in cells.items()
        if row != "Independent" and size > 1
    ]
    return [*cells.values(), *gains]


def figure3a() -> list[Line]:
    """Figure 3a: the average network of a cohort, by the cohort's size, and the spread in it."""
    spread = [
        dataclasses.replace(cell, column=cell.column.replace("average", "spread"), of="std")
        for cell in _figure3("figure3a", "average", "mean")
        if isinstance(cell, Cell) and len(cell.networks) > 1
    ]
    return _figure3("figure3a", "average", "mean") + spread


def figure3b() -> list[Line]:
    """Figure 3b: the same cohorts as ensembles."""
    return _figure3("figure3b", "ensemble", "ensemble")


# Strategy -> method and how many networks, where Figs. 4 and 5 compare the two.
_COMPARED = {"Independent": "independent", "DML": "dml"}
_ANALYSED = (("analyse", True),)


def figure4a() -> list[Line]:
    """Figure 4a: training loss over training; training accuracy reaches 100% (Sec. 4.8)."""
    return [
        Cell("figure4a", "CIFAR-100", row, column, metric, method, ("MobileNet",) * peers, "mean",
             printed=False)
        for (row, method), peers in zip(_COMPARED.items(), (1, 2), strict=True)
        for column, metric in (
            ("Training cross-entropy", "train.cross_entropy"),
            ("Training accuracy", "train.accuracy"),
        )
    ]  # fmt: skip


def figure4b() -> list[Line]:
    """Figure 4b: training loss after Gaussian noise of deviation sigma on each parameter."""
    cells = {
        (row, sigma): Cell("figure4b", "CIFAR-100", row, f"sigma {sigma}", f"noise.{sigma}", method,
                           ("MobileNet",) * peers, "mean", _ANALYSED, printed=False)
        for (row, method), peers in zip(_COMPARED.items(), (1, 2), strict=True)
        for sigma in SIGMAS
    }  # fmt: skip
    start = SIGMAS[0]
    rises = [
        Contrast(
            "Rise of Independent - rise of DML",
            f"sigma {sigma}",
            tuple(
                (cells[row, at], side * sign)
                for row, side in (("Independent", 1.0), ("DML", -1.0))
                for at, sign in ((sigma, 1.0), (start, -1.0))
            ),
        )
        for sigma in SIGMAS[1:]
    ]
    return [*cells.values(), *rises]


def figure4c() -> list[Line]:
    """Figure 4c: posterior mass by rank on the training images; class 1 is the true one."""
    lines = []
    for rank in range(1, 6):
        alone, dml = (
            Cell("figure4c", "CIFAR-100", row, f"Class {rank}", f"mass.{rank}", method,
                 ("ResNet-32",) * peers, "mean", _ANALYSED, printed=False)
            for (row, method), peers in zip(_COMPARED.items(), (1, 2), strict=True)
        )  # fmt: skip
        lines += [alone, dml, gain("DML - Independent", alone.column, dml, alone)]
    return lines


def figure5() -> list[Line]:
    """Figure 5: t-SNE of the features of two networks trained together, and of two trained alone.

    A number beside the picture: how many features have another of the same network as their
    nearest; half of them, where both networks' features are alike.
    """
    return [
        Cell("figure5", MARKET, row, "Nearest feature is the same network's", "same_peer", method,
             ("MobileNet", "MobileNet"), "mean", _ANALYSED, printed=False)
        for row, method in _COMPARED.items()
    ]  # fmt: skip


def _figure6(item: str, dataset: str, network: str) -> list[Line]:
    lines = []
    drop = (("unlabelled", "drop"),)
    for row, labels in LABELLED[item].items():
        at = (item, dataset, row)
        only = labels and labels + drop
        alone, labelled, everything = (
            Cell(*at, column, "main", method, nets, "mean", settings, printed=False)
            for column, method, nets, settings in (
                ("Independent", "independent", (network,), only),
                ("DML-labelled", "dml", (network, network), only),
                ("DML-all", "dml", (network, network), labels),
            )
        )
        lines += [alone, labelled, gain(row, "DML-labelled - Independent", labelled, alone)]
        if labels:
            lines += [everything, gain(row, "DML-all - DML-labelled", everything, labelled)]
    return lines


def figure6a() -> list[Line]:
    """Figure 6a: semi-supervised classification, by the part of images with labels."""
    return _figure6("figure6a", "CIFAR-100", "ResNet-32")


def figure6b() -> list[Line]:
    """Figure 6b: semi-supervised re-identification, by the number of identities with labels."""
    return _figure6("figure6b", MARKET, "MobileNet")


ITEMS: Mapping[str, Callable[[], list[Line]]] = {
    item.__name__: item
    for item in (
        section31, table1, table2, table3, table4, table5, entropy,
        figure2a, figure2b, figure3a, figure3b, figure4a, figure4b, figure4c, figure5,
        figure6a, figure6b,
    )
}  # fmt: skip


def cells(items: Iterable[str] = tuple(ITEMS)) -> list[Cell]:
    """The cells of some items.

    Args:
        items: Names of tables and figures.

    Returns:
        Their cells.
    """
    return [line for item in items for line in ITEMS[item]() if isinstance(line, Cell)]


def waves(runs: Sequence[Config]) -> list[list[Config]]:
    """Parts runs by what must be finished first: teachers, and those whose weights others take.

    Args:
        runs: Any runs.

    Returns:
        The same, in up to two groups.
    """
    later = [run for run in runs if run.method == "distill" or run.pretrained]
    first = [run for run in runs if run not in later]
    return [wave for wave in (first, later) if wave]


def runs(
    scale: Scale,
    items: Sequence[str] = tuple(ITEMS),
    *,
    results_dir: str,
    data_dir: str = "",
    seeds: int = 0,
) -> list[Config]:
    """The runs that some items need at one scale, each once, and those whose weights they take.

    Args:
        scale: Where they run.
        items: Names of tables and figures.
        results_dir: Where records belong.
        data_dir: Where data are.
        seeds: Seeds of each run; 0 for the scale's own number.

    Returns:
        Their settings; the first seed of every run comes first.
    """
    wanted: dict[str, Config] = {}
    placed = [(cell, scale.place(cell.item, cell.dataset)) for cell in cells(items)]
    counts = [
        (cell, seeds or scale.seeds.get(cell.item, data.seeds)) for cell, data in placed if data
    ]
    for seed in range(max((count for _, count in counts), default=0)):
        for cell, count in counts:
            if seed < count and (run := cell.run(scale, seed, results_dir, data_dir)):
                known = wanted.setdefault(run.run_id, run)
                wanted[run.run_id] = known.replace(analyse=known.analyse or run.analyse)
    return list(wanted.values())
