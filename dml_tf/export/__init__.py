"""The training step on a machine without TensorFlow."""
