"""The paper's tables and figures: `python -m dml_tf.paper run` or `report`.

`run` trains what is missing, then writes tables, figures and the page; `report` only writes them.
`--help` after a command lists its options.
"""

import sys

from dml_tf.errors import BAD_FLAGS, DONE
from dml_tf.paper import page, run_all

COMMANDS = {"run": run_all.main, "report": page.main}


def main(argv: list[str]) -> int:
    """Runs the command that the first argument names; returns its exit status."""
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    asked_for_help = argv[:1] in (["--help"], ["-h"])
    print(__doc__, file=sys.stdout if asked_for_help else sys.stderr)
    return DONE if asked_for_help else BAD_FLAGS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
