"""The paper's figures and the entropies of Sec. 4.8, and what it claims of each, as data."""

import dataclasses
import itertools
from collections.abc import Sequence

from dml_tf.measures.analysis import SIGMAS
from dml_tf.paper.cells import Cell, Claim, Contrast, Item, Line, contrasts, gain
from dml_tf.paper.scales import IMAGENET, MARKET, MARKET_IDENTITIES

COHORT_SIZES = (1, 2, 3, 4, 5)
# Row of Fig. 6 -> settings; identities are counted as in the paper.
LABELLED = {
    "figure6a": {f"{p}%": (("labelled_fraction", p / 100),) for p in (10, 25, 50)} | {"100%": ()},
    "figure6b": {str(m): (("labelled_identities", m),) for m in (100, 250, 500)}
    | {str(MARKET_IDENTITIES): ()},
}
# How the mimicry of Fig. 3's cohorts may be read. Eqs. (10) and (11) have one gradient, so the
# figure's two curves need either the authors' sum or another average.
COHORT_METHODS = {
    "Independent": ("independent", ()),
    "DML": ("dml", ()),
    "DML, sum": ("dml", (("peer_reduction", "sum"),)),
    "DML_e, logits": ("dml_e", (("ensemble_average", "logit"),)),
}
# The two strategies of Figs. 4 and 5 -> method.
_COMPARED = {"Independent": "independent", "DML": "dml"}
_ANALYSED = (("analyse", True),)
_DECISIVE_SIGMA, _DECISIVE_RATIO = 0.05, 0.2  # of Fig. 4b, in results/cpu/PROTOCOL.md


def _entropy() -> Item:
    """For DML and DML_e the paper names neither data nor network: Fig. 3's largest cohorts.

    In pairs the two methods are one.
    """
    lines = []
    for dataset, networks, lower, (method, settings) in (
        ("CIFAR-100", ("ResNet-32",) * 2, "Independent", ("independent", ())),
        (MARKET, ("MobileNet",) * COHORT_SIZES[-1], "DML_e", COHORT_METHODS["DML_e, logits"]),
    ):
        at = ("entropy", dataset, "Training images")
        low = Cell(*at, lower, "train.entropy", method, networks, "mean", settings)
        high = Cell(*at, "DML", "train.entropy", "dml", networks, "mean")
        lines += [low, high, gain("Training images", f"DML-{lower}", high, low)]
    than_alone, than_ensemble = contrasts(lines)
    return Item(
        "entropy", "Sec. 4.8", "mean posterior entropy on the training images, in nats",
        tuple(lines),
        (Claim("4.8", "Posteriors have more entropy with mutual learning", (than_alone,)),
         Claim("4.8", "Posteriors have more entropy with DML than with DML_e", (than_ensemble,))),
    )  # fmt: skip


def _figure2a() -> Item:
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
    return Item(
        "figure2a", "Figure 2a",
        "ImageNet, a pair of two architectures; curves are the same runs' histories",
        tuple(lines),
        (Claim("4.4", "Both architectures gain on ImageNet", contrasts(lines), each=True),),
    )  # fmt: skip


def _figure2b() -> Item:
    lines = []
    updates = {"Sequential": (), "Distributed": (("update", "simultaneous"),)}
    for column, of in (("Net 1", 0), ("Net 2", 1), ("Average", "mean"), ("Spread", "std")):
        first, second = (
            Cell("figure2b", MARKET, row, column, "mAP", "dml", ("MobileNet", "MobileNet"), of,
                 settings, printed=False)
            for row, settings in updates.items()
        )  # fmt: skip
        lines += [first, second, gain("Distributed - Sequential", column, second, first)]
    sequential, distributed = lines[-3:-1]
    return Item(
        "figure2b", "Figure 2b",
        "peers updated in turn, or all from the same predictions ('distributed')",
        tuple(lines),
        (Claim("4.5", "Updating all peers at once is better still",
               contrasts(lines, columns=["Average"])),
         Claim("4.5", "Peers are more equal when they are updated at once",
               (gain("(Sequential) - (Distributed)", "Spread", sequential, distributed),))),
    )  # fmt: skip


def _figure3a() -> Item:
    average, gains = _cohorts("figure3a", "average", "mean")
    spread = {
        (row, size): dataclasses.replace(cell, column=f"spread of {size}", of="std")
        for (row, size), cell in average.items()
        if size > 1
    }
    return Item(
        "figure3a", "Figure 3a",
        "the average network of a cohort, by the cohort's size, and the spread in it",
        (*average.values(), *gains, *spread.values()),
        (Claim("4.7", "The average network is better in larger cohorts",
               (_trend("average", [average["DML", size] for size in COHORT_SIZES]),)),
         Claim("4.7", "Networks of larger cohorts differ less in accuracy",
               (gain("DML", "(spread of 2) - (spread of 5)", spread["DML", 2], spread["DML", 5]),)),
         Claim("4.8", "Peers teach better than their ensemble",
               (gain("(DML) - (DML_e, logits)", "average of 5",
                     average["DML", 5], average["DML_e, logits", 5]),))),
    )  # fmt: skip


def _figure3b() -> Item:
    ensembles, gains = _cohorts("figure3b", "ensemble", "ensemble")
    better = [
        gain("DML", f"(ensemble of {size}) - (its average network)", cell,
             dataclasses.replace(cell, column=f"average of {size}", of="mean"))
        for (row, size), cell in ensembles.items()
        if row == "DML" and size > 1
    ]  # fmt: skip
    return Item(
        "figure3b", "Figure 3b", "the same cohorts as ensembles", (*ensembles.values(), *gains),
        (Claim("4.7", "Ensembles gain from mutual learning", contrasts(gains, rows=["DML-Ind"])),
         Claim("4.7", "The ensemble is better than its members", tuple(better)),
         Claim("4.7", "The ensemble is better in larger cohorts",
               (_trend("ensemble", [ensembles["DML", size] for size in COHORT_SIZES]),))),
    )  # fmt: skip


def _figure4a() -> Item:
    cells = [
        Cell("figure4a", "CIFAR-100", row, column, metric, method, ("MobileNet", "MobileNet"),
             "mean", printed=False)
        for row, method in _COMPARED.items()
        for column, metric in (
            ("Training cross-entropy", "train.cross_entropy"),
            ("Training accuracy", "train.accuracy"),
        )
    ]  # fmt: skip
    learnt = tuple(
        Contrast(cell.row, f"{cell.column} - 99.5", ((cell, 1.0),), -99.5)
        for cell in cells
        if cell.metric == "train.accuracy"
    )
    alone, dml = (cell for cell in cells if cell.metric == "train.cross_entropy")
    deeper = gain("DML - Independent", alone.column, dml, alone)
    return Item(
        "figure4a", "Figure 4a",
        "training loss over training; training accuracy reaches 100% (Sec. 4.8)",
        tuple(cells),
        (Claim("4.8", "Training accuracy reaches 100%, of both", learnt, each=True),
         Claim("4.8", "Both find equally deep minima", (deeper,), margin=0.02)),
    )  # fmt: skip


def _figure4b() -> Item:
    cells = {
        (row, sigma): Cell("figure4b", "CIFAR-100", row, f"sigma {sigma}", f"noise.{sigma}", method,
                           ("MobileNet", "MobileNet"), "mean", _ANALYSED, printed=False, x=sigma)
        for row, method in _COMPARED.items()
        for sigma in SIGMAS
    }  # fmt: skip
    start, *above = SIGMAS
    rises = {
        (row, sigma): gain(row, f"sigma {sigma}", cells[row, sigma], cells[row, start])
        for row, sigma in itertools.product(_COMPARED, above)
    }
    compared = tuple(
        gain("Rise of Independent - rise of DML", f"sigma {sigma}",
             rises["Independent", sigma], rises["DML", sigma])
        for sigma in above
    )  # fmt: skip
    relative = _noise_less(f"relative_noise.{_DECISIVE_SIGMA}")
    by_filter = _noise_less(f"filter_noise.{_DECISIVE_RATIO}")
    said = "Noise on the parameters raises the training loss less"
    return Item(
        "figure4b", "Figure 4b",
        "training loss after Gaussian noise of deviation sigma on each parameter",
        (*cells.values(), *compared),
        (Claim("4.8", f"{said}, in nats (sigma {_DECISIVE_SIGMA})",
               contrasts(compared, columns=[f"sigma {_DECISIVE_SIGMA}"])),
         Claim("4.8", f"{said}, relative to the loss without noise (sigma {_DECISIVE_SIGMA})",
               (relative,)),
         Claim("4.8", f"{said}, in nats (noise of {_DECISIVE_RATIO} of each filter's length)",
               (by_filter,))),
    )  # fmt: skip


def _noise_less(metric: str) -> Contrast:
    """How much less a noise raises the loss with mutual learning.

    For noise on filters, the rise is the loss with the noise less the loss without.
    """
    alone, dml = (
        Cell("figure4b", "CIFAR-100", row, metric, metric, method, ("MobileNet", "MobileNet"),
             "mean", _ANALYSED, printed=False)
        for row, method in _COMPARED.items()
    )  # fmt: skip
    column = metric.replace("_", " ").replace(".", " ", 1)
    less = gain("Independent - DML", column, alone, dml)
    if metric.startswith("relative"):
        return less
    at_start = [dataclasses.replace(cell, metric=f"noise.{SIGMAS[0]}") for cell in (dml, alone)]
    return gain("Rise of Independent - rise of DML", column, less,
                gain("", "", at_start[1], at_start[0]))  # fmt: skip


def _figure4c() -> Item:
    lines = []
    for rank in range(1, 6):
        alone, dml = (
            Cell("figure4c", "CIFAR-100", row, f"Class {rank}", f"mass.{rank}", method,
                 ("ResNet-32", "ResNet-32"), "mean", _ANALYSED, printed=False, x=rank)
            for row, method in _COMPARED.items()
        )  # fmt: skip
        lines += [alone, dml, gain("DML - Independent", alone.column, dml, alone)]
    secondary = contrasts(lines, columns=[f"Class {rank}" for rank in range(2, 6)])
    total = Contrast(
        "DML - Independent",
        "Classes 2 to 5",
        tuple(term for line in secondary for term in line.terms),
    )
    return Item(
        "figure4c", "Figure 4c",
        "posterior mass by rank on the training images; class 1 is the true one",
        tuple(lines), (Claim("4.8", "More mass is on secondary probabilities", (total,)),),
    )  # fmt: skip


def _figure5() -> Item:
    """A number beside the picture: how many features have one of the same network as nearest.

    It is half of them where both networks' features are alike.
    """
    cells = [
        Cell("figure5", MARKET, row, "Nearest feature is the same network's", "same_peer", method,
             ("MobileNet", "MobileNet"), "mean", _ANALYSED, printed=False)
        for row, method in _COMPARED.items()
    ]  # fmt: skip
    above_half = tuple(
        Contrast(cell.row, f"{cell.column} - half", ((cell, 1.0),), -50.0) for cell in cells
    )
    return Item(
        "figure5", "Figure 5",
        "t-SNE of the features of two networks trained together, and of two trained alone",
        tuple(cells),
        (Claim("4.9", "Peers have features of their own, as networks trained alone", above_half),),
    )  # fmt: skip


def _figure6a() -> Item:
    lines, claims = _semi_supervised("figure6a", "CIFAR-100", "ResNet-32", "images")
    title = "semi-supervised classification, by the part of images with labels"
    return Item("figure6a", "Figure 6a", title, lines, claims)


def _figure6b() -> Item:
    lines, claims = _semi_supervised("figure6b", MARKET, "MobileNet", "identities")
    title = "semi-supervised re-identification, by the number of identities with labels"
    return Item("figure6b", "Figure 6b", title, lines, claims)


def _cohorts(item: str, title: str, of: str) -> tuple[dict[tuple[str, int], Cell], list[Contrast]]:
    """Fig. 3: a cell for each method and cohort size, and what each gains over Independent."""
    cells = {}
    for (row, (method, settings)), size in itertools.product(COHORT_METHODS.items(), COHORT_SIZES):
        if size == 1:
            method, settings = COHORT_METHODS["Independent"]
        elif size == 2 and method != "independent":  # one peer: its sum, its mean, its average
            method, settings = COHORT_METHODS["DML"]
        cells[row, size] = Cell(
            item, MARKET, row, f"{title} of {size}", "main", method, ("MobileNet",) * size,
            "mean" if size == 1 else of, settings, printed=False, x=size,
        )  # fmt: skip
    gains = [
        gain(f"{row}-Ind", cell.column, cell, cells["Independent", size])
        for (row, size), cell in cells.items()
        if row != "Independent" and size > 1
    ]
    return cells, gains


def _trend(title: str, cells: Sequence[Cell]) -> Contrast:
    """Points gained with each further network: the least-squares slope over the cohort's size."""
    middle = sum(COHORT_SIZES) / len(COHORT_SIZES)
    squares = sum((size - middle) ** 2 for size in COHORT_SIZES)
    weights = [(size - middle) / squares for size in COHORT_SIZES]
    ends = f"{COHORT_SIZES[0]} to {COHORT_SIZES[-1]}"
    terms = zip(cells, weights, strict=True)
    return Contrast("DML", f"{title}: slope over {ends} networks", tuple(terms))


def _semi_supervised(
    item: str, dataset: str, network: str, what: str
) -> tuple[tuple[Line, ...], tuple[Claim, ...]]:
    """Fig. 6: a row for each number of labels, and its claims."""
    lines, unlabelled = [], {}
    drop = (("unlabelled", "drop"),)
    for row, labels in LABELLED[item].items():
        at = (item, dataset, row)
        only = labels and labels + drop
        alone, labelled, everything = (
            Cell(*at, column, "main", method, (network, network), "mean", settings, printed=False)
            for column, method, settings in (
                ("Independent", "independent", only),
                ("DML-labelled", "dml", only),
                ("DML-all", "dml", labels),
            )
        )
        lines += [alone, labelled, gain(row, "DML-labelled - Independent", labelled, alone)]
        if labels:
            unlabelled[row] = gain(row, "DML-all - DML-labelled", everything, labelled)
            lines += [everything, unlabelled[row]]
    fewest, half = list(unlabelled)[0], list(unlabelled)[-1]
    more = gain(
        f"{fewest} - {half}", "DML-all - DML-labelled", unlabelled[fewest], unlabelled[half]
    )
    return tuple(lines), (
        Claim("4.10", f"Mutual learning gains at every number of labelled {what}",
              contrasts(lines, columns=["DML-labelled - Independent"]), each=True),
        Claim("4.10", f"Unlabelled {what} help mutual learning", tuple(unlabelled.values())),
        Claim("4.10", f"They help more where fewer {what} have labels", (more,)),
    )  # fmt: skip


FIGURES: tuple[Item, ...] = (
    _entropy(),
    _figure2a(),
    _figure2b(),
    _figure3a(),
    _figure3b(),
    _figure4a(),
    _figure4b(),
    _figure4c(),
    _figure5(),
    _figure6a(),
    _figure6b(),
)
