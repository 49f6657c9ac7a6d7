"""CMC, mean average precision, mINP and ROC of queries against a gallery."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_tf.reid.gallery import METRICS, ByDistance, Gallery, blocks
from dml_tf.reid.images import (
    DISTRACTOR,
    JUNK,
    Images,
    as_images,
    check_dimensions,
    check_option,
    pool_queries,
    prepare,
    same_identity,
)
from dml_tf.reid.re_ranking import KReciprocal, ReRanked
from dml_tf.reid.roc import TruePositiveRates

_NOBODY = np.iinfo(np.int64).min  # the pid that no image has
_SORT_PER_GOOD = 256  # finding one good image's rank by counting costs as much as sorting so many


def _step(found: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Precision at each good image, which has rank `rank` (from 0), after `found` good images."""
    return (found + 1) / (rank + 1)


def _trapezoid(found: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Mean of the precision at each good image and just before it; 1 before the first image."""
    before = np.where(rank == 0, 1.0, found / np.maximum(rank, 1))
    return (_step(found, rank) + before) / 2


_AVERAGE_PRECISION: dict[str, Callable] = {"trapezoid": _trapezoid, "step": _step}


def evaluate(
    query_features: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_features: np.ndarray,
    gallery_pids: np.ndarray,
    gallery_camids: np.ndarray,
    *,
    metric: str = "euclidean",
    normalize: bool = True,
    average_precision: str = "trapezoid",
    ranks: Sequence[int] = (1, 5, 10, 20),
    multi_query_features: np.ndarray | None = None,
    multi_query_pids: np.ndarray | None = None,
    multi_query_camids: np.ndarray | None = None,
    pooling: str = "mean",
    re_ranking: KReciprocal | None = None,
    false_positive_rates: Sequence[float] = (),
) -> dict[str, Any]:
    """Mean average precision and CMC of every query against the gallery (Sec. 4.3, Table 3).

    Images at equal distances rank in gallery order. Identical gallery features always have equal
    distances. Distances have the features' precision, float32 or float64. They are computed for one
    block of queries at a time, so that memory does not grow with the number of queries.

    Args:
        query_features: Features, shape `(queries, dim)`.
        query_pids: Identities, integers of shape `(queries,)`.
        query_camids: Cameras, integers of shape `(queries,)`.
        gallery_features: Features, shape `(gallery, dim)`.
        gallery_pids: Identities, shape `(gallery,)`; -1 is junk, 0 a distractor.
        gallery_camids: Cameras, shape `(gallery,)`.
        metric: `euclidean` or `cosine`; on normalised features both give the same ranking.
        normalize: Whether features are L2-normalised before the Euclidean distance.
        average_precision: `trapezoid`, as in the data set's own code and the paper, or `step`.
        ranks: The k of each rank-k (CMC), at least 1.
        multi_query_features: More images of the queries, shape `(images, dim)`; `pool_queries`
            pools them.
        multi_query_pids: Their identities, shape `(images,)`.
        multi_query_camids: Their cameras, shape `(images,)`.
        pooling: `mean` or `max`: how several images of a query become one feature.
        re_ranking: `KReciprocal()` ranks by shared neighbours. Default: by the distance alone.
        false_positive_rates: Fractions at which the ROC curve is read.

    Returns:
        `mAP` and `rank<k>`: fractions, over the queries that have a good image;
        `mINP`: the mean over these queries of the number of good images divided by the rank of the
        last one (Ye et al., TPAMI 2021);
        `average_precision`: float64, shape `(queries,)`, NaN without a good image;
        `first_hit`: rank of the first good image from 1, int64, shape `(queries,)`, 0 without one;
        `left_out`: number of queries without a good image (pid 0 or -1 never has one);
        `true_positive_rate`: for each false positive rate, the largest fraction of good images that
        one threshold on the distance accepts while the wrong images stay within that rate; over the
        pairs of all queries that have a good image;
        `multi_query`: the same measures with the pooled features, if there are any.

    Raises:
        ValueError: A shape is wrong, features are not finite, pids or camids are not integers, an
            option is unknown, or no query has a good image.

    Examples:
        The good images have ranks 1 and 3. The first image is junk: it is from the query's camera.

        >>> import numpy as np
        >>> gallery = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> pids, camids = np.array([7, 7, 0, 7]), np.array([1, 2, 3, 2])
        >>> result = evaluate(np.array([[0.0]]), [7], [1], gallery, pids, camids, normalize=False)
        >>> round(result["mAP"] * 24), result["rank1"], result["left_out"]  # 19/24
        (19, 1.0, 0)
    """
    check_option("metric", metric, METRICS)
    check_option("average_precision", average_precision, _AVERAGE_PRECISION)
    _check_ranks(ranks)
    _check_rates(false_positive_rates)
    unit = normalize or metric == "cosine"
    query = as_images("query", query_features, query_pids, query_camids)
    images = as_images("gallery", gallery_features, gallery_pids, gallery_camids)
    check_dimensions(query, images)
    gallery = Gallery(images, unit)
    pairs = _Pairs.of(query, images)

    def measure(features: np.ndarray) -> dict[str, Any]:
        prepared = prepare(features.copy(), unit)
        distances = ByDistance(prepared, gallery, unit)
        if re_ranking:
            distances = ReRanked(re_ranking, prepared, gallery, unit)
        roc = TruePositiveRates(false_positive_rates, pairs.wrong)
        good_ranks = list(_good_ranks(pairs, distances, roc))
        rates = {"true_positive_rate": roc.rates()} if roc.is_asked else {}
        return _measures(good_ranks, _AVERAGE_PRECISION[average_precision], ranks) | rates

    result = measure(query.features)
    more = (multi_query_features, multi_query_pids, multi_query_camids)
    if any(part is not None for part in more):
        if any(part is None for part in more):
            raise ValueError(
                "Multi-query needs features, pids and camids: pass all three multi_query arguments."
            )
        own = (query.features, query.pids, query.camids)
        pooled = pool_queries(*own, *more, pooling=pooling, normalize=normalize)
        result["multi_query"] = measure(pooled)
    return result


@dataclass(frozen=True)
class _Pairs:
    """Of each query its good images and those of its identity in its own camera, as indices.

    `wrong` counts the pairs of a query that has a good image and an image that is wrong for it.
    """

    good: list[np.ndarray]
    own_camera: list[np.ndarray]
    gallery: int
    wrong: int

    @classmethod
    def of(cls, query: Images, gallery: Images) -> "_Pairs":
        wanted = np.where(query.pids <= DISTRACTOR, _NOBODY, query.pids)
        same = list(same_identity(gallery.pids, wanted))
        is_own = [gallery.camids[s] == camid for s, camid in zip(same, query.camids, strict=True)]
        good = [s[~own] for s, own in zip(same, is_own, strict=True)]
        if not any(map(len, good)):
            raise ValueError(
                "No query has an image of its identity from another camera in the gallery: check "
                "pids and camids."
            )
        others = np.count_nonzero(gallery.pids != JUNK)
        wrong = sum(others - len(s) for s, g in zip(same, good, strict=True) if len(g))
        own_camera = [s[own] for s, own in zip(same, is_own, strict=True)]
        return cls(good, own_camera, len(gallery.pids), wrong)


def _good_ranks(
    pairs: _Pairs, distances: ByDistance | ReRanked, roc: TruePositiveRates
) -> Iterator[np.ndarray]:
    """Yields for each query the sorted ranks, from 0, of its good images; junk is removed."""
    for block in blocks(len(pairs.good), pairs.gallery):
        for i, row in enumerate(distances.rows(block), block.start):
            row[pairs.own_camera[i]] = np.inf
            good = pairs.good[i]
            if roc.is_asked and len(good):
                of_all = row + distances.offsets[i]
                of_good, of_all[good] = of_all[good], np.inf
                roc.add(of_good, of_all[np.isfinite(of_all)])
            yield _ranks(row, good)


def _ranks(row: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Sorted ranks, from 0, of the images `good` by their distances in `row`."""
    if not len(good):
        return good
    near = row <= row[good].max()  # images farther away do not change the ranks
    if np.count_nonzero(near) > _SORT_PER_GOOD * len(good):
        return np.sort([_rank(row, i) for i in good.tolist()])
    near = np.flatnonzero(near)
    row, good = row[near], np.searchsorted(near, good)
    in_order = np.sort(row)
    ranks, ends = (in_order.searchsorted(row[good], side) for side in ("left", "right"))
    for k in np.flatnonzero(ends - ranks > 1):
        ranks[k] = _rank(row, good[k])
    return np.sort(ranks)


def _rank(row: np.ndarray, i: int) -> int:
    """Number of images before image `i`: the nearer ones, and the earlier ones at its distance."""
    distance = row[i]
    return np.count_nonzero(row[:i] <= distance) + np.count_nonzero(row[i:] < distance)


def _measures(
    good_ranks: list[np.ndarray], average_precision: Callable, ranks: Sequence[int]
) -> dict[str, Any]:
    """The measures that `evaluate` returns, from each query's sorted ranks of good images."""
    kept = np.array([len(rank) > 0 for rank in good_ranks])
    precision = np.full(len(kept), np.nan)
    precision[kept] = [average_precision(np.arange(len(r)), r).mean() for r in good_ranks if len(r)]
    first_hit = np.zeros(len(kept), np.int64)
    first_hit[kept] = [rank[0] + 1 for rank in good_ranks if len(rank)]
    inverse = [len(rank) / (rank[-1] + 1) for rank in good_ranks if len(rank)]
    cmc = {f"rank{k}": float(np.mean(first_hit[kept] <= k)) for k in ranks}
    return {
        "mAP": float(precision[kept].mean()),
        **cmc,
        "mINP": float(np.mean(inverse)),
        "average_precision": precision,
        "first_hit": first_hit,
        "left_out": int(np.count_nonzero(~kept)),
    }


def _check_ranks(ranks: Sequence[int]) -> None:
    if not all(isinstance(k, (int, np.integer)) and k >= 1 for k in ranks):
        raise ValueError(f"ranks must be whole numbers from 1 on, got {ranks!r}.")


def _check_rates(rates: Sequence[float]) -> None:
    if not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"false_positive_rates must be fractions from 0 to 1, got {rates!r}.")
