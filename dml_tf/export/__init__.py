"""The training step on a machine without TensorFlow: `python -m dml_tf.export`."""
