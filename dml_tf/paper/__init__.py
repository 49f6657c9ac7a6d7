"""The paper's tables and figures: declared, planned, trained, written. Needs no TensorFlow."""
