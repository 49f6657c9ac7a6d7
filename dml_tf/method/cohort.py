"""The cohort: Algorithm 1 of Deep Mutual Learning as one Keras model.

One training step serves every method. Independent training is a cohort of one, or of several
without mimicry. Distillation is a cohort with a frozen member. DML_e and Eq. (7) are other mimicry
losses. 'Distributed' training (Sec. 4.5) is the same step without the refresh, and codistillation
that step with copies of the peers from some steps ago.
"""

from collections.abc import Callable, Sequence
from functools import partial

import keras
import tensorflow as tf

# Optimizers and layers are imported so that Keras knows them when a saved cohort is loaded.
import dml_tf.method.optimizers
import dml_tf.networks.layers  # noqa: F401
from dml_tf.method import batch, checks, losses, peers, ramp
from dml_tf.method.metrics import Measuring, UserMetrics, guess_modes
from dml_tf.method.mimicry import Mimicry, of_student, resolve
from dml_tf.method.outputs import check_classes, prepared
from dml_tf.method.peers import OneDevice, OptimizerGroup, Outputs
from dml_tf.method.saving import Saving
from dml_tf.method.stale import StaleCopies

MimicryLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


@keras.saving.register_keras_serializable(package="dml_tf")
class Cohort(Measuring, Saving, keras.Model):
    """K peers that learn the same task from the same mini-batches and from each other.

    The loss of student k is, Eqs. (5), (6), (10) to (12),

        mean over labelled images of cross-entropy
        + mimicry_weight x mean over all images of reduction over peers l of D(p_l || p_k)
        + feature_weight x mean squared distance to the peers' features          (Table 5)
        - entropy_weight x mean posterior entropy                (confidence penalty, Table 5)
        + the network's own regularization losses.

    Everything of a peer is a constant in it. A label of -1 marks an unlabelled image. One-hot and
    soft labels are rows of shape `(batch, classes)`, with zeros for an unlabelled image. A sample
    weight is a factor of all terms of its image; both means still divide by the number of images.

    Each peer's forward pass is recorded once, on its own tape, before any update. The others learn
    from it and, when the peer's turn comes, its gradient is taken from it. After its update a peer
    runs once more to refresh its prediction (Algorithm 1, lines 2 and 4). The last peer does not:
    nobody would use that prediction. A refresh uses batch statistics, but leaves BatchNorm's
    running averages alone. It repeats the dropout mask that the peer's next step will draw.

    Args:
        networks: Built or unbuilt Keras models. Each maps images to logits `(batch, classes)`, or
            to a dict with `logits` and, for re-identification and feature losses, `features`
            `(batch, dim)`. A last softmax is taken off, with a warning.
        update: `sequential` (Algorithm 1) or `simultaneous` (all peers from the same predictions).
        mimicry: `kl` (Eq. 10), `js` (Eq. 7 as printed), `dkd`, `dist`, `ensemble` (DML_e, Eq. 11)
            or `none`; or an object with options of its own, such as `dml_tf.KL(temperature=2)` or
            `dml_tf.Mimicry("min_logit", "dkd")`; or a callable
            `(student_logits, peer_logits, labels, step) -> (batch,)` for one peer; or one of
            `keras.losses`, of the peer's and the student's posteriors.
        peer_reduction: `mean` over the peers, the 1/(K-1) of Eq. (10), or `sum`, as in the
            authors' released code. An ensemble is one teacher: the reduction leaves it alone.
        ensemble_average: `probability` (Eq. 11) or `logit`; for the name `ensemble`.
        mimicry_weight: Factor of the mimicry term; 1 in the paper. Or a function of the number of
            steps made, such as `dml_tf.Ramp(steps=1000)`.
        temperature: Divisor of all logits in the mimicry term, which is then multiplied by its
            square, so that the gradient keeps its size. For a mimicry given by name, or a loss of
            `keras.losses`.
        feature_weight: Factor of the feature distance; 0 in the paper except in Table 5.
        entropy_weight: Factor of the confidence penalty.
        label_smoothing: Label mass spread evenly over the classes, in [0, 1).
        frozen: Indices of fixed, pre-trained peers. They run in inference mode and have no
            optimizer: `frozen=(0,)` with two networks is distillation.
        stale_steps: Learn from copies of the peers that are renewed every so many steps
            (codistillation); 0: from the peers themselves. With 1 it is `simultaneous`.
        own_views: Training images have the shape `(batch, peers, ...)`: a view of the same image
            for each peer. Its posterior, from which the others learn, is that of its own view.
        names: One name for each peer, for metrics and predictions. Default: the networks' names,
            numbered where they repeat.
        placement: Where each peer works: an object with the methods of `peers.OneDevice`, which is
            the default. It is not saved.

    Raises:
        ValueError: For options out of range, peers that share variables, networks that return
            something else than logits, or networks that do not fit each other.
        TypeError: For anything else than a list of Keras models.
        RuntimeError: Keras runs on another backend than TensorFlow.

    Examples:
        >>> import keras, numpy as np
        >>> def net(name):
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name=name)
        >>> cohort = Cohort([net("a"), net("b")])
        >>> cohort.compile("sgd")
        >>> x, y = np.ones((8, 4), "float32"), np.arange(8) % 3
        >>> history = cohort.fit(x, y, batch_size=4, verbose=0)
        >>> sorted(history.history)[:3]
        ['a_accuracy', 'a_mimicry_loss', 'a_supervised_loss']
        >>> {name: p.shape for name, p in cohort.predict(x, verbose=0).items()}
        {'a': (8, 3), 'b': (8, 3), 'ensemble': (8, 3)}
    """

    def __init__(
        self,
        networks: Sequence[keras.Model],
        *others: keras.Model,
        update: str = "sequential",
        mimicry: str | Mimicry | MimicryLoss = "kl",
        peer_reduction: str = "mean",
        ensemble_average: str = "probability",
        mimicry_weight: ramp.Weight = 1.0,
        temperature: float = 1.0,
        feature_weight: float = 0.0,
        entropy_weight: float = 0.0,
        label_smoothing: float = 0.0,
        frozen: Sequence[int] = (),
        stale_steps: int = 0,
        own_views: bool = False,
        names: Sequence[str] | None = None,
        placement: OneDevice | None = None,
        name: str = "cohort",
        **kwargs,
    ):
        checks.check_backend()
        super().__init__(name=name, **kwargs)
        self.networks = checks.network_list(networks, others)
        self.update = update
        self.mimicry = mimicry
        self.peer_reduction = peer_reduction
        self.ensemble_average = ensemble_average
        self.mimicry_weight = mimicry_weight
        self.temperature = temperature
        self.feature_weight = feature_weight
        self.entropy_weight = entropy_weight
        self.label_smoothing = label_smoothing
        self.frozen = tuple(frozen)
        self.stale_steps = stale_steps
        self.own_views = own_views
        checks.check_options(self)
        self.peer_names = tuple(names) if names is not None else peers.names_of(self.networks)
        checks.check_names(self.peer_names, len(self.networks))
        self.networks = prepared(self.networks, self.peer_names)
        self._mimicry = resolve(mimicry, temperature, ensemble_average)
        self._placement = placement or OneDevice()
        self.peers = peers.make_peers(self.networks, self.peer_names, self.frozen, self._placement)
        self.optimizers: list[keras.optimizers.Optimizer] = []
        self._start_metrics()
        self._user_metrics = UserMetrics()
        self.built = all(network.built for network in self.networks)
        self._stale = StaleCopies(self.peers, stale_steps) if stale_steps else None
        self.stale_variables = self._stale.variables if stale_steps else []

    @property
    def students(self) -> tuple[int, ...]:
        """Indices of the peers that learn, in the order of their updates."""
        return tuple(k for k, peer in enumerate(self.peers) if peer.is_student)

    @property
    def trained(self) -> tuple[int, ...]:
        """Indices of the students that this process trains, one for each of `optimizers`."""
        return tuple(k for k, peer in enumerate(self.peers) if peer.is_trained_here)

    @property
    def refreshes(self) -> int:
        """Passes of a step that only refresh a prediction; simultaneous updates have none."""
        return len([k for k in self.students if self._must_refresh(k)])

    # The step

    def train_step(self, data) -> dict[str, tf.Tensor]:
        """One mini-batch of Algorithm 1, for every peer.

        Args:
            data: `(images, labels)` or `(images, labels, sample_weights)`, of shapes
                `(batch, ...)`, `(batch,)` or `(batch, classes)`, and `(batch,)`.

        Returns:
            The metrics' values so far.
        """
        images, labels, weights = batch.read(data)
        given = {"labels": labels, "step": self._steps(), "weights": weights}
        given["shares"] = peers.replica_shares(labels)
        views = self.views(images)
        if self._stale:
            self._stale.renew(given["step"])  # before a prediction moves BatchNorm and dropout
        # Before the students themselves: a later call would make Keras forget their `add_loss`.
        copies = {k: self._stale.predict(k, views[k]) for k in self.students} if self._stale else {}
        # Each prediction is recorded once, on a tape of its own.
        own = [peer.predict(view) for peer, view in zip(self.peers, views, strict=True)]
        known = self._share([prediction.outputs for prediction in own])  # constants for the others
        given["are_right"] = batch.check_labels(labels, known[0]["logits"])
        self._track_ensemble(known, labels, weights)
        if copies:  # what the others learn from
            known = self._share([copies.get(k, outputs) for k, outputs in enumerate(known)])
        for k in self.students:
            loss = partial(self._student_loss, k, others=_others(known, k), **given)
            self.peers[k].learn(own[k], known[k], loss)
            if self._must_refresh(k):
                known[k] = self.peers[k].refresh(views[k])
                known = self._share(known)
        return self.get_metrics_result()

    def test_step(self, data) -> dict[str, tf.Tensor]:
        """The metrics of one batch, in inference mode; arguments and result as of `train_step`."""
        images, labels, weights = batch.read(data)
        known = self._share([peer.outputs(images, training=False) for peer in self.peers])
        given = {"labels": labels, "step": self._steps(), "weights": weights}
        given["are_right"] = batch.check_labels(labels, known[0]["logits"])
        self._track_ensemble(known, labels, weights)
        for k in self.students:
            with self.peers[k].on():
                self._student_loss(k, known[k], _others(known, k), **given)
        return self.get_metrics_result()

    def _must_refresh(self, k: int) -> bool:
        """Whether a later student of this step learns from student k's updated prediction."""
        mutual = (self.mimicry != "none" or self.feature_weight) and not self.stale_steps
        return bool(self.update == "sequential" and mutual and k != self.students[-1])

    def views(self, images: tf.Tensor) -> list[tf.Tensor]:
        """What each peer sees of a training batch, `(batch, ...)`."""
        if not self.own_views:
            return [images] * len(self.peers)
        if images.shape[1] != len(self.peers):
            raise ValueError(
                f"With own_views, training images have the shape (batch, {len(self.peers)}, ...), "
                f"a view for each peer; got {tuple(images.shape)}."
            )
        return tf.unstack(images, axis=1)

    def _share(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """What the peers learn from, as constants; the placement fetches that of remote peers."""
        wanted = ("logits", "features") if self.feature_weight else ("logits",)
        shared = self._placement.exchange(
            [{name: tf.stop_gradient(o[name]) for name in wanted if name in o} for o in outputs]
        )
        named = dict(zip(self.peer_names, shared, strict=True))
        check_classes({name: o["logits"] for name, o in named.items()})
        if self.feature_weight and len(shared) > 1:
            checks.check_features(named)
        return shared

    def _steps(self) -> tf.Tensor:
        """Number of training steps made so far."""
        count = self.optimizers[0].iterations if self.optimizers else tf.constant(0, tf.int64)
        return tf.identity(count)  # its value now, not after the first peer's update

    # The loss of one student

    def _student_loss(
        self,
        k: int,
        own: Outputs,
        others: Sequence[Outputs],
        labels: tf.Tensor,
        step: tf.Tensor,
        shares: tuple = (1.0, 1.0),
        weights: tf.Tensor | None = None,
        are_right: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Loss of student k on one batch, given the others' outputs; updates its metrics.

        With the `shares` of `replica_shares` it is this replica's part of the batch's loss.
        """
        mean = partial(losses.weighted_mean, weights=weights)
        log_q = losses.log_posterior(own["logits"])
        supervised = losses.supervised_loss(log_q, labels, self.label_smoothing, weights)
        if self.jit_compile and are_right is not None:  # XLA left the assertion out
            supervised = tf.where(are_right, supervised, float("nan"))
        known = [o["logits"] for o in others]
        mimicry = mean(of_student(self._mimicry, own["logits"], known, labels, step, self._reduce))
        self._track(k, log_q, labels, weights, supervised, mimicry)
        labelled_share, share = shares
        loss = labelled_share * supervised + share * ramp.at(self.mimicry_weight, step) * mimicry
        if self.feature_weight and others:
            distances = [losses.feature_distance(o["features"], own["features"]) for o in others]
            loss += share * self.feature_weight * mean(self._reduce(distances))
        if self.entropy_weight:
            loss -= share * self.entropy_weight * mean(losses.entropy(log_q))
        return tf.add_n([loss, *(share * tf.cast(r, tf.float32) for r in self.networks[k].losses)])

    def _reduce(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """Sums over peers, with the 1/(K-1) of Eq. (10) where the reduction is a mean."""
        total = tf.add_n([tf.cast(value, tf.float32) for value in values])
        return total / len(values) if self.peer_reduction == "mean" else total

    # Keras's life cycle

    def build(self, input_shape):
        """Builds the networks that are not built yet, for batches of shape `(batch, ...)`."""
        for network in self.networks:
            if not network.built:
                network.build(input_shape)
        checks.check_networks(self.networks)
        for k in self.trained:
            self.peers[k].build_optimizer()
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Class posteriors, Eq. (1), of each peer and of the ensemble.

        Args:
            inputs: Images, shape `(batch, ...)`.
            training: Whether the peers that are not frozen run in training mode.

        Returns:
            Name -> probabilities, float32, `(batch, classes)`; `ensemble` is the peers' mean.
        """
        outputs = self._share([peer.outputs(inputs, training) for peer in self.peers])
        logits = dict(zip(self.peer_names, [o["logits"] for o in outputs], strict=True))
        posteriors = {name: tf.exp(losses.log_posterior(z)) for name, z in logits.items()}
        ensemble = losses.ensemble_log_posterior(list(logits.values()))
        return posteriors | {"ensemble": tf.exp(ensemble)}

    def compile(
        self,
        optimizers: str | keras.optimizers.Optimizer | Sequence = "rmsprop",
        *,
        optimizer: str | keras.optimizers.Optimizer | Sequence | None = None,
        metrics: Sequence = (),
        weighted_metrics: Sequence = (),
        loss: None = None,
        jit_compile: bool | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
    ):
        """Gives each student its optimizer.

        Args:
            optimizers: One for each of `trained` (frozen peers have none), in the networks' order;
                or one, of which each gets a copy.
            optimizer: Keras's name for the same argument.
            metrics: Keras metrics, made anew for each student and the ensemble and named
                `<peer>_<metric>`. They get the labels as they are, and probabilities.
            weighted_metrics: Those that also count each image with its sample weight.
            loss: Not accepted: a cohort has its own.
            jit_compile: Compile the step with XLA. Default: on a GPU only, because XLA runs
                convolutions at half speed on a CPU.
            run_eagerly: Run the step without a `tf.function`, to debug it.
            steps_per_execution: Steps in one call of the `tf.function`.

        Raises:
            ValueError: If the number of optimizers is wrong, two students share one, or two
                metrics have one name.
        """
        if loss is not None:
            raise ValueError(
                "A cohort has its own loss, cross-entropy and mimicry: leave loss out. "
                "Cohort(..., label_smoothing=, mimicry=) has its options."
            )
        self._asked_jit_compile = jit_compile
        if jit_compile is None:
            jit_compile = bool(tf.config.list_logical_devices("GPU")) and not run_eagerly
        super().compile(
            optimizer=None,
            loss=None,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )
        students = [self.peers[k] for k in self.trained]
        chosen = peers.optimizers_for(
            {k: self.networks[k] for k in self.trained},
            optimizers if optimizer is None else optimizer,
        )
        for peer, own in zip(students, chosen, strict=True):
            peer.take(own)
        self.optimizers = chosen
        self.optimizer = OptimizerGroup(chosen) if chosen else None
        names = [self.peer_names[k] for k in self.students]
        names += ["ensemble"] if len(self.networks) > 1 else []
        self._user_metrics = UserMetrics(names, metrics, weighted_metrics, taken=self._trackers)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kw):
        """Trains as Keras's `fit`, with the same arguments.

        Raises:
            ValueError: A batch has labels that are no classes.
        """
        students = [(self.networks[k], self.peer_names[k]) for k in self.students]
        checks.warn_of_equal_peers(*zip(*students, strict=True))
        guess_modes(callbacks, self.metrics)
        with batch.refusals():
            history = super().fit(x, y, batch_size, epochs, verbose, callbacks, **kw)
        for k in self.trained:
            self.peers[k].finish()
        return history

    def evaluate(self, *args, **kw):
        """Measures as Keras's `evaluate`, with the same arguments; raises as `fit`."""
        with batch.refusals():
            return super().evaluate(*args, **kw)


def _others(known: Sequence[Outputs], k: int) -> list[Outputs]:
    """The outputs of all peers but student k."""
    return [*known[:k], *known[k + 1 :]]
