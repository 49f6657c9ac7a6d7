"""Tables on more than accuracy, of the confirmatory runs: calibration, churn, noise on weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dml_tf.measures import analysis
from dml_tf.measures.evaluate import unpack_correct
from dml_tf.paper import over_seeds, statistics
from dml_tf.paper.cells import Cell, Contrast, gain
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from docs import formats
from docs.evidence import CONFIRMATORY, gains, lines_by_network, shared

_Peers = Mapping[int, Sequence[Mapping]]  # seed -> the measures of some peers


def calibration() -> str:
    """Calibration error and churn of each small network; then the interval over images, too."""
    scale, folder = CONFIRMATORY
    rows = []
    for name, lines in lines_by_network(scale).items():
        dml, alone = (
            [_peers(line.terms[side][0], scale, folder) for line in lines] for side in (0, 1)
        )
        seeds = shared(*dml, *alone)
        if seeds:
            rows.append({"network": name, **_calibration(dml, alone, seeds), "seeds": len(seeds)})
    return f"{formats.markdown(rows)}\n\n{_over_images(scale, folder)}"


def noise() -> str:
    """How far noise on the weights raises the training loss of MobileNets, by its size."""
    scale, folder = CONFIRMATORY
    still = [
        next(cell for cell in ITEMS["figure4b"].cells if cell.row == row)
        for row in ("Independent", "DML")
    ]
    kinds = {"noise": analysis.SIGMAS[1:], "filter_noise": analysis.RATIOS}
    rows = []
    for kind, size in [(kind, size) for kind, sizes in kinds.items() for size in sizes]:
        rises = [_rise(cell, f"{kind}.{size}") for cell in still]
        less = over_seeds.measure(gain("", "", *rises), scale, folder)
        alone, dml = (over_seeds.measure(rise, scale, folder)["measured"] for rise in rises)
        rows.append(
            {
                "deviation": f"{size:g}" if kind == "noise" else f"{size:g} of each filter",
                "rise alone": f"{alone:.3f}",
                "rise with DML": f"{dml:.3f}",
                "alone less DML [95% interval]": formats.interval(less, 3),
                "seeds": less["seeds"],
            }
        )
    alone, dml = (over_seeds.measure(cell, scale, folder)["measured"] for cell in still)
    return (
        f"{formats.markdown(rows)}\n\n"
        f"Without noise the loss is {alone:.3f} nats alone, and {dml:.3f} with DML."
    )


FIGURES = {"calibration": calibration, "noise": noise}


def _rise(still: Cell, metric: str) -> Contrast:
    return gain("", "", dataclasses.replace(still, metric=metric), still)


def _peers(cell: Cell, scale: Scale, folder: Path) -> _Peers:
    """Seed -> the measures of a cell's peers: one, or all where the cell is their mean."""
    here = cell.at(scale)
    peers = {
        seed: [
            measures | {"images": record["images"]["test"]}
            for measures in record["test"]["peers"].values()
        ]
        for seed, record in over_seeds.found(cell, scale, folder).items()
    }
    return peers if here.of == "mean" else {seed: [found[here.of]] for seed, found in peers.items()}


def _calibration(dml: Sequence[_Peers], alone: Sequence[_Peers], seeds: Sequence[int]) -> dict:
    """One network's row: means over its places, and over the networks of each."""
    errors = [
        {
            seed: 100
            * np.mean([peer["calibration_error"] for place in side for peer in place[seed]])
            for seed in seeds
        }
        for side in (alone, dml)
    ]
    difference = statistics.summary({seed: errors[1][seed] - errors[0][seed] for seed in seeds})
    return {
        "calibration error alone, %": f"{np.mean(list(errors[0].values())):.2f}",
        "with DML, %": f"{np.mean(list(errors[1].values())):.2f}",
        "difference [95% interval]": formats.interval(difference),
        "churn alone, %": _churn(alone[:1], seeds),  # the same networks in each place
        "churn with DML, %": _churn(dml, seeds),
    }


def _churn(places: Sequence[_Peers], seeds: Sequence[int]) -> str:
    """Churn between seeds, the mean over all networks of the places; its jackknife interval."""
    if len(seeds) < 3:
        return ""
    networks = [
        np.array([_right(place[seed][k]) for seed in seeds])
        for place in places
        for k in range(len(place[seeds[0]]))
    ]

    def mean(rows):
        return np.mean([statistics.churn(right[rows]) for right in networks])

    low, high = statistics.jackknife(mean, len(seeds))
    return f"{100 * mean(range(len(seeds))):.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _right(peer: Mapping) -> np.ndarray:
    return unpack_correct(peer["correct"], peer["images"])


def _over_images(scale: Scale, folder: Path) -> str:
    """The primary contrast's interval over seeds and test images, in one sentence."""
    found = [[_peers(cell, scale, folder) for cell, _ in line.terms] for line in gains()]
    seeds = shared(*(side for line in found for side in line))
    if len(seeds) < 3:
        return "The interval over seeds and images needs three seeds."
    by_image = np.array(
        [
            np.mean(
                [_mean_right(dml[seed]) - _mean_right(alone[seed]) for dml, alone in found],
                axis=0,
            )
            for seed in seeds
        ]
    )
    low, high = (100 * end for end in statistics.over_seeds_and_images(by_image))
    return (
        f"If the test images are a sample, too, the mean gain of Table 2 is "
        f"{100 * by_image.mean():+.2f} [{low:+.2f}, {high:+.2f}] points ({len(seeds)} seeds, "
        f"{by_image.shape[1]:,} images)."
    )


def _mean_right(peers: Sequence[Mapping]) -> np.ndarray:
    return np.mean([_right(peer) for peer in peers], axis=0)
