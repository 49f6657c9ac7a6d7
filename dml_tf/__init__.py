"""Deep Mutual Learning (Zhang et al., CVPR 2018) in TensorFlow and Keras 3."""

import importlib

from dml_tf.version import __version__

# Public name -> where it is; imported on first use, because TensorFlow takes seconds to import.
_PUBLIC = {
    "Cohort": "dml_tf.method.cohort",
    "Config": "dml_tf.runs.config",
    "JS": "dml_tf.method.mimicry",
    "KL": "dml_tf.method.mimicry",
    "data": "dml_tf",
    "losses": "dml_tf.method",
    "networks": "dml_tf",
    "optimizers": "dml_tf.method",
    "reid": "dml_tf",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dml_tf' has no attribute {name!r}")
    home = importlib.import_module(_PUBLIC[name])
    try:
        return importlib.import_module(f"{home.__name__}.{name}")
    except ModuleNotFoundError:
        return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
