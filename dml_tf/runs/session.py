"""What the runs of one process share, and what they leave in its memory.

Tracing the step takes a third of a run on digits. A run of the same shape as the one before takes
over its cohort, traced, and gives it the initial weights of its own seed.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf
from tensorflow.python.framework import ops

from dml_tf import networks
from dml_tf.data import Splits
from dml_tf.method.cohort import Cohort
from dml_tf.networks.layers import draw_again
from dml_tf.runs import build
from dml_tf.runs.checkpoint import variables
from dml_tf.runs.config import Config

_MOST_PARAMETERS = 2_000_000  # of a cohort; larger ones train so long that tracing is little


@dataclasses.dataclass
class _Traced:
    """The cohort of a run, to be used again.

    Attributes:
        shape: What decides its graphs.
        config: The settings of the run that it was last used for.
        cohort: The cohort.
        start: Its variables before the first step.
    """

    shape: str
    config: Config
    cohort: Cohort
    start: Sequence[tf.Tensor]

    def restart(self, config: Config):
        """Gives it the state in which a run of other seeds begins."""
        for variable, value in zip(variables(self.cohort), self.start, strict=True):
            variable.assign(value)
        self.cohort.steps_per_execution = max(config.steps_per_execution, 1)
        for k, network in enumerate(self.cohort.networks):
            draw_again(network, *(build.peer_seed(run, k) for run in (self.config, config)))
        self.config = config


_last: _Traced | None = None


@contextlib.contextmanager
def one_of_several(config: Config) -> Iterator[None]:
    """Context of a run that may take over the cohort of the run before, and leave its own.

    Nothing is freed between two such runs: what TensorFlow and Keras keep beside the cohort would
    have to be made anew.
    """
    if _last and _without_seed(_last.config) != _without_seed(config):
        clear()
    try:
        yield
    finally:
        if not _last:
            clear()


def clear():
    """Frees the graphs of finished runs. They cannot be differentiated afterwards."""
    global _last
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
    kept, _last = _last, None  # should it fail to restart, the next run makes its own
    if kept and shape and kept.shape == shape:
        kept.restart(config)
        _last = kept
        return kept.cohort
    del kept  # so that its memory is free before the next one is made
    cohort = new()
    if shape and cohort.count_params() < _MOST_PARAMETERS:
        start = [tf.identity(variable.value) for variable in variables(cohort)]
        _last = _Traced(shape, config, cohort, start)
    return cohort


def _shape(config: Config, splits: Splits, precision: str) -> str:
    """What decides a run's graphs: all but the seed.

    Empty if the seed is in them, too, or decides more of the state than is drawn again.
    """
    others = any(networks.is_outside(name) for name in config.net)  # unknown layers
    weights_of_files = config.teachers or config.pretrained
    if config.dropout or config.optimizer == "entropy_sgd" or others or weights_of_files:
        return ""
    sizes = splits.train.images.shape, splits.num_classes
    return json.dumps([_without_seed(config), sizes, precision], sort_keys=True)


def _without_seed(config: Config) -> dict:
    return dataclasses.asdict(config.replace(seed=0, analyse=False))
