"""The method: a cohort, its losses and its optimizers."""

# Before any module of this room: `dml_tf.after_keras` then imports them in their own order.
import keras  # noqa: F401
