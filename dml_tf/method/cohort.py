"""The cohort: Algorithm 1 of Deep Mutual Learning as one Keras model.

One training step serves every method. Independent training is a cohort of one (or of several
without mimicry); distillation is a cohort with a frozen member; DML_e and Eq. (7) are other
mimicry losses; 'distributed' (Sec. 4.5) is the same step without the refresh.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import keras
import tensorflow as tf

# Optimizers and layers are imported so that Keras knows them when a saved cohort is loaded.
import dml_tf.method.optimizers
import dml_tf.networks.layers  # noqa: F401
from dml_tf.method import losses
from dml_tf.method.peers import Remote

UPDATES = ("sequential", "simultaneous")
MIMICRIES = ("kl", "js", "ensemble", "none")
PEER_REDUCTIONS = ("mean", "sum")
ENSEMBLE_AVERAGES = ("probability", "logit")

Outputs = Mapping[str, tf.Tensor]
MimicryLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Placement(Protocol):
    """Where the peers are; `dml_tf.placement` has the ones that differ from this."""

    def on(self, k: int) -> contextlib.AbstractContextManager:
        """Context in which peer k's variables are made and its work is done.

        Args:
            k: Index of the peer.
        """
        return contextlib.nullcontext()

    def exchange(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """Every peer's outputs.

        Args:
            outputs: What is known here, constants; empty for a peer that is elsewhere.
        """
        return list(outputs)


class _Here(Placement):
    """All peers in this process, wherever TensorFlow puts them."""


@keras.saving.register_keras_serializable(package="dml_tf")
class Cohort(keras.Model):
    """K peers that learn the same task from the same mini-batches and from each other.

    The loss of student k is, Eqs. (5), (6), (10) to (12),

        mean over labelled images of cross-entropy
        + mimicry_weight x mean over all images of reduction over peers l of D(p_l || p_k)
        + feature_weight x mean squared distance to the peers' features          (Table 5)
        - entropy_weight x mean posterior entropy                (confidence penalty, Table 5)
        + the network's own regularization losses,

    in which everything of a peer is a constant. Labels of -1 mark unlabelled images.

    Each peer's forward pass is recorded once, on its own tape, before any update; it serves as
    the peer's prediction for the others and, when its turn comes, for its own gradient. After its
    update a peer is run once more to refresh its prediction (Algorithm 1, lines 2 and 4), except
    the last, whose refreshed prediction nobody would use. That pass uses batch statistics and
    leaves BatchNorm's running averages alone; it repeats the dropout mask that the peer's next
    step will draw.

    Args:
        networks: Built or unbuilt Keras models. Each maps images to logits `(batch, classes)`, or
            to a dict with `logits` and, for re-identification and feature losses, `features`
            `(batch, dim)`.
        update: `sequential` (Algorithm 1) or `simultaneous` (all peers from the same predictions).
        mimicry: `kl` (Eq. 10), `js` (Eq. 7 as printed), `ensemble` (DML_e, Eq. 11), `none`, or a
            callable `(student_logits, peer_logits, labels, step) -> (batch,)` for one peer.
        peer_reduction: `mean` over the peers, the 1/(K-1) of Eq. (10), or `sum`, as in the
            authors' released code. An `ensemble` is one teacher: the reduction leaves it alone.
        ensemble_average: `probability` (Eq. 11) or `logit`; for the `ensemble` mimicry.
        mimicry_weight: Factor of the mimicry term; 1 in the paper.
        temperature: Divisor of all logits in the mimicry term, which is then multiplied by the
            temperature's square so that its gradient keeps its size. Not for a callable.
        feature_weight: Factor of the feature distance; 0 in the paper but for Table 5.
        entropy_weight: Factor of the confidence penalty.
        label_smoothing: Label mass spread evenly over the classes.
        frozen: Indices of fixed, pre-trained peers. They are run in inference mode and have no
            optimizer: `frozen=(0,)` with two networks is distillation.
        names: One name a peer, for metrics and predictions. Default: the networks' names,
            numbered where they repeat.
        placement: Where the peers are. Default: all in this process, on the default device. It is
            no part of what is saved.

    Raises:
        ValueError: For options out of range, or peers that share variables.

    Example:
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
        *,
        update: str = "sequential",
        mimicry: str | MimicryLoss = "kl",
        peer_reduction: str = "mean",
        ensemble_average: str = "probability",
        mimicry_weight: float = 1.0,
        temperature: float = 1.0,
        feature_weight: float = 0.0,
        entropy_weight: float = 0.0,
        label_smoothing: float = 0.0,
        frozen: Sequence[int] = (),
        names: Sequence[str] | None = None,
        placement: Placement | None = None,
        name: str = "cohort",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.networks = list(networks)
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
        self._placement = placement or _Here()
        self._check_options()
        self._check_networks()
        self.peer_names = tuple(names) if names is not None else _peer_names(self.networks)
        self._check_names()
        self.optimizers: list[keras.optimizers.Optimizer] = []
        self._trackers = {m.name: m for m in self._make_metrics()}
        self.built = all(net.built for net in self.networks)

    @property
    def students(self) -> tuple[int, ...]:
        """Indices of the peers that learn, in the order of their updates."""
        return tuple(k for k in range(len(self.networks)) if k not in self.frozen)

    @property
    def trained(self) -> tuple[int, ...]:
        """Indices of the students that this process trains, one for each of `optimizers`."""
        return tuple(k for k in self.students if not isinstance(self.networks[k], Remote))

    @property
    def refreshes(self) -> int:
        """Passes of a step that only renew a prediction; simultaneous updates have none."""
        return sum(map(self._must_refresh, self.students))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Accuracy, supervised and mimicry loss of each student; accuracy of the ensemble."""
        return list(self._trackers.values())

    # Keras's life cycle

    def build(self, input_shape):
        """Builds the networks that are not built yet.

        Args:
            input_shape: Shape of a batch of images, `(batch, ...)`.
        """
        for net in self.networks:
            if not net.built:
                net.build(input_shape)
        self._check_networks()
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Class posteriors, Eq. (1), of each peer and of the ensemble.

        Args:
            inputs: Images, shape `(batch, ...)`.
            training: Whether the peers run in training mode.

        Returns:
            Name -> probabilities, float32, `(batch, classes)`; `ensemble` is the peers' mean.
        """
        logits = [outputs["logits"] for outputs in self._all_outputs(inputs, training)]
        posteriors = {
            name: tf.exp(losses.log_posterior(z))
            for name, z in zip(self.peer_names, logits, strict=True)
        }
        return posteriors | {"ensemble": tf.exp(losses.ensemble_log_posterior(logits))}

    def compile(
        self,
        optimizers: str | keras.optimizers.Optimizer | Sequence = "rmsprop",
        *,
        jit_compile: bool | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
    ):
        """Gives each student its optimizer.

        Args:
            optimizers: One for each of `trained` (frozen peers have none), in the networks' order;
                or one, of which each gets a copy.
            jit_compile: Compile the step with XLA. Default: on a GPU only; XLA runs convolutions
                at half speed on a CPU.
            run_eagerly: Run the step without a `tf.function`, to debug it.
            steps_per_execution: Steps in one call of the `tf.function`.

        Raises:
            ValueError: If the number of optimizers is wrong or two students share one.
        """
        if jit_compile is None:
            jit_compile = bool(tf.config.list_logical_devices("GPU")) and not run_eagerly
        super().compile(
            optimizer=None,
            loss=None,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )
        chosen = self._one_optimizer_a_student(optimizers)
        for k, optimizer in zip(self.trained, chosen, strict=True):
            if self.networks[k].built:
                with self._placement.on(k):
                    optimizer.build(self.networks[k].trainable_variables)
        self.optimizers = chosen

    # The step

    def train_step(self, data) -> dict[str, tf.Tensor]:
        """One mini-batch of Algorithm 1, for every peer.

        Args:
            data: `(images, labels)` of shapes `(batch, ...)` and `(batch,)`.

        Returns:
            The metrics' values so far.
        """
        images, labels = _unpack(data)
        shares = _shares(labels)
        tapes = {k: tf.GradientTape() for k in self.trained}
        recorded = []
        for k in range(len(self.networks)):
            with tapes.get(k, contextlib.nullcontext()), self._placement.on(k):
                recorded.append(self._outputs(k, images, training=k in tapes))
        current = self._exchange(recorded)
        self._track_ensemble(current, labels)
        optimizers = dict(zip(self.trained, self.optimizers, strict=True))
        for k in self.students:
            own, peers = recorded[k] or current[k], current[:k] + current[k + 1 :]
            optimizer = optimizers.get(k, self.optimizers[0])
            with self._placement.on(k), tapes.get(k, contextlib.nullcontext()):
                loss = self._student_loss(k, own, peers, labels, optimizer.iterations, shares)
                loss = optimizer.scale_loss(loss)
            if k in tapes:
                with self._placement.on(k):
                    variables = self.networks[k].trainable_variables
                    optimizer.apply(tapes[k].gradient(loss, variables), variables)
            if self._must_refresh(k):
                # Batch statistics for the prediction; every state update is discarded.
                with keras.StatelessScope(), self._placement.on(k):
                    current[k] = self._outputs(k, images, training=True)
                current = self._exchange(current)
        return self.get_metrics_result()

    def test_step(self, data) -> dict[str, tf.Tensor]:
        """The metrics of one batch, in inference mode.

        Args:
            data: `(images, labels)` of shapes `(batch, ...)` and `(batch,)`.

        Returns:
            The metrics' values so far.
        """
        images, labels = _unpack(data)
        outputs = self._all_outputs(images, training=False)
        self._track_ensemble(outputs, labels)
        step = self.optimizers[0].iterations if self.optimizers else tf.constant(0, tf.int64)
        for k in self.students:
            with self._placement.on(k):
                self._student_loss(k, outputs[k], outputs[:k] + outputs[k + 1 :], labels, step)
        return self.get_metrics_result()

    def _student_loss(
        self,
        k: int,
        own: Outputs,
        peers: Sequence[Outputs],
        labels: tf.Tensor,
        step: tf.Tensor,
        shares: tuple = (1.0, 1.0),
    ) -> tf.Tensor:
        """Loss of student k on one batch, given its peers' outputs; updates its metrics.

        `shares` are as `_shares` gives them: the loss is this replica's part of the batch's.
        """
        log_q = losses.log_posterior(own["logits"])
        supervised = losses.supervised_loss(log_q, labels, self.label_smoothing)
        mimicry = tf.reduce_mean(
            self._mimicry_loss(own["logits"], [p["logits"] for p in peers], labels, step)
        )
        self._track(k, log_q, labels, supervised, mimicry)
        labelled_share, share = shares
        loss = labelled_share * supervised + share * self.mimicry_weight * mimicry
        if self.feature_weight and peers:
            distances = [losses.feature_distance(p["features"], own["features"]) for p in peers]
            loss += share * self.feature_weight * tf.reduce_mean(self._reduce(distances))
        if self.entropy_weight:
            loss -= share * self.entropy_weight * tf.reduce_mean(losses.entropy(log_q))
        return tf.add_n([loss, *(share * tf.cast(r, tf.float32) for r in self.networks[k].losses)])

    def _mimicry_loss(
        self,
        student: tf.Tensor,
        peers: Sequence[tf.Tensor],
        labels: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Tensor:
        """Mimicry term of each example, shape `(batch,)`, from logits `(batch, classes)`."""
        if not peers or self.mimicry == "none":
            return tf.zeros(tf.shape(student)[:1])
        if callable(self.mimicry):
            return self._reduce([self.mimicry(student, peer, labels, step) for peer in peers])
        temperature = self.temperature
        log_q = losses.log_posterior(student, temperature)
        if self.mimicry == "ensemble":
            log_p = losses.ensemble_log_posterior(peers, self.ensemble_average, temperature)
            divergence = losses.kl_divergence(log_p, log_q)
        else:
            pairwise = losses.kl_divergence if self.mimicry == "kl" else losses.js_divergence
            divergence = self._reduce(
                [pairwise(losses.log_posterior(peer, temperature), log_q) for peer in peers]
            )
        return temperature**2 * divergence

    def _reduce(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """Sums over peers, with the 1/(K-1) of Eq. (10) where the reduction is a mean."""
        total = tf.add_n([tf.cast(value, tf.float32) for value in values])
        return total / len(values) if self.peer_reduction == "mean" else total

    def _must_refresh(self, k: int) -> bool:
        """Whether a later student of this step learns from student k's updated prediction."""
        listens = self.mimicry != "none" or self.feature_weight
        return bool(self.update == "sequential" and listens and k != self.students[-1])

    def _outputs(self, k: int, images: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        """Logits, and features where there are any, of peer k."""
        outputs = self.networks[k](images, training=training)
        return dict(outputs) if isinstance(outputs, Mapping) else {"logits": outputs}

    def _all_outputs(self, images: tf.Tensor, training: bool) -> list[Outputs]:
        """What everybody may learn from, of all peers, wherever they are."""
        outputs = []
        for k in range(len(self.networks)):
            with self._placement.on(k):
                outputs.append(self._outputs(k, images, training))
        return self._exchange(outputs)

    def _exchange(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """The peers' outputs as constants, with those of peers elsewhere filled in."""
        heard = ("logits", "features") if self.feature_weight else ("logits",)
        return self._placement.exchange(
            [{name: tf.stop_gradient(o[name]) for name in heard if name in o} for o in outputs]
        )

    # Metrics

    def _make_metrics(self) -> list[keras.metrics.Metric]:
        metrics = []
        for k in self.students:
            with self._placement.on(k):
                metrics += [
                    keras.metrics.Mean(name=f"{self.peer_names[k]}_{quantity}")
                    for quantity in ("accuracy", "supervised_loss", "mimicry_loss")
                ]
        if len(self.networks) > 1:
            metrics.append(keras.metrics.Mean(name="ensemble_accuracy"))
        return metrics

    def _track(self, k, log_q, labels, supervised, mimicry):
        peer, labelled = self.peer_names[k], tf.cast(labels >= 0, tf.float32)
        self._trackers[f"{peer}_accuracy"].update_state(_correct(log_q, labels), labelled)
        self._trackers[f"{peer}_supervised_loss"].update_state(supervised, tf.reduce_sum(labelled))
        self._trackers[f"{peer}_mimicry_loss"].update_state(
            mimicry, tf.cast(tf.shape(labels)[0], tf.float32)
        )

    def _track_ensemble(self, outputs: Sequence[Outputs], labels: tf.Tensor):
        if tracker := self._trackers.get("ensemble_accuracy"):
            log_p = losses.ensemble_log_posterior([o["logits"] for o in outputs])
            tracker.update_state(_correct(log_p, labels), tf.cast(labels >= 0, tf.float32))

    # Saving

    def get_config(self) -> dict:
        """Options and peers, for `keras.saving`."""
        serialize = keras.saving.serialize_keras_object
        options = (
            "update peer_reduction ensemble_average mimicry_weight temperature "
            "feature_weight entropy_weight label_smoothing frozen"
        ).split()
        return {
            **super().get_config(),
            **{option: getattr(self, option) for option in options},
            "networks": [serialize(net) for net in self.networks],
            "mimicry": serialize(self.mimicry),
            "names": list(self.peer_names),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "Cohort":
        """Makes a cohort from `get_config`'s result.

        Args:
            config: What `get_config` returned.
            custom_objects: Names of classes and functions that Keras does not know.

        Returns:
            A cohort with new weights.
        """
        read = keras.saving.deserialize_keras_object
        networks = [read(net, custom_objects=custom_objects) for net in config["networks"]]
        mimicry = config["mimicry"]
        if not isinstance(mimicry, str):
            mimicry = read(mimicry, custom_objects=custom_objects)
        return cls(**{**config, "networks": networks, "mimicry": mimicry})

    def get_compile_config(self) -> dict:
        """Optimizers and options of `compile`, for `keras.saving`."""
        if not self.compiled:
            return {}
        return {
            "optimizers": [keras.saving.serialize_keras_object(o) for o in self.optimizers],
            "jit_compile": self.jit_compile,
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
        }

    def compile_from_config(self, config: dict):
        """Compiles with what `get_compile_config` returned.

        Args:
            config: What `get_compile_config` returned.
        """
        if config:
            read = keras.saving.deserialize_keras_object
            self.compile(**{**config, "optimizers": [read(o) for o in config["optimizers"]]})

    def save_own_variables(self, store):
        """Writes the states of the networks' seed generators, which Keras leaves out.

        Args:
            store: Mapping from names to arrays.
        """
        for i, state in enumerate(self._random_states()):
            store[str(i)] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        """Reads the states of the networks' seed generators.

        Args:
            store: Mapping from names to arrays.
        """
        for i, state in enumerate(self._random_states()):
            state.assign(store[str(i)])

    def _random_states(self) -> list:
        """State variables that are no weights: those of dropout and other random layers."""
        states = []
        for net in self.networks:
            weights = {id(v) for v in net.weights}
            states += [v for v in net.variables if id(v) not in weights]
        return states

    # Checks

    def _check_options(self):
        for option, value, accepted in (
            ("update", self.update, UPDATES),
            ("peer_reduction", self.peer_reduction, PEER_REDUCTIONS),
            ("ensemble_average", self.ensemble_average, ENSEMBLE_AVERAGES),
        ):
            if value not in accepted:
                raise ValueError(f"{option} must be one of {', '.join(accepted)}; got {value!r}.")
        if not callable(self.mimicry) and self.mimicry not in MIMICRIES:
            raise ValueError(
                f"mimicry must be one of {', '.join(MIMICRIES)}, or a callable; "
                f"got {self.mimicry!r}."
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0; got {self.temperature!r}.")

    def _check_networks(self):
        if not self.networks:
            raise ValueError("A cohort needs at least one network; networks is empty.")
        count = len(self.networks)
        if len(set(self.frozen)) != len(self.frozen) or not set(self.frozen) < set(range(count)):
            raise ValueError(
                f"frozen must hold different peer indices from 0 to {count - 1} and leave at least "
                f"one peer to learn; got {self.frozen!r}."
            )
        owner: dict[int, int] = {}
        for k, net in enumerate(self.networks):
            for variable in net.weights:
                other = owner.setdefault(id(variable), k)
                if other != k:
                    raise ValueError(
                        f"Peers {other} and {k} share the variable {variable.path!r}. Peers must "
                        "be separate networks: build each one anew, or use "
                        "keras.models.clone_model."
                    )
        if len({id(net) for net in self.networks}) != count:
            raise ValueError("The same network is given for two peers: build each one anew.")

    def _check_names(self):
        names = self.peer_names
        if len(names) != len(self.networks) or len(set(names)) != len(names):
            raise ValueError(
                f"names must give each of the {len(self.networks)} peers a different name; "
                f"got {names!r}."
            )
        if "ensemble" in names:
            raise ValueError("'ensemble' names the cohort's mean prediction; rename that peer.")

    def _one_optimizer_a_student(self, optimizers) -> list[keras.optimizers.Optimizer]:
        if isinstance(optimizers, (list, tuple)):
            chosen = [keras.optimizers.get(o) for o in optimizers]
        else:
            config = keras.optimizers.serialize(keras.optimizers.get(optimizers))
            chosen = [keras.optimizers.deserialize(config) for _ in self.trained]
        if len(chosen) != len(self.trained):
            raise ValueError(
                f"compile() got {len(chosen)} optimizers for {len(self.trained)} students; give "
                "one for each peer that is not frozen, or a single one to be copied for each."
            )
        if len({id(o) for o in chosen}) != len(chosen):
            raise ValueError(
                "Two peers share an optimizer instance, and with it its momenta. Give each its "
                "own, or pass a single optimizer to be copied for each."
            )
        return [
            keras.optimizers.LossScaleOptimizer(o)
            if self.networks[k].dtype_policy.name == "mixed_float16"
            and not isinstance(o, keras.optimizers.LossScaleOptimizer)
            else o
            for k, o in zip(self.trained, chosen, strict=True)
        ]


def _peer_names(networks: Sequence[keras.Model]) -> tuple[str, ...]:
    """Each network's own name, numbered where several have the same."""
    repeated = {name for name, n in Counter(net.name for net in networks).items() if n > 1}
    seen: Counter = Counter()
    names = []
    for net in networks:
        names.append(f"{net.name}_{seen[net.name]}" if net.name in repeated else net.name)
        seen[net.name] += 1
    return tuple(names)


def _shares(labels: tf.Tensor) -> tuple:
    """This replica's part of the labelled images, and of all images, of a mirrored batch.

    The parts of the replicas' losses add up to the whole batch's loss: each mean here times its
    share, summed over the replicas, is the mean over the batch. 1 where nothing is mirrored.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return 1.0, 1.0
    labelled = tf.reduce_sum(tf.cast(labels >= 0, tf.float32))
    counts = tf.stack([labelled, tf.cast(tf.size(labels), tf.float32)])
    totals = replica.all_reduce(tf.distribute.ReduceOp.SUM, counts)
    return tuple(tf.unstack(counts / tf.maximum(totals, 1.0)))


def _unpack(data) -> tuple[tf.Tensor, tf.Tensor]:
    """Images and integer labels of a batch; labels come out with shape `(batch,)`."""
    images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None:
        raise ValueError("A cohort needs labels: pass y, with -1 for unlabelled images.")
    if sample_weight is not None:
        raise ValueError("A cohort does not take sample_weight or class_weight.")
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, axis=1)
    if labels.shape.rank not in (None, 1):
        raise ValueError(
            f"Labels must be class indices of shape (batch,); got shape {tuple(labels.shape)}. "
            "For one-hot labels pass y.argmax(axis=-1)."
        )
    return images, tf.cast(labels, tf.int64)


def _correct(log_p: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """1 where the most probable class is the label, shape `(batch,)`."""
    return tf.cast(tf.equal(tf.argmax(log_p, axis=-1), labels), tf.float32)
