"""Sets of images: their features, identities and cameras, checked; more images of a query."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

JUNK, DISTRACTOR = -1, 0
_POOLING: dict[str, Callable] = {"mean": np.mean, "max": np.max}


@dataclass(frozen=True)
class Images:
    """Features `(images, dim)`, pids and camids `(images,)`; `name` is their arguments' prefix."""

    name: str
    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray


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
    check_option("pooling", pooling, _POOLING)
    query = as_images("query", query_features, query_pids, query_camids)
    more = as_images("multi_query", multi_query_features, multi_query_pids, multi_query_camids)
    check_dimensions(query, more)
    pooled = query.features.copy()
    for i, same in enumerate(same_identity(more.pids, query.pids)):
        rows = same[more.camids[same] == query.camids[i]]
        if len(rows):
            pooled[i] = _POOLING[pooling](prepare(more.features[rows], normalize), axis=0)
    return prepare(pooled, normalize)


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

    Examples:
        >>> l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    if lengths is None:
        lengths = np.linalg.norm(features, axis=1)
    return np.divide(features, np.where(lengths == 0, 1, lengths)[:, None], out=out)


def same_identity(pids: np.ndarray, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """Yields for each wanted pid its indices in `pids`, ascending."""
    order = np.argsort(pids, kind="stable")
    starts, stops = (np.searchsorted(pids[order], wanted, side) for side in ("left", "right"))
    return (order[start:stop] for start, stop in zip(starts, stops, strict=True))


def prepare(features: np.ndarray, unit: bool) -> np.ndarray:
    """Scales features to length 1 if `unit`; in place, because a gallery takes much memory."""
    if unit:
        l2_normalize(features, lengths=np.sqrt(2 * half_squared_norms(features)), out=features)
    return features


def half_squared_norms(features: np.ndarray) -> np.ndarray:
    """Without an array of squares, which takes 80 MB for 19,732 features of 1,024 dimensions."""
    return np.einsum("id,id->i", features, features) / 2


def as_images(name: str, features: np.ndarray, pids: np.ndarray, camids: np.ndarray) -> Images:
    """Checks and converts one set of images."""
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"{name}_features must have shape (images, dim), each at least 1; got {features.shape}."
        )
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{name}_features must be real numbers, got {features.dtype}.")
    features = features.astype(np.result_type(features.dtype, np.float32), copy=False)
    if not np.isfinite([features.min(), features.max()]).all():
        count = np.count_nonzero(~np.isfinite(features).all(axis=1))
        raise ValueError(
            f"{name}_features of {count} images contain NaN or infinity: check the weights of the "
            "network."
        )
    pids, camids = (
        _labels(f"{name}_{x}", y, len(features)) for x, y in (("pids", pids), ("camids", camids))
    )
    return Images(name, features, pids, camids)


def _labels(name: str, values: np.ndarray, count: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        wanted = f"{name} must be {count} integers, one for each row of the features"
        raise ValueError(f"{wanted}, got {values.dtype} of shape {values.shape}.")
    return values.astype(np.int64)


def check_dimensions(one: Images, other: Images) -> None:
    """Refuses features of different dimensions."""
    dims = one.features.shape[1], other.features.shape[1]
    if dims[0] != dims[1]:
        raise ValueError(
            f"{one.name}_features have {dims[0]} dimensions and {other.name}_features {dims[1]}."
        )


def check_option(name: str, value: str, known: Sequence[str]) -> None:
    """Refuses a value that is not known."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
