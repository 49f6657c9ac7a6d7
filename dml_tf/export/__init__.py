"""The training step on a machine without TensorFlow: `python -m dml_tf.export`."""

TESTED_JAX = "jax==0.10.2"  # what requirements-pjrt.txt asks for
TRIED_JAX = "0.9.2, 0.10.2 and 0.11.2"  # 0.11 needs Python 3.12
