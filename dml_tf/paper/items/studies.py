"""Studies of our own at cpu scale, as data: what the paper's items leave open on photographs.

`results/cpu/PROTOCOL.md` has their hypotheses, settings and seeds, but of `teachers`, which is
exploratory and has no claims. They stand beside the paper's items, and the paper prints none of
their numbers.
"""

from dml_tf.paper.cells import Cell, Claim, Item, gain

_CIFAR = "CIFAR-10"
_AUGMENTED = (("augment", "crop_flip"),)
# 1,000 images: the setting of the first exploratory runs.
_SMALL_SET = (*_AUGMENTED, ("train_images", 1000), ("epochs", 80), ("decay_epochs", 24))
# The paper's own schedule: drops at epochs 60, 120 and 180.
_LONG = (*_AUGMENTED, ("epochs", 200), ("decay_epochs", 60))
LARGEST_COHORT = 5


def _cell(
    item: str, row: str, column: str, method: str, network: str, peers: int, settings=(), **more
) -> Cell:
    """The mean test accuracy of a cohort of one kind, unless `of` names a peer."""
    more = {"of": "mean", "settings": settings, "printed": False} | more
    return Cell(item, _CIFAR, row, column, "accuracy", method, (network,) * peers, **more)


def _start() -> Item:
    cells = {
        (init, column): _cell("start", init, column, method, "ResNet-32", 2,
                              (*_SMALL_SET, *((("init", "he"),) if init == "He" else ())))
        for init in ("He", "Goyal")
        for column, method in (("Independent", "independent"), ("DML", "dml"))
    }  # fmt: skip
    gains = {
        init: gain(init, "DML-Ind", cells[init, "DML"], cells[init, "Independent"])
        for init in ("He", "Goyal")
    }
    more = gain("He - Goyal", "DML-Ind", gains["He"], gains["Goyal"])
    better = gain(
        "Goyal - He", "Independent", cells["Goyal", "Independent"], cells["He", "Independent"]
    )
    return Item(
        "start", "Start", "first weights by He's rule, or near the identity (Goyal et al. 2017)",
        (*cells.values(), *gains.values(), more, better),
        (Claim("4.2", "With He's first weights mutual learning gains", (gains["He"],)),
         Claim("4.2", "With first weights near the identity mutual learning gains",
               (gains["Goyal"],)),
         Claim("4.2", "It gains more with He's first weights", (more,)),
         Claim("4.2", "First weights near the identity help independent networks", (better,))),
    )  # fmt: skip


def _augmented() -> Item:
    alone, dml = (
        _cell("augmented", "WRN-28-10", column, method, "WRN-28-10", 2, _LONG)
        for column, method in (("Independent", "independent"), ("DML", "dml"))
    )
    gained = gain("WRN-28-10", "DML-Ind", dml, alone)
    return Item(
        "augmented", "Augmented", "crops and flips, with the paper's schedule of 200 epochs",
        (alone, dml, gained),
        (Claim("4.2", "Networks that fit augmented images gain from mutual learning",
               (gained,)),),
    )  # fmt: skip


def _cohorts() -> Item:
    rows = {
        "Independent": ("independent", ()),
        "DML": ("dml", ()),
        "DML_e, logits": ("dml_e", (("ensemble_average", "logit"),)),
        "DML, sum": ("dml", (("peer_reduction", "sum"),)),
        "DML, sum, rate 0.02": ("dml", (("peer_reduction", "sum"), ("learning_rate", 0.02))),
        "DML, sum, Adam": (
            "dml",
            (("peer_reduction", "sum"), ("optimizer", "adam"), ("learning_rate", 0.001)),
        ),
    }
    cells = {
        row: _cell("cohorts", row, "average of 5", method, "MobileNet", LARGEST_COHORT, settings)
        for row, (method, settings) in rows.items()
    }
    gains = {
        row: gain(f"{row} - Independent", "average of 5", cell, cells["Independent"])
        for row, cell in cells.items()
        if row != "Independent"
    }
    loss = gain("Independent - (DML, sum)", "average of 5", cells["Independent"],
                cells["DML, sum"])  # fmt: skip
    teach = gain("DML - (DML_e, logits)", "average of 5", cells["DML"], cells["DML_e, logits"])
    return Item(
        "cohorts", "Cohorts", "five networks, and three ways to learn from four peers",
        (*cells.values(), *gains.values(), teach),
        (Claim("4.7", "Five peers gain by the mean of Eq. (10)", (gains["DML"],)),
         Claim("4.7", "Five peers gain by DML_e with the mean of the peers' logits",
               (gains["DML_e, logits"],)),
         Claim("4.8", "Four peers, and their ensemble by the mean of logits, teach equally well",
               (teach,), margin=0.5),
         Claim("4.7", "The sum of the divergences gains at learning rate 0.02",
               (gains["DML, sum, rate 0.02"],)),
         Claim("4.7", "The sum of the divergences gains with Adam", (gains["DML, sum, Adam"],)),
         Claim("4.7", "The sum of the divergences loses at learning rate 0.1", (loss,))),
    )  # fmt: skip


def _ensemble_teacher() -> Item:
    """Anil et al. 2018 name this baseline: two independent networks teach a third."""
    at, network = "ensemble_teacher", "ResNet-32"
    alone = _cell(at, network, "Independent", "independent", network, 2)
    distilled = _cell(at, network, "Two teach a third", "distill", network, 3, of=2, teacher=alone)
    dml = _cell(at, network, "DML", "dml", network, 2)
    taught = gain(network, "Distilled-Ind", distilled, alone)
    mutual = gain(network, "DML-Distilled", dml, distilled)
    return Item(
        "ensemble_teacher", "Ensemble as teacher",
        "two independent networks distilled into a third, against mutual learning of two",
        (alone, distilled, dml, taught, mutual),
        (Claim("4.6", "An ensemble of two teaches a third better than labels alone", (taught,)),
         Claim("4.6", "Two peers learn more than the student of such an ensemble", (mutual,))),
    )  # fmt: skip


# Ways to learn from two peers -> method and flags. All networks see flipped images. Two of them
# divide by the deviation of the logits, or posteriors, which is near zero in new networks: without
# a burn-in they collapse in the first epoch (seed 100).
_BURN_IN = ("burn_in_epochs", 4.0)
_WAYS = {
    "DML": ("dml", ()),
    "Temperature 3": ("dml", (("temperature", 3.0),)),
    "Standardised logits": ("dml", (("standardise", True), ("temperature", 2.0), _BURN_IN)),
    "DKD": ("dml", (("mimicry", "dkd"),)),
    "DIST": ("dml", (("mimicry", "dist"), _BURN_IN)),
    "KDCL, naive": ("dml", (("target", "naive"),)),
    "KDCL, min-logit": ("dml", (("target", "min_logit"),)),
    "Ramp": ("dml", (("ramp_epochs", 12.0),)),
    "Codistillation": ("dml", (("stale_steps", 31), _BURN_IN)),
    "Own views": ("dml", (("own_views", True),)),
}


def _teachers() -> Item:
    """Exploratory: K = 3, equal length, each row against three independent networks by seed."""
    at, network, column = "teachers", "ResNet-32", "mean of 3"
    alone = _cell(at, "Independent", column, "independent", network, 3)
    cells = {
        row: _cell(at, row, column, method, network, 3, settings)
        for row, (method, settings) in _WAYS.items()
    }
    cells["Teacher beside students"] = _cell(
        at, "Teacher beside students", column, "dml", network, 4, teacher=alone
    )
    gains = {row: gain(f"{row} - Independent", column, c, alone) for row, c in cells.items()}
    more = [gain(f"{row} - DML", column, c, cells["DML"]) for row, c in cells.items()
            if row != "DML"]  # fmt: skip
    return Item(
        at, "Teachers", "who teaches, and how the student is compared with it",
        (alone, *cells.values(), *gains.values(), *more),
    )  # fmt: skip


STUDIES: tuple[Item, ...] = (
    _start(), _augmented(), _cohorts(), _ensemble_teacher(), _teachers(),
)  # fmt: skip
