"""The paper's tables, and what it claims of each, as data. `paper/tables.py` writes them.

To add a row, add its `Cell`s to the function of its table. A cell names the run that fills it, by
method, networks and flags. Use `printed=False` if the paper prints no number; else add the number
to `results/paper.csv`. `gain(...)` adds a line that compares two cells.
"""

import itertools

from dml_tf.paper.cells import Cell, Claim, Item, contrasts, gain
from dml_tf.paper.scales import CIFAR, MARKET, NETWORKS

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
PRIMARY = "Mutual learning gains, in the mean of Table 2's places"  # the protocol's first claim
DISTILLATIONS = (
    ("CIFAR-100", "WRN-28-10", "ResNet-32"),
    ("CIFAR-100", "MobileNet", "ResNet-32"),
    (MARKET, "InceptionV1", "MobileNet"),
    (MARKET, "MobileNet", "MobileNet"),
)


def _alone(at: tuple[str, str, str], network: str, k: int, metric: str) -> Cell:
    """Net k + 1 alone: peer k of an independent pair, so that it starts as in the DML pair."""
    column = f"Independent Net {k + 1}"
    return Cell(*at, column, metric, "independent", (network, network), k)


def _section31() -> Item:
    nets, lines = ("ResNet-32", "ResNet-32"), []
    for dataset in CIFAR:
        kl, js = (
            Cell("section31", dataset, " + ".join(nets), column, "accuracy", "dml", nets, "mean",
                 settings, printed=False)
            for column, settings in (("KL", ()), ("Eq. (7)", (("mimicry", "js"),)))
        )  # fmt: skip
        lines += [kl, js, gain(kl.row, "Eq. (7) - KL", js, kl)]
    return Item(
        "section31", "Sec. 3.1", "the mimicry loss of Eq. (7) in place of the KL divergence",
        tuple(lines),
        (Claim("3.1", "Eq. (7) in place of the KL divergence does equally well",
               contrasts(lines), margin=0.5),),
    )  # fmt: skip


def _table1() -> Item:
    lines = (
        Cell("table1", "CIFAR-100", name, "Parameters", "millions", networks=(name,))
        for name in NETWORKS
    )
    return Item("table1", "Table 1", "the networks' sizes, which need no training", tuple(lines))


def _table2() -> Item:
    lines, gains = [], {}
    for dataset, pair, k in itertools.product(CIFAR, PAIRS, (0, 1)):
        row = " + ".join(pair)
        at = ("table2", dataset, row)
        alone = _alone(at, pair[k], k, "accuracy")
        dml = Cell(*at, f"DML Net {k + 1}", "accuracy", "dml", pair, k)
        gains[dataset, pair, k] = gain(row, f"DML-Ind Net {k + 1}", dml, alone)
        lines += [alone, dml, gains[dataset, pair, k]]
    smaller = tuple(
        gain(f"{dataset}: {' + '.join(pair)}", "gain of Net 2 - gain of Net 1",
             gains[dataset, pair, 1], gains[dataset, pair, 0])
        for dataset in CIFAR
        for pair in (("WRN-28-10", "ResNet-32"), ("WRN-28-10", "MobileNet"))
    )  # fmt: skip
    return Item(
        "table2", "Table 2", "six pairs on two data sets; its DML-Ind columns are computed",
        tuple(lines),
        (Claim("4.2", PRIMARY, contrasts(lines), useful=0.5),
         Claim("4.2", "Each network of each pair gains from mutual learning", contrasts(lines),
               each=True),
         Claim("4.2", "The smaller network of a pair gains more", smaller)),
    )  # fmt: skip


def _table3() -> Item:
    published = [
        Cell("table3", MARKET, row, column, metric)
        for row, queries in REID_PUBLISHED.items()
        for column, metric in REID_COLUMNS.items()
        if column.startswith(queries)
    ]
    lines, best = list(published), {}
    for pretrained, (column, metric) in itertools.product((False, True), REID_COLUMNS.items()):
        name = "MobileNet, pre-trained" if pretrained else "MobileNet"
        alone, dml = (
            Cell("table3", MARKET, row, column, metric, method, ("MobileNet", "MobileNet"), "mean",
                 (), pretrained)
            for row, method in ((name, "independent"), (f"{name}, DML", "dml"))
        )  # fmt: skip
        lines += [alone, dml, gain(f"{name}, DML-Ind", column, dml, alone)]
        best[column] = dml  # the pre-trained network, which comes last
    better = tuple(
        gain(f"MobileNet, pre-trained, DML - {prior.row}", prior.column, best[prior.column], prior)
        for prior in published
    )
    return Item(
        "table3", "Table 3", "re-identification, the average of the two networks of a cohort",
        tuple(lines),
        (Claim("4.3", "Re-identification gains, with and without pre-training",
               contrasts(lines)),
         Claim("4.3", "With pre-training it is better than all prior methods of Table 3", better,
               each=True)),
    )  # fmt: skip


def _table4() -> Item:
    lines = []
    for dataset, *pair in DISTILLATIONS:
        row, nets = " + ".join(pair), tuple(pair)
        at = ("table4", dataset, row)
        metric = "mAP" if dataset == MARKET else "accuracy"
        alone = [_alone(at, nets[k], k, metric) for k in (0, 1)]
        distilled = Cell(*at, "1 distills 2", metric, "distill", nets, 1, teacher=alone[0])
        dml = [Cell(*at, f"DML Net {k + 1}", metric, "dml", nets, k) for k in (0, 1)]
        lines += [*alone, distilled, *dml, gain(row, "DML-Distilled Net 2", dml[1], distilled)]
        lines += [gain(row, "Distilled-Ind Net 2", distilled, alone[1])]
        lines += [gain(row, f"DML-Ind Net {k + 1}", dml[k], alone[k]) for k in (0, 1)]
    return Item(
        "table4", "Table 4", "a trained teacher against a peer", tuple(lines),
        (Claim("4.6", "A peer teaches more than a trained teacher does",
               contrasts(lines, columns=["DML-Distilled Net 2"])),
         Claim("4.6", "A trained teacher is better than labels alone",
               contrasts(lines, columns=["Distilled-Ind Net 2"])),
         Claim("4.6", "The network in the teacher's place gains as well",
               contrasts(lines, columns=["DML-Ind Net 1"]))),
    )  # fmt: skip


def _table5() -> Item:
    lines = []
    rows = {
        "Independent": ("independent", (), True),
        "DML": ("dml", (), True),
        "Independent, Entropy": ("independent", (("optimizer", "entropy_sgd"),), True),
        "Independent, confidence penalty": ("independent", (("entropy_weight", 0.1),), False),
        "DML, L2": ("dml", (("feature_weight", 0.1),), True),
    }
    for column, metric in (("mAP", "mAP"), ("Rank-1", "rank1")):
        cells = {
            row: Cell("table5", MARKET, row, column, metric, method, ("MobileNet", "MobileNet"),
                      "mean", flags, printed=printed)
            for row, (method, flags, printed) in rows.items()
        }  # fmt: skip
        lines += cells.values()
        lines += [
            gain(f"DML - ({row})", column, cells["DML"], cell)
            for row, cell in cells.items()
            if row != "DML"
        ]
    blind = ["DML - (Independent, Entropy)", "DML - (Independent, confidence penalty)"]
    return Item(
        "table5", "Table 5",
        "DML against seeking entropy blindly, and with like features; single-query",
        tuple(lines),
        (Claim("4.8", "Mutual learning is better than seeking entropy blindly",
               contrasts(lines, rows=blind)),
         Claim("4.9", "Making features alike takes from the gain",
               contrasts(lines, rows=["DML - (DML, L2)"]))),
    )  # fmt: skip


TABLES: tuple[Item, ...] = (
    _section31(),
    _table1(),
    _table2(),
    _table3(),
    _table4(),
    _table5(),
)
