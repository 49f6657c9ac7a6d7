"""`python -m dml_tf` is the command `dml_tf`."""

import sys

from dml_tf.tools import commands

if __name__ == "__main__":
    sys.exit(commands.main(sys.argv[1:]))
