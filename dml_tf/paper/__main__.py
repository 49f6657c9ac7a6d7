"""`python -m dml_tf.paper run` trains and reports; `python -m dml_tf.paper report` reports only."""

import sys

from dml_tf.paper import report, run_all

COMMANDS = {"run": run_all.main, "report": report.main}


def main(argv: list[str]) -> int:
    """Runs the command that the first argument names; 2 if it is none."""
    if not argv or argv[0] not in COMMANDS:
        print(f"{__doc__}\n`--help` after a command lists its options.", file=sys.stderr)
        return 2
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
