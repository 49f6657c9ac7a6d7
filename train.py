"""Trains one cohort: `python train.py --dataset=digits --net=resnet8 --cohort=2`."""

import os
import sys
import warnings

from dml_tf import config, startup


def main(argv: list[str]) -> int:
    """Runs what the flags ask for.

    Args:
        argv: Flags.

    Returns:
        Exit status: 0 done; 1 the run failed, or data are missing or refused; 2 bad flags.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(f"{__doc__}\n{config.flag_help()}")
        return 0
    warnings.formatwarning = _warning
    try:
        settings = config.parse(argv)
        startup.import_tensorflow()
        from dml_tf import records, train
    except config.FlagError as error:
        return _fail(error, 2)
    try:
        record = train.run(settings)
    except config.FlagError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on after the last finished epoch.", 1)
    except ConnectionError as error:
        _fail(error, 1)
        sys.stdout.flush()
        os._exit(1)  # at an ordinary end TensorFlow's threads would wait for the lost process
    except (OSError, records.RecordMismatch, train.RunFailed) as error:
        return _fail(error, 1)
    print(f"{train.summary(record)}\nrecord: {records.path(settings)}")
    return 0


def _fail(reason, status: int) -> int:
    print(f"train.py: {reason}", file=sys.stderr)
    return status


def _warning(message, category, filename, lineno, line=None) -> str:
    return f"train.py: {message}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
