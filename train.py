"""`python train.py` is `dml_tf train`, for a clone in which the package is not installed."""

import sys
from functools import partial

from dml_tf.tools import train

main = partial(train.main, program="train.py")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
