"""Deep Mutual Learning (Zhang et al., CVPR 2018) in TensorFlow and Keras 3."""

import importlib

from dml_tf.version import __version__

# Public name -> module; imported on first use, so that what needs no TensorFlow does not wait
# for it.
_PUBLIC = {
    "Cohort": "dml_tf.cohort",
    "Config": "dml_tf.config",
    "data": None,
    "evaluate": None,
    "experiments": None,
    "losses": None,
    "networks": None,
    "optimizers": None,
    "train": None,
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dml_tf' has no attribute {name!r}")
    module = importlib.import_module(_PUBLIC[name] or f"dml_tf.{name}")
    return getattr(module, name) if _PUBLIC[name] else module


def __dir__() -> list[str]:
    return sorted(__all__)
