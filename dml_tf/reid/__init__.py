"""Re-identification: distances, CMC and mean average precision by Market-1501's protocol.

Each query ranks the gallery by the distance of their features (Sec. 4.3). A gallery image is *good*
if it shows the query's identity in another camera. *Junk* is removed from the ranking: images with
pid -1, and images of the query's identity in the query's own camera. *Distractors* have pid 0; they
stay and count as wrong.
"""

from dml_tf.reid.gallery import distances
from dml_tf.reid.images import DISTRACTOR, JUNK, l2_normalize, pool_queries
from dml_tf.reid.protocol import evaluate
from dml_tf.reid.re_ranking import KReciprocal

__all__ = [
    "DISTRACTOR",
    "JUNK",
    "KReciprocal",
    "distances",
    "evaluate",
    "l2_normalize",
    "pool_queries",
]
