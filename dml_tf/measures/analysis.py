"""Why DML works (Sec. 4.8, Fig. 4), and whether it makes peers' features alike (Sec. 4.9, Fig. 5).

A record already has the rest of these figures: the training loss of each epoch in `history`, and
the mean entropy of the posteriors in `train` and `test`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dml_tf import data, reid
from dml_tf.measures import evaluate, posteriors

if TYPE_CHECKING:
    from dml_tf.method.cohort import Cohort

# Standard deviations of the noise on the weights (Fig. 4b).
SIGMAS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
# Length of the noise on each filter, as a part of the filter's own length.
RATIOS = (0.1, 0.2, 0.4)


def analyse(cohort: "Cohort", splits: data.Splits) -> dict[str, dict]:
    """All analyses of this module, for a run's record.

    Args:
        cohort: Trained peers.
        splits: The run's data.

    Returns:
        `weight_noise`, `filter_noise` and `ranked_mass`; and `tsne`, if two peers have features of
        the same size.
    """
    found = {
        "weight_noise": weight_noise(cohort, splits),
        "filter_noise": filter_noise(cohort, splits),
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
    cohort: "Cohort",
    splits: data.Splits,
    *,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = 3,
    seed: int = 0,
    images: int = 5000,
) -> dict:
    """Training loss after Gaussian noise on each weight (Fig. 4b: wide and sharp minima).

    The noise is added to the trainable weights; BatchNorm's averages stay as they are. The loss is
    the cross-entropy of the labelled training images, without augmentation. A draw has one
    direction for all sigmas, and for all cohorts of the same networks, so that runs are comparable.

    Args:
        cohort: Trained peers; their weights are restored.
        splits: The run's data.
        sigmas: Standard deviations of the noise.
        draws: Draws of noise for each sigma above 0; sigma 0 has one.
        seed: Seed of the noise.
        images: Largest number of training images, evenly spaced.

    Returns:
        `{"sigma": [...], "loss": {peer: [[loss of each draw] for each sigma]}}`, in nats.
    """
    train = _evenly_spaced(splits.train.labelled, images)
    keys = [(seed, draw) for draw in range(draws)]
    return {
        "sigma": list(sigmas),
        "loss": _losses(cohort, train, splits, on_each_weight, sigmas, keys),
    }


def filter_noise(
    cohort: "Cohort",
    splits: data.Splits,
    *,
    ratios: Sequence[float] = RATIOS,
    draws: int = 3,
    seed: int = 0,
    images: int = 5000,
) -> dict:
    """Training loss after noise whose length is a part of each filter's own length.

    Networks whose weights are small lose more by the same deviation, though BatchNorm makes the
    size of a filter irrelevant. So each filter gets noise in a random direction, as in the pictures
    of Li et al. 2018 (Sec. 4). Biases and BatchNorm's parameters get none.

    Args:
        cohort: Trained peers; their weights are restored.
        splits: The run's data.
        ratios: Length of the noise divided by the filter's; above 0.
        draws: Draws of noise for each ratio.
        seed: Seed of the noise.
        images: Largest number of training images, evenly spaced.

    Returns:
        `{"ratio": [...], "loss": {peer: [[loss of each draw] for each ratio]}}`, in nats.
    """
    train = _evenly_spaced(splits.train.labelled, images)
    keys = [(seed, draw) for draw in range(draws)]
    return {
        "ratio": list(ratios),
        "loss": _losses(cohort, train, splits, on_each_filter, ratios, keys),
    }


def _losses(
    cohort: "Cohort",
    train: data.Split,
    splits: data.Splits,
    draw: "Draw",
    sizes: Sequence[float],
    keys: Sequence[tuple[int, int]],
) -> dict[str, list[list[float]]]:
    """Peer -> cross-entropies of each draw at each size; without noise, all draws are one."""
    losses: dict[str, list] = {name: [] for name in cohort.peer_names}
    for size in sizes:
        of_draws = [
            _loss_with_noise(cohort, train, splits, draw, size, key)
            for key in (keys if size else keys[:1])
        ]
        for name, values in losses.items():
            values.append([loss[name] for loss in of_draws])
    return losses


def _loss_with_noise(
    cohort: "Cohort",
    train: data.Split,
    splits: data.Splits,
    draw: "Draw",
    size: float,
    key: tuple[int, int],
) -> dict[str, float]:
    """Each peer's cross-entropy while there is noise on its weights."""
    with _noise(cohort, draw, size, key):
        predicted = evaluate.predict(cohort, train, splits)
    return {
        name: posteriors.cross_entropy(predicted[name], train.labels) for name in cohort.peer_names
    }


# From a weight, the noise's size and a generator to the noise.
Draw = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def on_each_weight(weight: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of deviation `sigma` on every weight."""
    return sigma * rng.standard_normal(weight.shape, np.float32)


def on_each_filter(weight: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Noise in a random direction, `ratio` times as long as each filter; none on vectors."""
    if weight.ndim < 2:
        return np.zeros_like(weight)
    noise = rng.standard_normal(weight.shape, np.float32)
    # The last axis counts filters; of a depthwise kernel, the last two do.
    axes = (0, 1) if weight.ndim == 4 and weight.shape[-1] == 1 else tuple(range(weight.ndim - 1))
    norm, own = (np.sqrt(np.sum(w**2, axis=axes, keepdims=True)) for w in (noise, weight))
    return ratio * noise * own / norm


@contextlib.contextmanager
def _noise(cohort: "Cohort", draw: Draw, size: float, key: tuple[int, int]) -> Iterator[None]:
    """Context with noise on every trainable weight; afterwards the weights are restored."""
    weights = [net.get_weights() for net in cohort.networks]
    try:
        for k, network in enumerate(cohort.networks):
            rng = np.random.default_rng([*key, k])
            for variable in network.trainable_variables:
                variable.assign_add(draw(variable.numpy(), size, rng))
        yield
    finally:
        for network, values in zip(cohort.networks, weights, strict=True):
            network.set_weights(values)


def _evenly_spaced(split: data.Split, images: int) -> data.Split:
    """At most so many images of a split."""
    count = min(images, len(split))
    return split.take(np.arange(count) * len(split) // count)


def ranked_mass(cohort: "Cohort", splits: data.Splits, ranks: int = 10) -> dict[str, list[float]]:
    """Posterior mass by rank on the labelled training images (Fig. 4c).

    Args:
        cohort: Trained peers.
        splits: The run's data.
        ranks: Number of ranks to return.

    Returns:
        Peer -> mean probability of the true class, of the most probable other class, and so on, as
        `posteriors.mass_by_rank` defines them.
    """
    train = splits.train.labelled
    predicted = evaluate.predict(cohort, train, splits)
    return {
        name: posteriors.mass_by_rank(predicted[name], train.labels)[:ranks].tolist()
        for name in cohort.peer_names
    }


def choose_test_images(splits: data.Splits, images: int = 200, classes: int = 10) -> data.Split:
    """The test images of Fig. 5: the first images of each of the most frequent classes.

    Args:
        splits: The run's data.
        images: Largest number of images.
        classes: Number of classes or, for re-identification, of the gallery's identities.

    Returns:
        As many images of each class, or all of one that has fewer, with classes or identities as
        labels.
    """
    test = splits.test
    if splits.reid:
        gallery = splits.reid.gallery
        is_person = np.flatnonzero(gallery.pids > 0)  # neither distractor nor junk
        test = data.Split(gallery.images, gallery.pids).take(is_person)
    names, counts = np.unique(test.labels, return_counts=True)
    most_frequent = names[np.argsort(-counts, kind="stable")][:classes]
    each = images // len(most_frequent)
    chosen = [np.flatnonzero(test.labels == name)[:each] for name in most_frequent]
    return test.take(np.concatenate(chosen))


def features_of_two(
    cohort: "Cohort", split: data.Split, splits: data.Splits
) -> dict[str, np.ndarray]:
    """Features of the first two peers; of the first alone where their sizes differ.

    Args:
        cohort: Trained peers.
        split: Images.
        splits: The run's data, whose mean and deviation normalise the images.

    Returns:
        Peer -> features, shape `(images, dim)`.
    """
    model = evaluate.extractor(cohort.peer_names[:2], cohort.networks[:2])
    features = evaluate.predict(model, split, splits)
    shape = features[cohort.peer_names[0]].shape
    return {name: values for name, values in features.items() if values.shape == shape}


def tsne(
    features: Mapping[str, np.ndarray], seed: int = 0, perplexity: float = 30.0
) -> dict[str, list]:
    """t-SNE of several peers' features of the same images, in one picture (Fig. 5).

    Features are L2-normalised, as for re-identification: a different scale alone does not separate
    two peers.

    Args:
        features: Peer -> features, shape `(images, dim)`, the same for all peers.
        seed: Seed of t-SNE.
        perplexity: Perplexity of t-SNE; it is lowered where there are few images.

    Returns:
        Peer -> points `[[x, y], ...]`, rounded to one decimal.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    joined = _joined(features)
    picture = TSNE(perplexity=min(perplexity, (len(joined) - 1) / 3), random_state=seed)
    # On a busy machine several threads wait for each other and take ten times as long.
    with threadpool_limits(1):
        points = picture.fit_transform(joined).astype(np.float64).round(1)
    parts = np.array_split(points, len(features))
    return {name: part.tolist() for name, part in zip(features, parts, strict=True)}


def same_peer(features: Mapping[str, np.ndarray]) -> float:
    """How different the peers' features are: Fig. 5 in one number.

    Args:
        features: As for `tsne`.

    Returns:
        Fraction of the features whose nearest other feature is the same peer's: 1 where the peers'
        features differ, about 1/K where those of K peers are alike.
    """
    from sklearn.neighbors import NearestNeighbors

    joined = _joined(features)
    peer = np.arange(len(joined)) // (len(joined) // len(features))
    nearest = NearestNeighbors(n_neighbors=1).fit(joined).kneighbors(return_distance=False)[:, 0]
    return float(np.mean(peer[nearest] == peer))


def _joined(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """All peers' L2-normalised features, one peer after the other."""
    return reid.l2_normalize(np.concatenate(list(features.values())))
