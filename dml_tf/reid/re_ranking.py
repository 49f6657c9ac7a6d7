"""k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from dml_tf.reid.gallery import ByDistance, Gallery, blocks
from dml_tf.reid.images import Images, prepare


@dataclass(frozen=True)
class KReciprocal:
    """Re-ranks by shared neighbours (Zhong et al., CVPR 2017, Sec. 3; the defaults are theirs).

    Two images are near if each is among the nearest images of the other, and if their nearest
    images are the same. The final distance is `(1 - weight) * Jaccard + weight * original` (Eq.
    12). The original distance is the squared Euclidean one, divided by the image's largest.
    Neighbours are looked for among all queries and all gallery images, junk too: no label is used.

    Args:
        k1: How many nearest images are looked at for reciprocal ones (Eq. 3).
        k2: Over how many nearest images the neighbourhoods are averaged (Eq. 11); 1 for none.
        weight: Weight of the original distance, from 0 to 1.

    Raises:
        ValueError: An argument is out of its range.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self):
        if not 1 <= self.k2 <= self.k1:
            raise ValueError(f"k2 must be from 1 to k1, got k1={self.k1} and k2={self.k2}.")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must be from 0 to 1, got {self.weight}.")


class ReRanked:
    """The re-ranked distances of queries to a gallery, in blocks of queries."""

    def __init__(self, options: KReciprocal, queries: np.ndarray, gallery: Gallery, unit: bool):
        self._weight, self._queries, self._junk = options.weight, len(queries), gallery.is_junk
        self.offsets = np.zeros(len(queries))
        features = prepare(np.concatenate([queries, gallery.images.features]), unit)
        labels = np.zeros(len(features), np.int64)
        self._features = features
        everything = Gallery(Images("all", features, labels, labels), unit=False)
        self._to_all = ByDistance(features, everything, unit=False)
        nearest, self._largest = self._nearest(options.k1 + 1)
        encoded = self._encoded(nearest, options.k1)
        if options.k2 > 1:
            encoded = _averaged(encoded, nearest[:, : options.k2])
        self._encoded_rows, self._encoded_columns = encoded.tocsr(), encoded.tocsc()

    def rows(self, block: slice) -> np.ndarray:
        """Distances of some queries to the gallery, float64; junk is farther than all others."""
        original = self._squared(block) / self._largest[block, None]
        jaccard = np.stack([self._jaccard(i) for i in range(block.start, block.stop)])
        final = (self._weight * original + (1 - self._weight) * jaccard)[:, self._queries :]
        final[:, self._junk] = np.inf
        return final

    def _squared(self, block: slice) -> np.ndarray:
        """Squared distances of some images to all images, float64."""
        half = self._to_all.rows(block) + self._to_all.offsets[block, None]
        return np.maximum(2 * half.astype(np.float64), 0)

    def _nearest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Each image's nearest images in order, `(images, count)`, and its largest distance."""
        images = len(self._features)
        count = min(count, images)
        nearest, largest = np.empty((images, count), np.int64), np.empty(images)
        for block in blocks(images, images):
            squared = self._squared(block)
            largest[block] = squared.max(axis=1)
            for i, row in enumerate(squared, block.start):
                near = np.flatnonzero(row <= np.partition(row, count - 1)[count - 1])
                nearest[i] = near[np.argsort(row[near], kind="stable")[:count]]
        return nearest, np.where(largest == 0, 1, largest)

    def _encoded(self, nearest: np.ndarray, k1: int) -> scipy.sparse.csr_array:
        """Each image's neighbourhood as weights that sum to 1 (Eq. 7): `(images, images)`."""
        wide = [_reciprocal(nearest, i) for i in range(len(nearest))]
        narrow_nearest = nearest[:, : round(k1 / 2) + 1]
        narrow = [_reciprocal(narrow_nearest, i) for i in range(len(nearest))]
        columns, weights = [], []
        for i, near in enumerate(wide):
            more = [narrow[c] for c in near.tolist() if _mostly_in(narrow[c], near)]
            columns.append(np.unique(np.concatenate([near, *more])))
            closeness = np.exp(-self._pairs(i, columns[-1]) / self._largest[i])
            weights.append(closeness / closeness.sum())
        starts = np.cumsum([0, *map(len, columns)])
        entries = np.concatenate(weights), np.concatenate(columns), starts
        return scipy.sparse.csr_array(entries, shape=(len(nearest),) * 2)

    def _pairs(self, i: int, others: np.ndarray) -> np.ndarray:
        """Squared distances of image `i` to some others."""
        apart = self._features[others].astype(np.float64) - self._features[i]
        return np.einsum("id,id->i", apart, apart)

    def _jaccard(self, i: int) -> np.ndarray:
        """Jaccard distance of image `i` to all images (Eq. 10)."""
        rows, columns = self._encoded_rows, self._encoded_columns
        shared = np.zeros(len(self._features))
        for k in range(rows.indptr[i], rows.indptr[i + 1]):
            column = slice(*columns.indptr[rows.indices[k] : rows.indices[k] + 2])
            shared[columns.indices[column]] += np.minimum(rows.data[k], columns.data[column])
        return 1 - shared / (2 - shared)


def _reciprocal(nearest: np.ndarray, i: int) -> np.ndarray:
    """The nearest images of image `i` that have `i` among their nearest images (Eq. 3).

    An image with more than `k1` copies before it may have none; then it has only itself.
    """
    found = nearest[i][(nearest[nearest[i]] == i).any(axis=1)]
    return found if len(found) else np.array([i])


def _mostly_in(images: np.ndarray, others: np.ndarray) -> bool:
    """Whether more than two thirds of `images` are among the others (Eq. 5)."""
    return 3 * np.isin(images, others).sum() > 2 * len(images)


def _averaged(encoded: scipy.sparse.csr_array, nearest: np.ndarray) -> scipy.sparse.csr_array:
    """The mean neighbourhood of each image's nearest images (Eq. 11)."""
    images, count = nearest.shape
    starts = np.arange(0, images * count + 1, count)
    mean = (np.full(images * count, 1 / count), nearest.ravel(), starts)
    return scipy.sparse.csr_array(mean, shape=(images, images)) @ encoded
