"""The version, apart so that packaging reads it without importing TensorFlow."""

__version__ = "0.3.0"
