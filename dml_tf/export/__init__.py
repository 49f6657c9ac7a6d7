"""The training step on a machine without TensorFlow: `python -m dml_tf.export`."""

TESTED_JAX = "jax==0.10.2"  # what requirements-pjrt.txt asks for
