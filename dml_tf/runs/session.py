"""What the runs of one process share, and what they leave in its memory.

Tracing the step takes a third of a run on digits. A run of the same shape as the one before takes
over its cohort, traced, and gives it a state of its own.
"""

import dataclasses
import json
from collections.abc import Callable

import keras
from tensorflow.python.framework import ops

from dml_tf import networks
from dml_tf.data import Splits
from dml_tf.method.cohort import Cohort
from dml_tf.runs.checkpoint import variables
from dml_tf.runs.config import Config

_last: tuple[str, Cohort] | None = None  # shape and cohort of the last run


def clear(last: bool = False):
    """Frees the graphs of finished runs; those of the last cohort only if that is asked for.

    No function that was traced before may be differentiated afterwards.
    """
    global _last
    if last:
        _last = None
    # A Keras optimizer sums gradients over replicas by a `tf.custom_gradient`. TensorFlow registers
    # one for each graph and keeps it, with the graph, for ever: 5 MB a small run. No public
    # function takes it out.
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    keras.backend.clear_session()


def cohort_of(new: Callable[[], Cohort], config: Config, splits: Splits, precision: str) -> Cohort:
    """The cohort of a run that starts; one that is traced, if the run before was alike.

    Args:
        new: Makes a compiled cohort, in this process, with the run's initial weights.
        config: The run's settings.
        splits: Its data.
        precision: Of its networks.
    """
    global _last
    shape = _shape(config, splits, precision)
    before, _last = _last, None
    if before and before[0] != shape:
        before = None  # so that its memory is free before the next one is made
    cohort = new()
    if before:
        cohort = _with_state(before[1], cohort)
    if shape:
        _last = shape, cohort
    return cohort


def _shape(config: Config, splits: Splits, precision: str) -> str:
    """What decides a run's graphs: all but the seed. Empty if the seed is in them, too."""
    outside = any(networks.is_outside(name) for name in config.net)  # unknown layers
    if config.dropout or config.optimizer == "entropy_sgd" or outside:
        return ""
    settings = dataclasses.asdict(config.replace(seed=0, analyse=False))
    sizes = splits.train.images.shape, splits.num_classes
    return json.dumps([settings, sizes, precision], sort_keys=True)


def _with_state(traced: Cohort, new: Cohort) -> Cohort:
    """The traced cohort with the variables, and the seeds of the initializers, of a new one."""
    for own, value in zip(variables(traced), variables(new), strict=True):
        own.assign(value)
    for ours, others in zip(traced.networks, new.networks, strict=True):
        for own, layer in zip(ours.layers, others.layers, strict=True):
            for name, value in vars(layer).items():
                if isinstance(value, keras.Initializer):
                    setattr(own, name, value)
    return traced
