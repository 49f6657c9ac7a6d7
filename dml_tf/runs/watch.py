"""Watches the steps of a rehearsal: their times, their updates, and what no run survives."""

import math
import statistics
import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from dml_tf.errors import RunFailed
from dml_tf.method.cohort import Cohort
from dml_tf.method.entropy_sgd import EntropySGD

_SETTLED = 1000  # steps after which an optimizer's running averages no longer show their start


class Recorder:
    """Stands between a peer and its optimizer, and keeps the last gradients.

    Once `settled`, it puts their squares into the optimizer's means of squared gradients, or the
    squares of the step before where those are larger: momentum holds that step's gradients, too.
    The means thus are as after many steps with gradients of this size.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]):
        self.optimizer = optimizer
        self.gradients = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables]
        self.settled = tf.Variable(False, trainable=False)
        self.mean_squares = getattr(optimizer, "_velocities", [])  # Keras's, of Adam and RMSprop

    def forget_momentum(self):
        """Drops the momentum, which is of steps with another learning rate."""
        for variable in self.optimizer.variables:
            if "momentum" in variable.path:
                variable.assign(tf.zeros_like(variable))

    def __getattr__(self, name: str):
        """All else is the optimizer's."""
        return getattr(self.optimizer, name)

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]):
        """Keeps the gradients, and lets the optimizer move the variables."""
        for mean, kept, gradient in zip(self.mean_squares, self.gradients, gradients, strict=False):
            largest = tf.maximum(tf.square(kept), tf.square(gradient))
            mean.assign(tf.where(self.settled, largest, mean))
        for kept, gradient in zip(self.gradients, gradients, strict=True):
            kept.assign(gradient)
        self.optimizer.apply(gradients, variables)


class Watch(keras.callbacks.Callback):
    """Times the steps of a cohort, and refuses those that no run survives.

    Args:
        cohort: A compiled cohort that has made no step.
        steps: Steps of the whole run.

    Attributes:
        places: Place -> its `step`, `learning_rate`, the largest `update` of a kernel relative to
            the kernel, and the name of that `kernel`.
    """

    def __init__(self, cohort: Cohort, steps: int):
        super().__init__()
        self._cohort, self._steps = cohort, steps
        self._recorders = {}
        for k in cohort.trained:
            peer = cohort.peers[k]
            recorder = Recorder(peer.optimizer, peer.network.trainable_variables)
            self._recorders[cohort.peer_names[k]] = peer.optimizer = recorder
        self._kernels = {
            (cohort.peer_names[k], variable.path): variable
            for k in cohort.trained
            for variable in cohort.networks[k].trainable_variables
            if len(variable.shape) > 1
        }
        self._times: list[float] = []
        self.places: dict[str, dict] = {}

    @property
    def step_s(self) -> float:
        """Median seconds of a step. The first step does not count: it also traces the graph."""
        return statistics.median(self._times[1:] or self._times)

    def move_to(self, place: str, step: int, count: int):
        """Sets the counters for `count` steps from `step` on."""
        self._place = self.places[place] = {"step": step, "update": 0.0, "kernel": ""}
        self._count_from(step)
        for recorder in self._recorders.values():
            recorder.forget_momentum()
            recorder.settled.assign(step > 0)
        optimizer = self._cohort.optimizers[0]
        self._place["learning_rate"] = float(optimizer.learning_rate)
        if isinstance(optimizer, EntropySGD):
            self._check_scope(optimizer, step + count - 1)

    def on_train_batch_begin(self, batch, logs=None):
        """Keeps the kernels, and starts the clock."""
        self._before = {name: kernel.numpy() for name, kernel in self._kernels.items()}
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stops the clock, and checks losses, gradients and updates."""
        self._times.append(time.perf_counter() - self._started)
        step = int(self._cohort.optimizers[0].iterations.numpy()) - 1
        for name, value in logs.items():
            if name.endswith("_loss") and not np.isfinite(value):
                raise RunFailed(f"{name} is {value} at step {step:,} of {self._steps:,}.")
        self._check_gradients(step)
        self._check_updates(step)
        has_means = any(recorder.mean_squares for recorder in self._recorders.values())
        if step == 0 and has_means:
            # From here on as in the first thousand steps, when the rate is still the initial one.
            self._count_from(min(_SETTLED, self._steps // 2))
            for recorder in self._recorders.values():
                recorder.settled.assign(True)

    def check_weights(self):
        """Raises `RunFailed` if a weight or an average of BatchNorm is not finite."""
        for name, network in zip(self._cohort.peer_names, self._cohort.networks, strict=True):
            for variable in network.variables:
                if not np.isfinite(variable.numpy()).all():
                    raise RunFailed(
                        f"{variable.path} of peer {name} is not finite after step "
                        f"{self._place['step']:,} of {self._steps:,}."
                    )

    def _count_from(self, step: int):
        for optimizer in self._cohort.optimizers:
            optimizer.iterations.assign(step)

    def _check_scope(self, optimizer: EntropySGD, step: int):
        scope = float(optimizer.scope_at(step))
        if (product := optimizer.langevin_rate * scope) >= 1:
            raise RunFailed(
                f"Entropy-SGD's Langevin rate {optimizer.langevin_rate:g} times its scope "
                f"{scope:.3g} is {product:.3g} at step {step:,} of {self._steps:,}. From 1 on the "
                "samples overshoot the weights, from 2 on they diverge: bound the scope."
            )

    def _check_gradients(self, step: int):
        for name, recorder in self._recorders.items():
            for gradient in recorder.gradients:
                if not np.isfinite(gradient.numpy()).all():
                    raise RunFailed(
                        f"A gradient of peer {name} is not finite at step {step:,} of "
                        f"{self._steps:,}."
                    )

    def _check_updates(self, step: int):
        updates = {
            f"{peer}: {path}": _relative(kernel.numpy(), self._before[peer, path])
            for (peer, path), kernel in self._kernels.items()
        }
        kernel = max(updates, key=updates.get)
        update = updates[kernel]
        if update > 1:
            raise RunFailed(
                f"The update of {kernel} has {update:.3g} times the kernel's own norm at step "
                f"{step:,} of {self._steps:,}, at a learning rate of "
                f"{self._place['learning_rate']:g}: nothing can be learnt. Lower --learning_rate, "
                "or, with rmsprop, raise --epsilon."
            )
        if update > self._place["update"]:
            self._place |= {"update": update, "kernel": kernel}


def _relative(after: np.ndarray, before: np.ndarray) -> float:
    """Norm of a kernel's change, relative to the kernel; infinite if it is not a number.

    A kernel counts with the norm that Glorot's rule gives, if its own is smaller: classifiers are
    small at first on purpose (Goyal et al. 2017), and grow in the first steps.
    """
    *field, channels, filters = before.shape
    glorot = math.sqrt(before.size * 2 / (math.prod(field) * (channels + filters)))
    change = float(np.linalg.norm(after - before) / max(np.linalg.norm(before), glorot))
    return change if np.isfinite(change) else np.inf
