"""What runs leave in the memory of a process that trains many of them."""

import keras
from tensorflow.python.framework import ops


def clear():
    """Frees the graphs of finished runs.

    No function that was traced before may be differentiated afterwards.
    """
    # A Keras optimizer sums gradients over replicas by a `tf.custom_gradient`. TensorFlow registers
    # one for each graph and keeps it, with the graph, for ever: 5 MB a small run. No public
    # function takes it out.
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    keras.backend.clear_session()
