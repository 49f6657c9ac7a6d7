"""Deep Mutual Learning (Zhang et al., CVPR 2018) in TensorFlow and Keras 3."""

import importlib

from dml_tf import after_keras
from dml_tf.version import __version__

# Public name -> its module, and its name in it; None for the module itself. Each is imported on
# first use, because TensorFlow takes seconds to import.
_PUBLIC = {
    "Cohort": ("dml_tf.method.cohort", "Cohort"),
    "Config": ("dml_tf.runs.config", "Config"),
    "DIST": ("dml_tf.method.divergences", "DIST"),
    "DKD": ("dml_tf.method.divergences", "DKD"),
    "JS": ("dml_tf.method.mimicry", "JS"),
    "KL": ("dml_tf.method.mimicry", "KL"),
    "Mimicry": ("dml_tf.method.mimicry", "Mimicry"),
    "Ramp": ("dml_tf.method.ramp", "Ramp"),
    "data": ("dml_tf.data", None),
    "losses": ("dml_tf.method.losses", None),
    "networks": ("dml_tf.networks", None),
    "optimizers": ("dml_tf.method.optimizers", None),
    "reid": ("dml_tf.reid", None),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dml_tf' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted(__all__)


after_keras.register()
