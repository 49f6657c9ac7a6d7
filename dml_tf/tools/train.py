"""Trains one cohort: `dml_tf train --dataset=digits --net=resnet8 --cohort=2`."""

import warnings
from collections.abc import Sequence
from functools import partial

from dml_tf.errors import exit_status
from dml_tf.runs import flags, quiet
from dml_tf.runs.files import RunFiles


def main(argv: Sequence[str], program: str = "dml_tf train") -> int:
    """Runs what the flags ask for.

    Args:
        argv: Flags.
        program: Name of the command, for help and messages.

    Returns:
        Exit status: 0 done; 1 the run failed, or data are missing or refused; 2 bad flags.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(f"usage: {program} --dataset=NAME --net=NAMES ...\n\n{flags.flag_help()}")
        return 0
    before = warnings.formatwarning
    warnings.formatwarning = partial(_warning, program)
    try:
        return exit_status(program, partial(_train, argv))
    finally:
        warnings.formatwarning = before


def _train(argv: Sequence[str]):
    config = flags.parse(argv)
    quiet.import_tensorflow()
    from dml_tf.runs import records, train

    record = train.run(config)
    print(f"{records.summary(record)}\nrecord: {RunFiles.of(config).record}")


def _warning(program, message, category, filename, lineno, line=None) -> str:
    return f"{program}: {message}\n"
