"""The peers of a cohort: trained here, frozen, or remote (trained by another process)."""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from dml_tf.method.checks import check_optimizers
from dml_tf.method.losses import is_labelled
from dml_tf.method.outputs import as_outputs

Outputs = Mapping[str, tf.Tensor]


class OneDevice:
    """All peers in this process, on TensorFlow's default device.

    An object with the same two methods can put them on several devices or in several processes.
    """

    def on(self, k: int) -> contextlib.AbstractContextManager:
        """Context in which peer k's variables are made and its work is done."""
        return contextlib.nullcontext()

    def exchange(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """Every peer's outputs, from this process's; a remote peer's are empty before."""
        return list(outputs)


class RemoteNetwork(keras.Model):
    """Stands in a list of networks for a peer that another process trains; it has no outputs."""

    def __init__(self, name: str):
        super().__init__(name=name)
        self.built = True

    def call(self, inputs, training=False) -> dict:
        """Nothing: the peer's outputs arrive by the placement's `exchange`."""
        return {}


class Prediction(NamedTuple):
    """Outputs of one forward pass, and the tape that recorded it if the peer learns from it."""

    outputs: dict[str, tf.Tensor]
    tape: tf.GradientTape | None = None


class Peer:
    """A network of a cohort, and the context in which it works."""

    is_student = True
    is_trained_here = False

    def __init__(
        self,
        network: keras.Model,
        name: str,
        on: Callable[[], contextlib.AbstractContextManager],
    ):
        self.network = network
        self.name = name
        self.on = on

    def outputs(self, images: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """Logits `(batch, classes)`, and features `(batch, dim)` where the network has any."""
        with self.on():
            outputs = self.network(images, training=training)
        return as_outputs(self.name, outputs)

    def predict(self, images: tf.Tensor) -> Prediction:
        """The peer's prediction of a training batch, before any update."""
        return Prediction(self.outputs(images, training=False))


class TrainedPeer(Peer):
    """A student that this process trains."""

    is_trained_here = True
    optimizer: keras.optimizers.Optimizer | None = None

    def take(self, optimizer: keras.optimizers.Optimizer):
        """Makes an optimizer the peer's own."""
        self.optimizer = optimizer
        if self.network.built:
            self.build_optimizer()

    def build_optimizer(self):
        """Makes the optimizer's variables, if there is an optimizer without them."""
        if self.optimizer is not None and not self.optimizer.built:
            with self.on():
                self.optimizer.build(self.network.trainable_variables)

    def finish(self):
        """Puts averaged weights (`use_ema`) in the weights' place, as Keras's `fit` does.

        An Entropy-SGD loop is left as it is, so that training can go on within it.
        """
        if getattr(self.optimizer, "inner_optimizer", self.optimizer).use_ema:
            with self.on():
                self.optimizer.finalize_variable_values(self.network.trainable_variables)

    def predict(self, images: tf.Tensor) -> Prediction:
        """Records the forward pass, which serves the others and later the peer's own gradient."""
        with tf.GradientTape() as tape:
            outputs = self.outputs(images, training=True)
        return Prediction(outputs, tape)

    def learn(self, own: Prediction, known: Outputs, loss: Callable[[Outputs], tf.Tensor]):
        """Eqs. (8) and (9): one update, by the loss of the recorded outputs."""
        with own.tape, self.on():
            scaled = self.optimizer.scale_loss(loss(own.outputs))
        with self.on():
            variables = self.network.trainable_variables
            self.optimizer.apply(own.tape.gradient(scaled, variables), variables)

    def refresh(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The updated peer's outputs; BatchNorm's averages and dropout's seeds stay."""
        with keras.StatelessScope():
            return self.outputs(images, training=True)


class FrozenPeer(Peer):
    """A fixed, pre-trained peer, always in inference mode."""

    is_student = False

    def outputs(self, images: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """As of every peer; `training` changes nothing."""
        return super().outputs(images, training=False)


class RemotePeer(Peer):
    """A student that another process trains: here its metrics are computed, and no more."""

    def learn(self, own: Prediction, known: Outputs, loss: Callable[[Outputs], tf.Tensor]):
        """Computes the loss of the outputs that have arrived, for the metrics."""
        with self.on():
            loss(known)

    def refresh(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Nothing: the refreshed outputs arrive by the placement's `exchange`."""
        return self.outputs(images, training=True)


class OptimizerGroup:
    """The optimizers of all students as one, for callbacks and for users: `cohort.optimizer`.

    Keras's callbacks know groups by `optimizers`. They set the learning rate of each member.
    """

    def __init__(self, optimizers: Sequence[keras.optimizers.Optimizer]):
        # A loss scale's own optimizer has the learning rate and the averaged weights.
        self.optimizers = [getattr(o, "inner_optimizer", o) for o in optimizers]

    @property
    def learning_rate(self) -> keras.Variable | tf.Tensor:
        """The first optimizer's rate; setting it sets that of all."""
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float):
        for optimizer in self.optimizers:
            optimizer.learning_rate = rate

    @property
    def iterations(self) -> keras.Variable:
        """Number of steps made."""
        return self.optimizers[0].iterations

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of all optimizers."""
        return [variable for optimizer in self.optimizers for variable in optimizer.variables]

    @property
    def built(self) -> bool:
        """True for Keras: each optimizer is built on its own peer's variables."""
        return True


def make_peers(
    networks: Sequence[keras.Model],
    names: Sequence[str],
    frozen: Sequence[int],
    placement: OneDevice,
) -> tuple[Peer, ...]:
    """One peer for each network."""
    peers = []
    for k, (network, name) in enumerate(zip(networks, names, strict=True)):
        here = RemotePeer if isinstance(network, RemoteNetwork) else TrainedPeer
        kind = FrozenPeer if k in frozen else here
        peers.append(kind(network, name, partial(placement.on, k)))
    return tuple(peers)


def names_of(networks: Sequence[keras.Model]) -> tuple[str, ...]:
    """Each network's own name, numbered where several have the same."""
    count, seen, names = Counter(network.name for network in networks), Counter(), []
    for network in networks:
        name = network.name
        names.append(f"{name}_{seen[name]}" if count[name] > 1 else name)
        seen[name] += 1
    return tuple(names)


def optimizers_for(
    networks: Mapping[int, keras.Model], optimizers: str | keras.optimizers.Optimizer | Sequence
) -> list[keras.optimizers.Optimizer]:
    """One optimizer for each network, by the peer's index: those given, or copies of one.

    Copies have noise of their own: their seed is the given one plus the peer's index.
    """
    if isinstance(optimizers, (list, tuple)):
        chosen = [keras.optimizers.get(optimizer) for optimizer in optimizers]
    else:
        chosen = [_copied(keras.optimizers.get(optimizers), k) for k in networks]
    check_optimizers(chosen, len(networks))
    return list(map(_with_loss_scale, chosen, networks.values()))


def _copied(optimizer: keras.optimizers.Optimizer, k: int) -> keras.optimizers.Optimizer:
    copy = keras.optimizers.serialize(optimizer)
    inner = copy["config"].get("inner_optimizer", copy)["config"]  # of a loss scale
    if isinstance(inner.get("seed"), int):
        inner["seed"] += k
    return keras.optimizers.deserialize(copy)


def _with_loss_scale(
    optimizer: keras.optimizers.Optimizer, network: keras.Model
) -> keras.optimizers.Optimizer:
    """Gradients in float16 underflow without a loss scale."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if network.dtype_policy.name != "mixed_float16" or scaled:
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def random_states(networks: Sequence[keras.Model]) -> list[keras.Variable]:
    """State variables that are no weights: those of dropout and other random layers."""
    states = []
    for network in networks:
        weights = {id(variable) for variable in network.weights}
        states += [variable for variable in network.variables if id(variable) not in weights]
    return states


def replica_shares(labels: tf.Tensor) -> tuple:
    """This replica's part of the labelled images, and of all images, of a mirrored batch.

    A mean over this replica's images times its share, summed over the replicas, is the mean over
    the batch. The shares are 1 where nothing is mirrored.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return 1.0, 1.0
    labelled = tf.reduce_sum(tf.cast(is_labelled(labels), tf.float32))
    counts = tf.stack([labelled, tf.cast(tf.shape(labels)[0], tf.float32)])
    totals = replica.all_reduce(tf.distribute.ReduceOp.SUM, counts)
    return tuple(tf.unstack(counts / tf.maximum(totals, 1.0)))
