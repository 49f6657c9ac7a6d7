"""Peers as they were some steps ago: codistillation (Anil et al., ICLR 2018, arXiv 1804.03235)."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from dml_tf.method.peers import Peer


class StaleCopies:
    """A copy of each student's variables, renewed every few steps, that the others learn from.

    Args:
        peers: The cohort's peers, built. A frozen one needs no copy.
        every: Steps between two renewals; the first is at step 0.

    Attributes:
        variables: All copies, in the order of the peers and of their networks' variables.
    """

    def __init__(self, peers: Sequence[Peer], every: int):
        self._peers, self._every = peers, every
        self._pairs = [_copied(peer) if peer.is_student else [] for peer in peers]
        self.variables = [copy for pairs in self._pairs for _, copy in pairs]

    def renew(self, step: tf.Tensor):
        """Takes the students' variables as they are, if it is time, at a count of steps made."""
        is_time = tf.equal(step % self._every, 0)
        for peer, pairs in zip(self._peers, self._pairs, strict=True):
            with peer.on():
                for variable, copy in pairs:  # no condition: an exported step must not have any
                    copy.assign(tf.where(is_time, variable.value, copy.value))

    def predict(self, k: int, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs of peer k's copy for a training batch; no variable changes."""
        state = [(variable, copy.value) for variable, copy in self._pairs[k]]
        with keras.StatelessScope(state_mapping=state):
            return self._peers[k].outputs(images, training=True)


def _copied(peer: Peer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Each variable of a network, seeds of dropout included, with its copy."""
    with peer.on():
        return [
            (v, keras.Variable("zeros", v.shape, v.dtype, trainable=False, name=f"stale_{v.name}"))
            for v in peer.network.variables
        ]
