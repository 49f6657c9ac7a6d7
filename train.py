"""Trains one cohort: `python train.py --dataset=digits --net=resnet8 --cohort=2`."""

import sys
import warnings
from functools import partial

from dml_tf.errors import exit_status
from dml_tf.runs import flags, quiet
from dml_tf.runs.files import RunFiles


def main(argv: list[str]) -> int:
    """Runs what the flags ask for.

    Args:
        argv: Flags.

    Returns:
        Exit status: 0 done; 1 the run failed, or data are missing or refused; 2 bad flags.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(f"{__doc__}\n{flags.flag_help()}")
        return 0
    warnings.formatwarning = _warning
    return exit_status("train.py", partial(_train, argv))


def _train(argv: list[str]):
    config = flags.parse(argv)
    quiet.import_tensorflow()
    from dml_tf.runs import records, train

    record = train.run(config)
    print(f"{records.summary(record)}\nrecord: {RunFiles.of(config).record}")


def _warning(message, category, filename, lineno, line=None) -> str:
    return f"train.py: {message}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
