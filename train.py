"""`python train.py` is `dml_tf train`, for a clone in which the package is not installed."""

import sys

from dml_tf.tools import train

if __name__ == "__main__":
    sys.exit(train.main(sys.argv[1:], "train.py"))
