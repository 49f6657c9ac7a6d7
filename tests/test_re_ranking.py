"""k-reciprocal re-ranking against a slow oracle, written from the paper's equations."""

import numpy as np
import pytest

from dml_tf import reid
from dml_tf.reid import KReciprocal
from dml_tf.reid.gallery import Gallery
from dml_tf.reid.images import Images
from dml_tf.reid.re_ranking import ReRanked


def oracle(features, queries, k1, k2, weight):
    """The final distances of the first images to the others, with dense matrices and sets."""
    n = len(features)
    original = ((features[:, None] - features[None]) ** 2).sum(-1)
    original = original / original.max(axis=1, keepdims=True)
    ranking = np.argsort(original, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in ranking[i, : k + 1] if i in ranking[j, : k + 1]} or {i}

    weights = np.zeros((n, n))
    for i in range(n):
        near = reciprocal(i, k1)
        expanded = set(near)
        for candidate in near:
            other = reciprocal(candidate, round(k1 / 2))
            if len(other & near) > 2 / 3 * len(other):
                expanded |= other
        columns = sorted(expanded)
        weights[i, columns] = np.exp(-original[i, columns])
        weights[i] /= weights[i].sum()
    if k2 > 1:
        weights = np.stack([weights[ranking[i, :k2]].mean(axis=0) for i in range(n)])
    smaller = np.minimum(weights[:queries, None], weights[None, queries:]).sum(-1)
    larger = np.maximum(weights[:queries, None], weights[None, queries:]).sum(-1)
    return (1 - weight) * (1 - smaller / larger) + weight * original[:queries, queries:]


def re_ranked(features, queries, **options):
    labels = np.ones(len(features) - queries, int)
    gallery = Gallery(Images("gallery", features[queries:], labels, labels), unit=False)
    ranked = ReRanked(KReciprocal(**options), features[:queries].copy(), gallery, unit=False)
    return ranked.rows(slice(0, queries))


@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (7, 1, 0.0), (4, 4, 1.0), (200, 2, 0.5)]
)
def test_exact_against_the_oracle(k1, k2, weight):
    rng = np.random.default_rng(k1)
    centres = 2 * rng.standard_normal((6, 5))
    features = centres[rng.integers(0, 6, 70)] + rng.standard_normal((70, 5))
    found = re_ranked(features, 12, k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(found, oracle(features, 12, k1, k2, weight), atol=1e-9)


def test_equal_features_rank_in_gallery_order():
    features = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(float)
    found = re_ranked(features, 8, k1=5, k2=2)
    expected = oracle(features, 8, 5, 2, 0.3)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_shared_neighbours_bring_a_hard_image_forward():
    # Images of one identity form a chain; an image of another identity is nearer to the query than
    # the chain's end.
    chain = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [3.9, 0.0]])
    others = np.array([[0.0, 3.5], [0.0, 4.2], [0.0, 4.9], [0.0, 5.6], [0.0, 6.3]])
    gallery = np.concatenate([chain[1:], others])
    pids, camids = np.array([1] * 4 + [2] * 5), np.full(9, 2)
    arguments = (chain[:1], [1], [1], gallery, pids, camids)
    plain = reid.evaluate(*arguments, normalize=False)
    better = reid.evaluate(*arguments, normalize=False, re_ranking=KReciprocal(k1=4, k2=2))
    assert plain["mINP"] < 1
    assert better["mINP"] > plain["mINP"]


def test_junk_helps_to_find_neighbours_and_is_not_ranked():
    rng = np.random.default_rng(1)
    q, g = rng.standard_normal((6, 4)), rng.standard_normal((40, 4))
    pids, camids = rng.integers(-1, 5, 40), rng.integers(1, 4, 40)
    options = {"re_ranking": KReciprocal(k1=6)}
    q_labels = np.arange(6) % 4 + 1, np.ones(6, int)
    result = reid.evaluate(q, *q_labels, g, pids, camids, **options)
    unlabelled = np.where(pids == -1, 9, pids)  # an identity that no query has counts as wrong
    worse = reid.evaluate(q, *q_labels, g, unlabelled, camids, **options)
    assert (result["first_hit"] <= worse["first_hit"]).all()
    assert result["mAP"] > worse["mAP"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k1": 5, "k2": 6}, "k2 must be from 1 to k1"), ({"weight": 2.0}, "weight must be from 0")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KReciprocal(**options)
