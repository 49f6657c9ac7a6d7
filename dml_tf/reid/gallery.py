"""Distances of queries to a gallery, in blocks of queries, without a copy of the gallery."""

from collections.abc import Iterator

import numpy as np

from dml_tf.reid.images import (
    JUNK,
    Images,
    as_images,
    check_dimensions,
    check_option,
    half_squared_norms,
    prepare,
)

METRICS = ("euclidean", "cosine")
_BLOCK_ELEMENTS = 2**22  # distances in memory at a time: 16 MB, enough for a fast matrix product
_FEWEST_ROWS = 40  # queries in a block however large the gallery is: fewer make the product slow


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
        normalize: Whether features are L2-normalised before the Euclidean distance. A feature of
            zeros then counts as at a right angle to every other, at a distance of sqrt(2).

    Returns:
        Distances in the features' precision, shape `(queries, gallery)`.

    Raises:
        ValueError: A shape is wrong, features are not finite, or the metric is unknown.

    Examples:
        >>> distances([[3.0, 4.0]], [[0.0, 0.0], [3.0, 0.0]], normalize=False).tolist()
        [[5.0, 4.0]]
    """
    check_option("metric", metric, METRICS)
    unit = normalize or metric == "cosine"
    query, images = (
        as_images(name, x, np.zeros(len(x), int), np.zeros(len(x), int))
        for name, x in (("query", query_features), ("gallery", gallery_features))
    )
    check_dimensions(query, images)
    prepared = prepare(query.features.copy(), unit)
    by_distance = ByDistance(prepared, Gallery(images, unit), unit)
    half_squared = by_distance.rows(slice(0, len(prepared))) + by_distance.offsets[:, None]
    np.maximum(half_squared, 0, out=half_squared)
    return half_squared if metric == "cosine" else np.sqrt(2 * half_squared)


class Gallery:
    """A gallery ready to be compared with blocks of queries. Junk is farther than all others."""

    def __init__(self, images: Images, unit: bool):
        self.images = images
        self.is_junk = images.pids == JUNK
        norms = half_squared_norms(images.features)
        self._half_squared = None if unit else norms
        # Queries are compared with the features as they are, then divided by their lengths: a
        # normalised copy of 520,000 features of 128 dimensions takes 270 MB.
        self._lengths = np.sqrt(2 * np.where(norms == 0, 0.5, norms)) if unit else None
        # A matrix product may round equal columns differently. An image with the same features as
        # an earlier image therefore gets the distances of that image.
        hashes = np.fromiter((hash(row.tobytes()) for row in images.features), np.int64, len(norms))
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        self._copies = np.flatnonzero(first[group] != np.arange(len(norms)))
        self._originals = first[group[self._copies]]

    def compare(self, query_features: np.ndarray) -> np.ndarray:
        """Half the squared distances `(queries, gallery)`, less a constant of each query."""
        distance = -query_features @ self.images.features.T
        if self._lengths is not None:
            distance /= self._lengths
        if self._half_squared is not None:
            distance += self._half_squared
        if len(self._copies):
            distance[:, self._copies] = distance[:, self._originals]
        distance[:, self.is_junk] = np.inf
        return distance


class ByDistance:
    """Half the squared distances of prepared queries to a gallery, in blocks of queries."""

    def __init__(self, queries: np.ndarray, gallery: Gallery, unit: bool):
        self._queries, self._gallery = queries, gallery
        # What `rows` leaves out of each query's distances, which does not change its ranking.
        self.offsets = np.ones_like(queries[:, 0]) if unit else half_squared_norms(queries)

    def rows(self, block: slice) -> np.ndarray:
        """Distances `(queries, gallery)` of some queries, less their offsets."""
        return self._gallery.compare(self._queries[block])


def blocks(queries: int, gallery: int) -> Iterator[slice]:
    """Yields slices of the queries whose distances are in memory together."""
    rows = max(_FEWEST_ROWS, _BLOCK_ELEMENTS // gallery)
    return (slice(start, min(start + rows, queries)) for start in range(0, queries, rows))
