"""Importing TensorFlow without the lines that its C++ code prints."""

import contextlib
import gc
import os
from collections.abc import Iterator

_WANTED = "TF_CPP_MIN_LOG_LEVEL" in os.environ


def import_tensorflow(threads: int = 0):
    """Imports TensorFlow quietly, unless `TF_CPP_MIN_LOG_LEVEL` is set in the environment.

    The modules' objects are taken out of the garbage collector's sight: there are so many that a
    collection takes a third of a second, several times in a run.

    On a GPU TensorFlow takes memory as it needs it, so that several runs can share the GPU, unless
    `TF_FORCE_GPU_ALLOW_GROWTH` is set to another value.

    Args:
        threads: TensorFlow's threads, within an operation and between operations; 0 for its
            default.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with quiet():
        import tensorflow as tf  # which imports Keras

        gc.freeze()
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        if "TF_CONFIG" not in os.environ:  # else the cluster's server must be first
            tf.config.list_logical_devices()


def quiet() -> contextlib.AbstractContextManager[None]:
    """Context in which TensorFlow's C++ code prints nothing, unless it is wanted."""
    return contextlib.nullcontext() if _WANTED else _silence()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Sends file descriptor 2 to the null device; C++ code does not use Python's sys.stderr."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
