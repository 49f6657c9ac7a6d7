"""Data sets that are drawn, in place of those that cannot be downloaded.

`python -m dml_tf.data.generated DATASET FOLDER` writes one that consists of files; shapes100 is
drawn in memory. They show that the machinery works and are no evidence about photographs.
"""
