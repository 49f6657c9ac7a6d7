"""A trained cohort's measurements, as a run's record keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dml_tf import data, reid
from dml_tf.measures import posteriors as metrics

PARTS = ("query", "gallery", "multi_query")
_AT_ONCE = 50_000  # Images: bounds the memory that posteriors take, 4 bytes a class and peer.

if TYPE_CHECKING:
    import keras

    from dml_tf.method.cohort import Cohort


def measure(
    cohort: Cohort, split: data.Split, splits: data.Splits, batch_size: int = 256
) -> dict[str, dict]:
    """Accuracy, cross-entropy and posterior entropy of each peer and of the ensemble.

    Args:
        cohort: Trained peers.
        split: The images to measure on; unlabelled ones are left out.
        splits: The run's data, whose statistics normalise the images.
        batch_size: Images in a batch.

    Returns:
        `{"peers": {name: {"accuracy", "cross_entropy", "entropy"}}, "ensemble": {...}}`:
        a fraction, and nats. A cohort of one has no `ensemble`.
    """
    labelled = split.labelled
    starts = range(0, len(labelled), _AT_ONCE)
    parts = [labelled.take(slice(start, start + _AT_ONCE)) for start in starts]
    rows = [_measure_part(cohort, part, splits, batch_size) for part in parts]
    measured = _average(rows, weights=[len(part) for part in parts])
    ensemble = measured.pop("ensemble")
    return {"peers": measured} | ({"ensemble": ensemble} if len(measured) > 1 else {})


def _measure_part(
    cohort: Cohort, part: data.Split, splits: data.Splits, batch_size: int
) -> dict[str, dict]:
    return {
        name: {
            "accuracy": metrics.accuracy(p, part.labels),
            "cross_entropy": metrics.cross_entropy(p, part.labels),
            "entropy": metrics.entropy(p),
        }
        for name, p in predict(cohort, part, splits, batch_size).items()
    }


def extract_features(
    cohort: Cohort, splits: data.Splits, batch_size: int = 256, verbose: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Features of the last pooling layer of all test images (Sec. 4.1).

    Args:
        cohort: Trained peers.
        splits: The run's data, with `reid`.
        batch_size: Images in a batch.
        verbose: Keras's; 1 shows a progress bar for each peer and part.

    Returns:
        Peer -> part (`query`, `gallery`, `multi_query`) -> features, float32, `(images, dim)`.

    Raises:
        ValueError: A network has no `features`.
    """
    features = {}
    for name, network in zip(cohort.peer_names, cohort.networks, strict=True):
        model = extractor(network, name)
        features[name] = {}
        for part in PARTS:
            images = getattr(splits.reid, part)
            split = data.Split(images.images, images.pids)
            if verbose:
                print(f"{name}: features of {len(images)} {part} images", flush=True)
            features[name][part] = predict(model, split, splits, batch_size, verbose)
    return features


def extractor(network: keras.Model, name: str) -> keras.Model:
    """The part of a network that gives its features.

    Args:
        network: A peer.
        name: Its name, for the message.

    Returns:
        A model from images to features, `(batch, dim)`, with the network's own weights.

    Raises:
        ValueError: The network has no `features`.
    """
    import keras

    outputs = network.output
    if not isinstance(outputs, dict) or "features" not in outputs:
        raise ValueError(
            f"Peer {name} gives no features: re-identification needs a network that returns a "
            "dict with `logits` and `features`."
        )
    return keras.Model(network.inputs, outputs["features"])


def predict(
    model: keras.Model,
    split: data.Split,
    splits: data.Splits,
    batch_size: int = 256,
    verbose: int = 0,
):
    """What a model says of images, in inference mode and without augmentation.

    Args:
        model: A cohort, or a model made by `extractor`.
        split: The images.
        splits: The run's data, whose statistics normalise them.
        batch_size: Images in a batch.
        verbose: Keras's.

    Returns:
        The model's outputs: for a cohort posteriors by name, `(images, classes)`, else features,
        `(images, dim)`.
    """
    batches = data.eval_batches(split, splits, batch_size).map(_images)
    return model.predict(batches, verbose=verbose)


def measure_reid(
    features: dict[str, dict[str, np.ndarray]], splits: data.Splits
) -> dict[str, dict]:
    """Market-1501's protocol for each peer, their mean and the ensemble.

    Args:
        features: As `extract_features` gives them.
        splits: The run's data, with `reid`.

    Returns:
        `{"peers": {name: measures}, "average": measures, "ensemble": measures}`: fractions `mAP`,
        `rank1`, ..., and the same under `multi_query`. The ensemble matches by the members'
        concatenated, L2-normalised features (Fig. 3b); a cohort of one has none, and no average.
    """
    peers = {name: _reid_measures(parts, splits.reid) for name, parts in features.items()}
    if len(peers) == 1:
        return {"peers": peers}
    joined = {
        part: np.concatenate([_unit(member[part]) for member in features.values()], axis=1)
        for part in PARTS
    }
    return {
        "peers": peers,
        "average": _average(list(peers.values())),
        "ensemble": _reid_measures(joined, splits.reid),
    }


def write_features(
    features: dict[str, dict[str, np.ndarray]], splits: data.Splits, file: Path
) -> None:
    """Writes test features with what they belong to, for `python -m dml_tf.rankings`.

    Args:
        features: As `extract_features` gives them; the peers' are concatenated.
        splits: The run's data, with `reid`.
        file: Where to, ending in `.npz`.
    """
    arrays = {}
    for part in PARTS:
        images = getattr(splits.reid, part)
        arrays[f"{part}_features"] = np.concatenate(
            [_unit(member[part]) for member in features.values()], axis=1
        )
        arrays |= {f"{part}_pids": images.pids, f"{part}_camids": images.camids}
        arrays[f"{part}_names"] = np.array(images.names)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **arrays)


def _images(images, labels):
    del labels
    return images


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, np.finfo(np.float32).tiny)


def _reid_measures(parts: dict[str, np.ndarray], test: data.Market1501) -> dict:
    query, gallery, more = test.query, test.gallery, test.multi_query
    result = reid.evaluate(
        parts["query"], query.pids, query.camids,
        parts["gallery"], gallery.pids, gallery.camids,
        multi_query_features=parts["multi_query"],
        multi_query_pids=more.pids,
        multi_query_camids=more.camids,
    )  # fmt: skip
    return _fractions(result) | {"multi_query": _fractions(result["multi_query"])}


def _fractions(result: dict) -> dict[str, float]:
    return {k: float(v) for k, v in result.items() if k == "mAP" or k.startswith("rank")}


def _average(measures: list[dict], weights: list[int] | None = None) -> dict:
    """Mean of each measure over peers or parts, those in dicts of the dicts too."""
    return {
        key: _average([m[key] for m in measures], weights)
        if isinstance(value, dict)
        else float(np.average([m[key] for m in measures], weights=weights))
        for key, value in measures[0].items()
    }
