"""What a cohort reports: its own metrics of each peer, the user's, and `loss`."""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from dml_tf.method import losses, ramp

_BUILT_IN = ("accuracy", "acc")  # as strings in `compile(metrics=...)`: always there
_QUANTITIES = ("accuracy", "supervised_loss", "mimicry_loss")


class Measuring:
    """The part of a `Cohort` that Keras calls for metrics, and that counts its batches."""

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Accuracy, supervised and mimicry loss of each student, then what `compile` got."""
        return [*self._trackers.values(), *self._user_metrics.all]

    @property
    def metrics_names(self) -> list[str]:
        """Names of the values in the list that `evaluate` returns."""
        return [*(metric.name for metric in self.metrics), "loss"]

    def reset_metrics(self):
        """Sets all metrics to their start."""
        self._reset_own()
        for metric in self._user_metrics.all:
            metric.reset_state()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """All metrics by name, and `loss`: the students' mean of supervised + mimicry loss."""
        weight = tf.cast(ramp.at(self.mimicry_weight, self._steps()), tf.float32)
        results = self._read_own(weight) if tf.executing_eagerly() else self._own(weight)
        loss = results.pop("loss")
        for metric in self._user_metrics.all:
            value = metric.result()
            results |= value if isinstance(value, dict) else {metric.name: value}
        return results | {"loss": loss}

    def _start_metrics(self):
        """Makes the cohort's own metrics.

        They are reset and read after each epoch. One by one, as Keras does it, that takes as long
        as a small step.
        """
        self._trackers = {metric.name: metric for metric in self._make_metrics()}
        self._reset_own = InOneCall(self._reset_trackers)
        self._read_own = InOneCall(self._own, tf.TensorSpec([], tf.float32))

    def _reset_trackers(self):
        for tracker in self._trackers.values():
            tracker.reset_state()

    def _own(self, mimicry_weight: tf.Tensor) -> dict[str, tf.Tensor]:
        """The cohort's own metrics, and `loss`."""
        results = {name: tracker.result() for name, tracker in self._trackers.items()}
        students = [self.peer_names[k] for k in self.students]
        return results | {"loss": _mean_loss(results, students, mimicry_weight)}

    def _make_metrics(self) -> list[keras.metrics.Metric]:
        made = []
        for k in self.students:
            with self.peers[k].on():
                names = [f"{self.peer_names[k]}_{quantity}" for quantity in _QUANTITIES]
                made += map(keras.metrics.Mean, names)
        if len(self.networks) > 1:
            made.append(keras.metrics.Mean(name="ensemble_accuracy"))
        return made

    def _track(self, k, log_q, labels, weights, supervised, mimicry):
        peer, labelled = self.peer_names[k], tf.cast(losses.is_labelled(labels), tf.float32)
        images = tf.cast(tf.shape(labels)[0], tf.float32)
        self._trackers[f"{peer}_accuracy"].update_state(correct(log_q, labels), labelled)
        self._trackers[f"{peer}_supervised_loss"].update_state(supervised, tf.reduce_sum(labelled))
        self._trackers[f"{peer}_mimicry_loss"].update_state(mimicry, images)
        self._user_metrics.update(peer, log_q, labels, weights)

    def _track_ensemble(self, outputs: Sequence[Mapping], labels: tf.Tensor, weights=None):
        if tracker := self._trackers.get("ensemble_accuracy"):
            log_p = losses.ensemble_log_posterior([o["logits"] for o in outputs])
            labelled = tf.cast(losses.is_labelled(labels), tf.float32)
            tracker.update_state(correct(log_p, labels), labelled)
            self._user_metrics.update("ensemble", log_p, labels, weights)


class InOneCall:
    """A function of tensors and variables as one call of TensorFlow, traced when it is first used.

    A `tf.function` would warn of retracing in a process that makes many cohorts.

    Args:
        call: The function.
        signature: Of its arguments.
    """

    def __init__(self, call: Callable, *signature: tf.TensorSpec):
        self._call, self._signature, self._traced = call, signature, None

    def __call__(self, *arguments: tf.Tensor):
        """The function's result."""
        if self._traced is None:
            function = tf.function(self._call, autograph=False)
            self._traced = function.get_concrete_function(*self._signature)
        return self._traced(*arguments)


def _mean_loss(results: Mapping, peers: Sequence[str], mimicry_weight: tf.Tensor):
    """Mean over the students of supervised loss + weight x mimicry loss: `loss` in the logs."""
    each = [
        results[f"{peer}_supervised_loss"] + mimicry_weight * results[f"{peer}_mimicry_loss"]
        for peer in peers
    ]
    return sum(each) / len(each)


class UserMetrics:
    """The metrics given to `compile`, made anew for each peer and the ensemble.

    Args:
        names: Of the students, and `ensemble` where there is one.
        metrics: As of Keras's `compile`.
        weighted: Those that also count each image with its weight.
        taken: Names of the cohort's own metrics.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        metrics: Sequence = (),
        weighted: Sequence = (),
        taken: Sequence[str] = (),
    ):
        self._given = {"metrics": metrics or (), "weighted_metrics": weighted or ()}
        self._plain, self._weighted = (
            {name: _made(given, name) for name in names} for given in self._given.values()
        )
        seen = set(taken)
        for metric in self.all:
            if metric.name in seen:
                raise ValueError(
                    f"There is a metric {metric.name!r} already: give the metric another name, or "
                    "leave it out."
                )
            seen.add(metric.name)

    @property
    def all(self) -> list[keras.metrics.Metric]:
        """All metrics, in a fixed order."""
        return [m for part in (self._plain, self._weighted) for own in part.values() for m in own]

    def get_config(self) -> dict[str, list]:
        """The arguments of `compile` that the metrics were made from."""
        write = keras.saving.serialize_keras_object
        return {option: [write(m) for m in given] for option, given in self._given.items()}

    def update(self, name: str, log_p: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None):
        """Counts a batch; images without a label have the weight 0."""
        plain, weighted = self._plain.get(name, ()), self._weighted.get(name, ())
        if not plain and not weighted:
            return
        posterior, labelled = tf.exp(log_p), tf.cast(losses.is_labelled(labels), tf.float32)
        known = tf.maximum(labels, tf.zeros_like(labels))
        for metric in plain:
            metric.update_state(known, posterior, sample_weight=labelled)
        for metric in weighted:
            counted = labelled if weights is None else labelled * weights
            metric.update_state(known, posterior, sample_weight=counted)


def _made(metrics: Sequence, peer: str) -> list[keras.metrics.Metric]:
    return [_copy(metric, peer) for metric in metrics if metric not in _BUILT_IN]


def _copy(metric, peer: str) -> keras.metrics.Metric:
    """A new metric of the same kind, named after its peer."""
    metric = metric() if isinstance(metric, type) else keras.metrics.get(metric)
    if not isinstance(metric, keras.metrics.Metric):
        return keras.metrics.MeanMetricWrapper(metric, name=f"{peer}_{metric.__name__}")
    return type(metric).from_config({**metric.get_config(), "name": f"{peer}_{metric.name}"})


def guess_modes(callbacks, metrics: Sequence[keras.metrics.Metric]):
    """Tells callbacks that watch a metric whether higher is better; Keras knows its own only.

    Args:
        callbacks: As Keras's `fit` takes them: one, a list, also nested, or a `CallbackList`.
        metrics: The cohort's metrics.
    """
    made = {metric.name: metric for metric in metrics}
    for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
        watched = getattr(callback, "monitor", None)
        if not isinstance(watched, str) or getattr(callback, "mode", None) != "auto":
            continue
        name = watched.removeprefix("val_")
        if name.endswith(("_accuracy", "_acc")):
            callback.mode = "max"
        elif name.endswith("_loss"):
            callback.mode = "min"
        elif direction := getattr(made.get(name), "_direction", None):
            callback.mode = "max" if direction == "up" else "min"


def correct(log_p: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """1 where the most probable class is the label, shape `(batch,)`."""
    classes = tf.argmax(labels, axis=-1) if len(labels.shape) == 2 else labels
    return tf.cast(tf.equal(tf.argmax(log_p, axis=-1), classes), tf.float32)
