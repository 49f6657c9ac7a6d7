"""A cell's number, read from one record."""

import functools
import operator

import numpy as np

from dml_tf.paper import statistics
from dml_tf.paper.cells import Cell


def read(record: dict, cell: Cell) -> float | None:
    """The cell's measure of its peer, of all peers, or of their ensemble; None if it has none."""
    name, _, argument = cell.metric.partition(".")
    if name in _ANALYSED:
        values = _ANALYSED[name](record["analysis"], argument)
    else:
        part, metric = ("train", argument) if name == "train" else ("test", cell.metric)
        peers = _peers(record, part, cell)
        if cell.of == "ensemble":
            return _measure(record[part].get("ensemble", peers[0]), metric)
        values = [_measure(peer, metric) for peer in peers]
    if not values:
        return None
    if cell.of == "std":
        return statistics.unbiased_std(values)
    return float(np.mean(values)) if cell.of == "mean" else values[cell.of]


def _peers(record: dict, part: str, cell: Cell) -> list[dict]:
    """The measures of all peers; for a mean or a spread, only of those that learn."""
    peers = list(record[part]["peers"].values())
    has_teacher = cell.method == "dml" and cell.teacher
    return peers[1:] if has_teacher and cell.of in ("mean", "std") else peers


def _noise(analysis: dict, sigma: str) -> list[float]:
    return _at(analysis["weight_noise"], "sigma", sigma)


def _relative_noise(analysis: dict, sigma: str) -> list[float]:
    """Each peer's loss at one size of the noise, divided by its loss without noise."""
    at, start = (_noise(analysis, size) for size in (sigma, "0.0"))
    return [loss / own for loss, own in zip(at, start, strict=True)] if at else []


def _filter_noise(analysis: dict, ratio: str) -> list[float]:
    return _at(analysis.get("filter_noise", {"ratio": ()}), "ratio", ratio)


def _at(noise: dict, name: str, size: str) -> list[float]:
    """Each peer's loss at one size of the noise; nothing in a record from before that size."""
    if float(size) not in noise[name]:
        return []
    at = noise[name].index(float(size))
    return [float(np.mean(losses[at])) for losses in noise["loss"].values()]


def _mass(analysis: dict, rank: str) -> list[float]:
    return [masses[int(rank) - 1] for masses in analysis["ranked_mass"].values()]


def _same_peer(analysis: dict, _: str) -> list[float]:
    return [analysis["tsne"]["same_peer"]]


# What a cell asks of a record's `analysis`, and how it is read: a value for each peer.
_ANALYSED = {
    "noise": _noise,
    "relative_noise": _relative_noise,
    "filter_noise": _filter_noise,
    "mass": _mass,
    "same_peer": _same_peer,
}


def _measure(measures: dict, metric: str) -> float:
    if metric == "main":
        metric = "mAP" if "mAP" in measures else "accuracy"
    return functools.reduce(operator.getitem, metric.split("."), measures)
