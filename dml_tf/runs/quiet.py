"""Starting TensorFlow as a command-line program wants it."""

import contextlib
import os
from collections.abc import Iterator

_WANTED = "TF_CPP_MIN_LOG_LEVEL" in os.environ


def import_tensorflow(threads: int = 0):
    """Imports TensorFlow without the lines that its C++ code prints on every start.

    Setting the environment variable `TF_CPP_MIN_LOG_LEVEL` brings them back.

    Args:
        threads: Threads for one operation and for operations side by side; 0 leaves the choice to
            TensorFlow.
    """
    with quiet():
        import tensorflow as tf

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        if "TF_CONFIG" not in os.environ:  # else the cluster's server must be first
            tf.config.list_logical_devices()


def quiet() -> contextlib.AbstractContextManager[None]:
    """Context without what TensorFlow's C++ code prints, unless it is wanted."""
    return contextlib.nullcontext() if _WANTED else _silence()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Sends file descriptor 2 nowhere: the lines come from below Python's sys.stderr."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
