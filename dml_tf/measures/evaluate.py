"""Measures of a trained cohort: accuracy, entropy, and Market-1501's protocol."""

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dml_tf import data, reid
from dml_tf.errors import RunFailed
from dml_tf.measures import posteriors

if TYPE_CHECKING:
    import keras

    from dml_tf.method.cohort import Cohort

PARTS = ("query", "gallery", "multi_query")
_AT_ONCE = 50_000  # images whose posteriors are in memory together, 4 bytes a class and peer


def measure(
    cohort: "Cohort",
    split: data.Split,
    splits: data.Splits,
    list_correct: bool = False,
) -> dict[str, dict]:
    """Accuracy, cross-entropy, entropy and calibration of each peer and of the ensemble.

    Args:
        cohort: Trained peers.
        split: The images to measure on; images without labels are ignored.
        splits: The run's data, whose mean and deviation normalise the images.
        list_correct: Whether to list which images are right.

    Returns:
        `{"peers": {name: measures}, "ensemble": measures}` with the measures `accuracy` and
        `calibration_error` (fractions), `cross_entropy` and `entropy` (nats), and with
        `list_correct` the text `correct`, which `unpack_correct` reads. One peer alone has no
        `ensemble`.
    """
    labelled = split.labelled
    starts = range(0, len(labelled), _AT_ONCE)
    parts = [labelled.take(slice(start, start + _AT_ONCE)) for start in starts]
    rows, of_images = zip(*(_measure_part(cohort, part, splits) for part in parts), strict=True)
    measured = _average(rows, weights=[len(part) for part in parts])
    for name, measures in measured.items():
        confidence, correct = np.concatenate([part[name] for part in of_images], axis=1)
        measures["calibration_error"] = posteriors.calibration_error(confidence, correct)
        if list_correct:
            measures["correct"] = pack_correct(correct)
    ensemble = measured.pop("ensemble")
    return {"peers": measured} | ({"ensemble": ensemble} if len(measured) > 1 else {})


def pack_correct(correct: np.ndarray) -> str:
    """Which images are right, shape `(images,)`, as text of a bit each."""
    return base64.b64encode(np.packbits(correct.astype(bool))).decode("ascii")


def unpack_correct(text: str, images: int) -> np.ndarray:
    """Which images are right, from a record.

    Args:
        text: The record's `correct`: base64 of eight images a byte, the first image highest.
        images: How many images there are, the record's `images.test`.

    Returns:
        Booleans in the order of the test images, shape `(images,)`.

    Examples:
        >>> unpack_correct(pack_correct(np.array([True, False, True])), 3).tolist()
        [True, False, True]
    """
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=images).astype(bool)


def _measure_part(
    cohort: "Cohort", part: data.Split, splits: data.Splits
) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    """Of each peer and the ensemble: the means, and each image's confidence and whether right."""
    predicted = predict(cohort, part, splits)
    means = {
        name: {
            "accuracy": posteriors.accuracy(p, part.labels),
            "cross_entropy": posteriors.cross_entropy(p, part.labels),
            "entropy": posteriors.entropy(p),
        }
        for name, p in predicted.items()
    }
    of_images = {
        name: np.stack([p.max(axis=1), p.argmax(axis=1) == part.labels])
        for name, p in predicted.items()
    }
    return means, of_images


def predict(
    model: "keras.Model",
    split: data.Split,
    splits: data.Splits,
    verbose: int = 0,
):
    """A model's outputs for images, in inference mode and without augmentation.

    Args:
        model: A cohort, or a model that `extractor` returned.
        split: The images.
        splits: The run's data, whose mean and deviation normalise the images.
        verbose: As in `keras.Model.predict`.

    Returns:
        Of a cohort: peer -> posteriors, shape `(images, classes)`, and the same of `ensemble`. Of
        an extractor: peer -> features, shape `(images, dim)`.

    Raises:
        RunFailed: An output is not finite.
    """
    batches = data.eval_batches(split, splits).map(_images)
    outputs = model.predict(batches, verbose=verbose)
    for name, values in outputs.items():
        wrong = len(values) - int(np.isfinite(values).all(axis=1).sum())
        if wrong:
            raise RunFailed(
                f"The outputs of {name} are not finite for {wrong} of {len(values)} images that "
                "are evaluated: its weights or BatchNorm's statistics are too large. Try a smaller "
                "--learning_rate, or larger batches."
            )
    return outputs


def _images(images, labels):
    return images


def extractor(names: Sequence[str], networks: Sequence["keras.Model"]) -> "keras.Model":
    """The parts of networks that compute their features, as one model.

    Args:
        names: The peers' names.
        networks: Their networks, for images of one shape.

    Returns:
        A model from images, `(batch, height, width, channels)`, to peer -> features, shape
        `(batch, dim)`. It shares the networks' weights.

    Raises:
        ValueError: A network has no output `features`.
    """
    import keras

    peers = dict(zip(names, networks, strict=True))
    for name, network in peers.items():
        if not isinstance(network.output, dict) or "features" not in network.output:
            raise ValueError(
                f"Peer {name} has no features: re-identification needs a network that returns a "
                "dict with `logits` and `features`."
            )
    images = keras.Input(networks[0].input_shape[1:])
    features = {
        name: keras.Model(network.inputs, network.output["features"])(images)
        for name, network in peers.items()
    }
    return keras.Model(images, features)


def extract_features(
    cohort: "Cohort", splits: data.Splits, verbose: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Each peer's features of all test images, from its last pooling layer (Sec. 4.1).

    Args:
        cohort: Trained peers.
        splits: The run's data, with `reid`.
        verbose: 1 prints what is extracted and shows Keras's progress bar.

    Returns:
        Peer -> part (`query`, `gallery`, `multi_query`) -> features, float32, `(images, dim)`.

    Raises:
        ValueError: A network has no output `features`.
    """
    model = extractor(cohort.peer_names, cohort.networks)
    features = {name: {} for name in cohort.peer_names}
    for part in PARTS:
        images = getattr(splits.reid, part)
        if verbose:
            print(f"features of {len(images)} {part} images", flush=True)
        split = data.Split(images.images, images.pids)
        for name, values in predict(model, split, splits, verbose).items():
            features[name][part] = values
    return features


def measure_reid(
    features: dict[str, dict[str, np.ndarray]], splits: data.Splits
) -> dict[str, dict]:
    """Measures each peer, and the ensemble, by Market-1501's protocol (Sec. 4.3).

    The ensemble's feature of an image is the peers' L2-normalised features, concatenated (Fig. 3b).

    Args:
        features: As `extract_features` returns them.
        splits: The run's data, with `reid`.

    Returns:
        `{"peers": {name: measures}, "average": measures, "ensemble": measures}` with the fractions
        `mAP`, `rank1`, ..., and the same again under `multi_query`. Peers and ensemble also have
        the text `correct`: which queries have a good image first, as `unpack_correct` reads it. One
        peer alone has neither `average` nor `ensemble`.
    """
    peers = {name: _reid_measures(parts, splits.reid) for name, parts in features.items()}
    if len(peers) == 1:
        return {"peers": peers}
    return {
        "peers": peers,
        "average": _average([_without_correct(peer) for peer in peers.values()]),
        "ensemble": _reid_measures(ensemble_features(features), splits.reid),
    }


def ensemble_features(features: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The features by which the ensemble matches: those of all peers, concatenated.

    Args:
        features: As `extract_features` returns them.

    Returns:
        Part -> features, shape `(images, sum of dims)`; each peer's part has length 1.
    """
    peers = features.values()
    return {
        part: np.concatenate([reid.l2_normalize(peer[part]) for peer in peers], axis=1)
        for part in PARTS
    }


def labelled_features(
    features: dict[str, dict[str, np.ndarray]], splits: data.Splits
) -> dict[str, np.ndarray]:
    """The content of a features file, which `python -m dml_tf.measures.rankings` reads.

    Args:
        features: As `extract_features` returns them.
        splits: The run's data, with `reid`.

    Returns:
        `<part>_features`, `<part>_pids`, `<part>_camids` and `<part>_names` of each part. The
        features are the ensemble's; those of one peer alone have length 1. `identity` says of
        which data they are, in JSON.
    """
    arrays = {"identity": np.array(json.dumps(splits.identity))}
    for part, joined in ensemble_features(features).items():
        images = getattr(splits.reid, part)
        arrays[f"{part}_features"] = joined
        arrays[f"{part}_pids"] = images.pids
        arrays[f"{part}_camids"] = images.camids
        arrays[f"{part}_names"] = np.array(images.names)
    return arrays


def _reid_measures(parts: dict[str, np.ndarray], test: data.Market1501) -> dict:
    query, gallery, more = test.query, test.gallery, test.multi_query
    result = reid.evaluate(
        parts["query"], query.pids, query.camids,
        parts["gallery"], gallery.pids, gallery.camids,
        multi_query_features=parts["multi_query"],
        multi_query_pids=more.pids,
        multi_query_camids=more.camids,
    )  # fmt: skip
    return _fractions(result) | {
        "correct": pack_correct(result["first_hit"] == 1),
        "multi_query": _fractions(result["multi_query"]),
    }


def _without_correct(measures: dict) -> dict:
    return {name: value for name, value in measures.items() if name != "correct"}


def _fractions(result: dict) -> dict[str, float]:
    return {k: float(v) for k, v in result.items() if k == "mAP" or k.startswith("rank")}


def _average(rows: list[dict], weights: list[int] | None = None) -> dict:
    """The rows' mean of each measure, also in nested dicts."""
    averages = {}
    for key, value in rows[0].items():
        values = [row[key] for row in rows]
        if isinstance(value, dict):
            averages[key] = _average(values, weights)
        else:
            averages[key] = float(np.average(values, weights=weights))
    return averages
