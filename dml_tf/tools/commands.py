"""The command `dml_tf`: one entry point for all commands.

`COMMANDS` names each with its summary, an example and the function that runs it.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from dml_tf.errors import BAD_FLAGS, DONE
from dml_tf.runs.values import nearest
from dml_tf.version import __version__


class Command(NamedTuple):
    """A command.

    Attributes:
        summary: What it does.
        example: A command line.
        module: Module whose `main(argv)` runs it and returns an exit status; imported when used.
    """

    summary: str
    example: str
    module: str


COMMANDS = {
    "train": Command(
        "trains one cohort and writes its record and weights",
        "dml_tf train --dataset=image_folder --data_dir=PICTURES --net=resnet20,mobilenet",
        "dml_tf.tools.train",
    ),
    "runs": Command(
        "lists runs: state, accuracy, time left",
        "dml_tf runs image_folder",
        "dml_tf.tools.list_runs",
    ),
    "predict": Command(
        "shows what trained networks say about pictures",
        "dml_tf predict RUN new.jpg more_pictures/",
        "dml_tf.tools.predict",
    ),
    "advise": Command(
        "compares methods on your own pictures, within a time",
        "dml_tf advise --data_dir=PICTURES --minutes=30",
        "dml_tf.tools.advise",
    ),
    "deploy": Command(
        "writes one network for Keras, TensorFlow, LiteRT or ONNX",
        "dml_tf deploy RUN --peer=best --format=litert --quantize=int8 OUT",
        "dml_tf.tools.deploy",
    ),
    "paper": Command(
        "trains and reports the paper's tables and figures: run, report",
        "dml_tf paper run --scale=mini",
        "dml_tf.paper.__main__",
    ),
    "export": Command(
        "takes a training step to a machine without TensorFlow: write, check, run, import",
        "dml_tf export write --dataset=digits --net=resnet8:16 --cohort=2 exported/pair",
        "dml_tf.export.__main__",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names.

    Args:
        argv: Arguments, by default those of the process.

    Returns:
        Exit status, as in `dml_tf.errors`.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        dml_tf ...
        0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ""
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name].module).main(argv[1:])
    if name in ("--help", "-h", "help"):
        print(help_text())
        return DONE
    if name == "--version":
        print(f"dml_tf {__version__}")
        return DONE
    if name:
        print(f"dml_tf: there is no command {name}{nearest(name, COMMANDS)}", file=sys.stderr)
    else:
        print("dml_tf: name a command.", file=sys.stderr)
    print(f"\n{help_text()}", file=sys.stderr)
    return BAD_FLAGS


def help_text() -> str:
    """The commands, each with an example."""
    lines = ["usage: dml_tf COMMAND ...", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:8}  {command.summary}", f"{'':12}{command.example}", ""]
    lines.append("`dml_tf COMMAND --help` lists the options of a command.")
    return "\n".join(lines)
