"""Re-identification: distances, CMC and mean average precision by Market-1501's protocol.

Each query ranks the gallery by the distance of their features (Sec. 4.3). A gallery image is *good*
if it shows the query's identity in another camera. *Junk* is removed from the ranking: images with
pid -1, and images of the query's identity in the query's own camera. *Distractors* have pid 0; they
stay and count as wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

JUNK, DISTRACTOR = -1, 0
_BLOCK_ELEMENTS = 2**22  # distances in memory at a time: 16 MB, enough for a fast matrix product
_SORT_PER_GOOD = 256  # finding one good image's rank by counting costs as much as sorting so many


def _step(found: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Precision at each good image, which has rank `rank` (from 0), after `found` good images."""
    return (found + 1) / (rank + 1)


def _trapezoid(found: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Mean of the precision at each good image and just before it; 1 before the first image."""
    before = np.where(rank == 0, 1.0, found / np.maximum(rank, 1))
    return (_step(found, rank) + before) / 2


_AVERAGE_PRECISION: dict[str, Callable] = {"trapezoid": _trapezoid, "step": _step}
_POOLING: dict[str, Callable] = {"mean": np.mean, "max": np.max}
_METRICS = ("euclidean", "cosine")


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

    Returns:
        `mAP` and `rank<k>`: fractions, over the queries that have a good image;
        `average_precision`: float64, shape `(queries,)`, NaN without a good image;
        `first_hit`: rank of the first good image from 1, int64, shape `(queries,)`, 0 without one;
        `left_out`: number of queries without a good image (pid 0 or -1 never has one);
        `multi_query`: the same measures with the pooled features, if there are any.

    Raises:
        ValueError: A shape is wrong, features are not finite, pids or camids are not integers, an
            option is unknown, or no query has a good image.

    Example:
        The good images have ranks 1 and 3. The first image is junk: it is from the query's camera.

        >>> import numpy as np
        >>> gallery = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> pids, camids = np.array([7, 7, 0, 7]), np.array([1, 2, 3, 2])
        >>> result = evaluate(np.array([[0.0]]), [7], [1], gallery, pids, camids, normalize=False)
        >>> round(result["mAP"] * 24), result["rank1"], result["left_out"]  # 19/24
        (19, 1.0, 0)
    """
    _check_option("metric", metric, _METRICS)
    _check_option("average_precision", average_precision, _AVERAGE_PRECISION)
    _check_ranks(ranks)
    unit = normalize or metric == "cosine"
    query = _images("query", query_features, query_pids, query_camids)
    gallery = _Gallery(_images("gallery", gallery_features, gallery_pids, gallery_camids), unit)

    def measure(features: np.ndarray) -> dict[str, Any]:
        found = _good_ranks(replace(query, features=_prepare(features.copy(), unit)), gallery)
        return _measures(list(found), _AVERAGE_PRECISION[average_precision], ranks)

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


def pool_queries(
    query_features: np.ndarray,
    query_pids: np.ndarray,
    query_camids: np.ndarray,
    multi_query_features: np.ndarray,
    multi_query_pids: np.ndarray,
    multi_query_camids: np.ndarray,
    *,
    pooling: str = "mean",
    normalize: bool = True,
) -> np.ndarray:
    """One feature for each query, pooled over the images that share its identity and camera.

    The features are L2-normalised, pooled, and normalised again. A query without such images keeps
    its own feature.

    Args:
        query_features: Features, shape `(queries, dim)`.
        query_pids: Identities, shape `(queries,)`.
        query_camids: Cameras, shape `(queries,)`.
        multi_query_features: Features of more images, shape `(images, dim)`.
        multi_query_pids: Their identities, shape `(images,)`.
        multi_query_camids: Their cameras, shape `(images,)`.
        pooling: `mean` or `max`.
        normalize: Whether to normalise before and after pooling.

    Returns:
        Features, shape `(queries, dim)`.

    Raises:
        ValueError: A shape is wrong, features are not finite, pids or camids are not integers, or
            the pooling is unknown.
    """
    _check_option("pooling", pooling, _POOLING)
    query = _images("query", query_features, query_pids, query_camids)
    more = _images("multi_query", multi_query_features, multi_query_pids, multi_query_camids)
    _check_dimensions(query, more)
    pooled = query.features.copy()
    for i, same in enumerate(_same_identity(more.pids, query.pids)):
        rows = same[more.camids[same] == query.camids[i]]
        if len(rows):
            pooled[i] = _POOLING[pooling](_prepare(more.features[rows], normalize), axis=0)
    return _prepare(pooled, normalize)


def distances(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    *,
    metric: str = "euclidean",
    normalize: bool = True,
) -> np.ndarray:
    """Distance of every query to every gallery image.

    Args:
        query_features: Features, shape `(queries, dim)`.
        gallery_features: Features, shape `(gallery, dim)`.
        metric: `euclidean`, or `cosine` (one minus the cosine of the angle).
        normalize: Whether features are L2-normalised before the Euclidean distance.

    Returns:
        Distances in the features' precision, shape `(queries, gallery)`.

    Raises:
        ValueError: A shape is wrong, features are not finite, or the metric is unknown.

    Example:
        >>> distances([[3.0, 4.0]], [[0.0, 0.0], [3.0, 0.0]], normalize=False).tolist()
        [[5.0, 4.0]]
    """
    _check_option("metric", metric, _METRICS)
    unit = normalize or metric == "cosine"
    query, images = (
        _images(name, x, np.zeros(len(x), int), np.zeros(len(x), int))
        for name, x in (("query", query_features), ("gallery", gallery_features))
    )
    prepared = _prepare(query.features.copy(), unit)
    _check_dimensions(query, images)
    half_squared = _Gallery(images, unit).compare(prepared)
    half_squared += 1 if unit else _half_squared_norms(prepared)[:, None]
    np.maximum(half_squared, 0, out=half_squared)
    return half_squared if metric == "cosine" else np.sqrt(2 * half_squared)


def l2_normalize(
    features: np.ndarray, lengths: np.ndarray | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Features scaled to length 1; a zero vector stays zero.

    Args:
        features: Features, shape `(images, dim)`.
        lengths: Their lengths, shape `(images,)`. Default: they are computed.
        out: Array for the result; it may be `features`. Default: a new array.

    Returns:
        The scaled features, shape `(images, dim)`.

    Example:
        >>> l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    if lengths is None:
        lengths = np.linalg.norm(features, axis=1)
    return np.divide(features, np.where(lengths == 0, 1, lengths)[:, None], out=out)


@dataclass(frozen=True)
class _Images:
    """Features `(images, dim)`, pids and camids `(images,)`; `name` is their arguments' prefix."""

    name: str
    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray


class _Gallery:
    """A gallery without junk, ready to be compared with blocks of queries."""

    name = "gallery"

    def __init__(self, images: _Images, unit: bool):
        keep = images.pids != JUNK
        self.pids, self.camids = images.pids[keep], images.camids[keep]
        self.features = _prepare(images.features[keep], unit)
        self._half_squared = None if unit else _half_squared_norms(self.features)
        # A matrix product may round equal columns differently. An image with the same features as
        # an earlier image therefore gets the distances of that image.
        first: dict[int, int] = {}
        origin = np.array(
            [first.setdefault(hash(row.tobytes()), i) for i, row in enumerate(self.features)]
        )
        self._copies = np.flatnonzero(origin != np.arange(len(origin)))
        self._originals = origin[self._copies]

    def compare(self, query_features: np.ndarray) -> np.ndarray:
        """Half the squared distances `(queries, gallery)`, less a constant of each query."""
        distance = -query_features @ self.features.T
        if self._half_squared is not None:
            distance += self._half_squared
        if len(self._copies):
            distance[:, self._copies] = distance[:, self._originals]
        return distance


def _good_ranks(query: _Images, gallery: _Gallery) -> Iterator[np.ndarray]:
    """Yields for each query the sorted ranks, from 0, of its good images; junk is removed."""
    _check_dimensions(query, gallery)
    # A distractor query has no good image. Here the gallery has no pid -1: nothing matches it.
    wanted = np.where(query.pids == DISTRACTOR, JUNK, query.pids)
    same_identity = list(_same_identity(gallery.pids, wanted))
    block = max(1, _BLOCK_ELEMENTS // max(1, len(gallery.pids)))
    for start in range(0, len(wanted), block):
        for i, row in enumerate(gallery.compare(query.features[start : start + block]), start):
            same = same_identity[i]
            own_camera = gallery.camids[same] == query.camids[i]
            row[same[own_camera]] = np.inf
            yield _ranks(row, same[~own_camera])


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


def _same_identity(pids: np.ndarray, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each wanted pid its indices in `pids`, ascending."""
    order = np.argsort(pids, kind="stable")
    starts, stops = (np.searchsorted(pids[order], wanted, side) for side in ("left", "right"))
    return (order[start:stop] for start, stop in zip(starts, stops, strict=True))


def _measures(
    good_ranks: list[np.ndarray], average_precision: Callable, ranks: Sequence[int]
) -> dict[str, Any]:
    """The measures that `evaluate` returns, from each query's sorted ranks of good images."""
    kept = np.array([len(rank) > 0 for rank in good_ranks])
    if not kept.any():
        raise ValueError(
            "No query has an image of its identity from another camera in the gallery: check pids "
            "and camids."
        )
    precision = np.full(len(kept), np.nan)
    precision[kept] = [average_precision(np.arange(len(r)), r).mean() for r in good_ranks if len(r)]
    first_hit = np.zeros(len(kept), np.int64)
    first_hit[kept] = [rank[0] + 1 for rank in good_ranks if len(rank)]
    cmc = {f"rank{k}": float(np.mean(first_hit[kept] <= k)) for k in ranks}
    return {
        "mAP": float(precision[kept].mean()),
        **cmc,
        "average_precision": precision,
        "first_hit": first_hit,
        "left_out": int(np.count_nonzero(~kept)),
    }


def _prepare(features: np.ndarray, unit: bool) -> np.ndarray:
    """Scales features to length 1 if `unit`; in place, because a gallery takes much memory."""
    if unit:
        l2_normalize(features, lengths=np.sqrt(2 * _half_squared_norms(features)), out=features)
    return features


def _half_squared_norms(features: np.ndarray) -> np.ndarray:
    """Without an array of squares, which takes 80 MB for 19,732 features of 1,024 dimensions."""
    return np.einsum("id,id->i", features, features) / 2


def _images(name: str, features: np.ndarray, pids: np.ndarray, camids: np.ndarray) -> _Images:
    """Checks and converts one set of images."""
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"{name}_features must have shape (images, dim), each at least 1; got {features.shape}."
        )
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{name}_features must be real numbers, got {features.dtype}.")
    features = features.astype(np.result_type(features.dtype, np.float32), copy=False)
    if not np.isfinite(features).all():
        count = np.count_nonzero(~np.isfinite(features).all(axis=1))
        raise ValueError(
            f"{name}_features of {count} images contain NaN or infinity: check the weights of the "
            "network."
        )
    pids, camids = (
        _labels(f"{name}_{x}", y, len(features)) for x, y in (("pids", pids), ("camids", camids))
    )
    return _Images(name, features, pids, camids)


def _labels(name: str, values: np.ndarray, count: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        wanted = f"{name} must be {count} integers, one for each row of the features"
        raise ValueError(f"{wanted}, got {values.dtype} of shape {values.shape}.")
    return values.astype(np.int64)


def _check_dimensions(one: _Images, other: "_Images | _Gallery") -> None:
    dims = one.features.shape[1], other.features.shape[1]
    if dims[0] != dims[1]:
        raise ValueError(
            f"{one.name}_features have {dims[0]} dimensions and {other.name}_features {dims[1]}."
        )


def _check_option(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")


def _check_ranks(ranks: Sequence[int]) -> None:
    if not all(isinstance(k, (int, np.integer)) and k >= 1 for k in ranks):
        raise ValueError(f"ranks must be whole numbers from 1 on, got {ranks!r}.")
