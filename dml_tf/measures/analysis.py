"""Why DML works (Sec. 4.8, Fig. 4) and whether it makes peers alike (Sec. 4.9, Fig. 5).

What the figures need beside it a record has anyway: the training loss over the epochs in its
`history`, and the posteriors' mean entropy under `train` and `test`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dml_tf import data
from dml_tf.measures import evaluate
from dml_tf.measures import posteriors as metrics

if TYPE_CHECKING:
    from dml_tf.method.cohort import Cohort

# Standard deviations of the noise on weights (Fig. 4b).
SIGMAS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)


def analyse(cohort: Cohort, splits: data.Splits) -> dict[str, dict]:
    """All of this module, as a run's record keeps it.

    Args:
        cohort: Trained peers.
        splits: The run's data.

    Returns:
        `weight_noise` and `ranked_mass`, and `tsne` where two peers' features can be compared.
    """
    found = {
        "weight_noise": weight_noise(cohort, splits),
        "ranked_mass": ranked_mass(cohort, splits),
    }
    shown = choose_test_images(splits)
    features = features_of_two(cohort, shown, splits)
    if len(features) > 1:
        found["tsne"] = {
            "labels": shown.labels.tolist(),
            "points": tsne(features),
            "same_peer": same_peer(features),
        }
    return found


def weight_noise(
    cohort: Cohort,
    splits: data.Splits,
    *,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = 3,
    seed: int = 0,
    images: int = 5000,
) -> dict:
    """Training loss after Gaussian noise on each parameter (Fig. 4, wide and sharp minima).

    Parameters are all weights that training learns; BatchNorm's statistics stay as they are. The
    loss is the cross-entropy of the labelled training images without augmentation. A draw is the
    same direction for every sigma, and for every cohort of the same networks, so that runs compare
    like with like.

    Args:
        cohort: Trained peers; their weights are the same afterwards.
        splits: The run's data.
        sigmas: Standard deviations of the noise.
        draws: Draws of noise for each sigma above 0.
        seed: Of the noise.
        images: At most so many training images, spread over all.

    Returns:
        `{"sigma": [...], "loss": {peer: one list for each sigma, with the loss in nats of each
        draw}}`; without noise there is one draw.
    """
    train = _spread(splits.train.labelled, images)
    losses = {name: [] for name in cohort.peer_names}
    for sigma in sigmas:
        for values in losses.values():
            values.append([])
        for draw in range(draws if sigma else 1):
            with _noise(cohort, sigma, [seed, draw]):
                posteriors = evaluate.predict(cohort, train, splits)
            for name, values in losses.items():
                values[-1].append(metrics.cross_entropy(posteriors[name], train.labels))
    return {"sigma": list(sigmas), "loss": losses}


def ranked_mass(cohort: Cohort, splits: data.Splits, ranks: int = 10) -> dict[str, list[float]]:
    """Posterior mass by rank, averaged over the labelled training images (Fig. 4).

    Args:
        cohort: Trained peers.
        splits: The run's data.
        ranks: How many classes of the order to return.

    Returns:
        Peer -> mean probability of the true class, of the most probable other one, and so on.
    """
    train = splits.train.labelled
    posteriors = evaluate.predict(cohort, train, splits)
    return {
        name: mass_by_rank(posteriors[name], train.labels)[:ranks].tolist()
        for name in cohort.peer_names
    }


def mass_by_rank(posteriors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean probability of the true class, which is 'class 1', and of the others in their order.

    Args:
        posteriors: Class probabilities, shape `(images, classes)`.
        labels: True classes, shape `(images,)`.

    Returns:
        Means over the images, float64, shape `(classes,)`: the true class first, whether or not it
        is the most probable one, then the rest, the most probable first.

    Example:
        >>> mass_by_rank(np.array([[0.125, 0.375, 0.5], [0.5, 0.25, 0.25]]), np.array([1, 0]))
        array([0.4375, 0.375 , 0.1875])
    """
    true = np.arange(posteriors.shape[1]) == labels[:, None]
    others = np.sort(posteriors[~true].reshape(len(labels), -1), axis=1)[:, ::-1]
    return np.column_stack([posteriors[true], others]).mean(axis=0, dtype=np.float64)


def choose_test_images(splits: data.Splits, images: int = 200, classes: int = 10) -> data.Split:
    """The test images that Fig. 5 shows: as many of each of the commonest classes.

    Args:
        splits: The run's data.
        images: How many, at most.
        classes: Of how many classes or, for re-identification, of the gallery's identities.

    Returns:
        The first images of each class, the same in every run; labels are classes or identities.
    """
    if splits.reid:
        test = data.Split(splits.reid.gallery.images, splits.reid.gallery.pids)
        test = test.take(np.flatnonzero(test.labels > 0))  # neither distractors nor junk
    else:
        test = splits.test
    names, counts = np.unique(test.labels, return_counts=True)
    commonest = names[np.argsort(-counts, kind="stable")][:classes]
    each = images // len(commonest)
    return test.take(
        np.concatenate([np.flatnonzero(test.labels == name)[:each] for name in commonest])
    )


def features_of_two(
    cohort: Cohort, split: data.Split, splits: data.Splits
) -> dict[str, np.ndarray]:
    """Features of the first two peers, if they can be laid over each other.

    Args:
        cohort: Trained peers.
        split: Images.
        splits: The run's data, whose statistics normalise them.

    Returns:
        Peer -> features, shape `(images, dim)`; of one peer only where there is no other or its
        features have another size.
    """
    features = {
        name: evaluate.predict(evaluate.extractor(network, name), split, splits)
        for name, network in list(zip(cohort.peer_names, cohort.networks, strict=True))[:2]
    }
    first = next(iter(features.values()))
    return {name: f for name, f in features.items() if f.shape == first.shape}


def tsne(
    features: Mapping[str, np.ndarray], seed: int = 0, perplexity: float = 30.0
) -> dict[str, list]:
    """t-SNE of several peers' features of the same images, in one picture (Fig. 5).

    Features are scaled to length 1, as re-identification compares them, so that a peer does not
    stand apart by its scale alone.

    Args:
        features: Peer -> features, shape `(images, dim)`, the same shape for all.
        seed: Of t-SNE's start, for which features of many dimensions are projected at random.
        perplexity: t-SNE's; lowered where there are few images.

    Returns:
        Peer -> `[[x, y], ...]`, places with one decimal.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    joined = _joined(features)
    picture = TSNE(perplexity=min(perplexity, (len(joined) - 1) / 3), random_state=seed)
    with threadpool_limits(1):  # its threads wait for each other: ten times as long on a busy core
        points = picture.fit_transform(joined).astype(np.float64).round(1)
    parts = np.array_split(points, len(features))
    return {name: part.tolist() for name, part in zip(features, parts, strict=True)}


def same_peer(features: Mapping[str, np.ndarray]) -> float:
    """How far peers have features of their own: what Fig. 5 shows, in one number.

    Args:
        features: As for `tsne`, whose picture may deceive.

    Returns:
        Fraction of the features whose nearest other one comes from the same peer: 1 where no peer
        has features like another's, about 1/K where K peers' are alike.
    """
    from sklearn.neighbors import NearestNeighbors

    joined = _joined(features)
    peer = np.arange(len(joined)) // (len(joined) // len(features))
    nearest = NearestNeighbors(n_neighbors=1).fit(joined).kneighbors(return_distance=False)[:, 0]
    return float(np.mean(peer[nearest] == peer))


def _joined(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """All peers' features below each other, each of length 1."""
    joined = np.concatenate(list(features.values()))
    return joined / np.linalg.norm(joined, axis=1, keepdims=True).clip(1e-12)


@contextlib.contextmanager
def _noise(cohort: Cohort, sigma: float, key: Sequence[int]) -> Iterator[None]:
    """Noise on every trainable weight, taken off again at the end, whatever happens."""
    weights = [net.get_weights() for net in cohort.networks]
    try:
        for k, network in enumerate(cohort.networks):
            rng = np.random.default_rng([*key, k])
            for variable in network.trainable_variables:
                variable.assign_add(sigma * rng.standard_normal(variable.shape, np.float32))
        yield
    finally:
        for network, values in zip(cohort.networks, weights, strict=True):
            network.set_weights(values)


def _spread(split: data.Split, images: int) -> data.Split:
    count = min(images, len(split))
    return split.take(np.arange(count) * len(split) // count)
