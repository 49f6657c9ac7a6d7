"""The training step of a run on a machine without TensorFlow.

usage: python -m dml_tf.export COMMAND ...

commands:
  write   where TensorFlow is: write the training step of a run into a folder
  check   where JAX is: compare the step on this machine's device with its CPU
  run     where JAX is: train with the step; to resume, repeat the command
  import  where TensorFlow is: make the cohort and the record of the trained run

`python -m dml_tf.export COMMAND --help` lists the arguments of a command.
Exit status: 0 done; 1 failed, or refused; 2 bad arguments; 3 `run` was cut and can be resumed.
"""

import argparse
import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from dml_tf.errors import BAD_FLAGS, DONE, FAILED, FlagError, RunFailed, exit_status
from dml_tf.export import TESTED_JAX

HELP = {"--help", "-h", "-help"}
WRITE = """usage: python -m dml_tf.export write FLAGS [--seeds=0,1,...] OUT_DIR

Writes the training step of a run into OUT_DIR. The flags are those of train.py.
- step.mlir: one mini-batch of Algorithm 1 for all peers, as StableHLO.
- manifest.json: the settings, the variables and the learning rates, and in words how to use them.
- state.npz: the initial values of the variables. `run` replaces it.
- images.npz: the training images and labels that the flags choose, as bytes. `run` does not need
  it where the data set itself is.
With --seeds, the run of each seed has its folder, OUT_DIR/seed0 and so on, and all have one
program: `run OUT_DIR/seed* --together` trains them at once.

example:
  python -m dml_tf.export write --dataset=digits --net=resnet8:16 --cohort=2 exported/pair
"""
SEEDS = "--seeds="


def main(argv: Sequence[str]) -> int:
    """Runs the command that the first argument names.

    Args:
        argv: Command, then its arguments.

    Returns:
        Exit status: 0 done; 1 the command failed, or data are missing or refused; 2 bad flags, or
        no such command; 3 `run` was cut by --max_seconds and can be resumed.
    """
    if not argv:
        print(__doc__, file=sys.stderr)
        return BAD_FLAGS
    name, *arguments = argv
    if name in HELP:
        print(__doc__)
        return DONE
    if name not in COMMANDS:
        print(f"There is no command {name!r}.\n\n{__doc__}", file=sys.stderr)
        return BAD_FLAGS
    command, refused = COMMANDS[name]
    return exit_status(
        f"dml_tf.export {name}", functools.partial(_with_packages, command, arguments), refused
    )


def _with_packages(command, arguments: Sequence[str]) -> int | None:
    """Runs a command; names the requirements if a package is missing."""
    try:
        return command(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "dml_tf").startswith("dml_tf"):
            raise
        raise RunFailed(
            f"{error.name} is not installed. `write` and `import` take requirements.txt; for "
            f"`check` and `run`: pip install {TESTED_JAX} numpy pillow"
        ) from error


def _write(argv: Sequence[str]):
    from dml_tf.runs import flags, quiet

    if HELP & set(argv):
        print(f"{WRITE}\n{flags.flag_help()}")
        return
    if not argv or argv[-1].startswith("-"):
        raise FlagError("OUT_DIR is missing: name the folder to write to, after the flags.")
    given = [flag for flag in argv[:-1] if flag.startswith(SEEDS)]
    seeds = _seeds(given[-1].removeprefix(SEEDS)) if given else None
    config = flags.parse([flag for flag in argv[:-1] if flag not in given])
    folder = Path(argv[-1])
    quiet.import_tensorflow()
    from dml_tf.export import write

    exports = write.export_seeds(config, folder, seeds) if seeds else [write.export(config, folder)]
    for export in exports:
        print(
            f"{export.folder}: a step of {export.run_id} with {len(export.manifest['variables'])} "
            f"variables, for {export.schedule.steps} steps."
        )
    folders = f"{folder}/seed* --together" if seeds else folder
    print(f"Train with `python -m dml_tf.export run {folders}`.")


def _seeds(text: str) -> list[int]:
    seeds = [int(part) for part in text.split(",") if part.isdecimal()]
    if len(seeds) != len(text.split(",")) or len(set(seeds)) < len(seeds):
        raise FlagError(f"{SEEDS}{text}: give different whole numbers, as {SEEDS}0,1,2,3.")
    return seeds


def _check(argv: Sequence[str]) -> int:
    parser = _parser(
        "check",
        "Compares 20 steps of a run on JAX's default device with the CPU's, each from the same "
        "state.\nPrints the largest difference of a loss and of a variable, for float32 products "
        "and for the\ndevice's own. The first 5 losses must agree for float32 products.\n"
        "With several runs: compares 5 of their steps in one batched program with each run's own.",
        "python -m dml_tf.export check exported/pair",
        runs="+",
    )
    _add_data_dir(parser)
    _add_loader(parser)
    asked = parser.parse_args(argv)
    from dml_tf.export import check
    from dml_tf.export.jax_step import find_device

    if len(asked.folder) > 1:
        found = {"highest": check.check_together(asked.folder, asked.data_dir, asked.loader)}
        other = "each run's own"
    else:
        found = check.check(*asked.folder, asked.data_dir, asked.loader)
        other = "the CPU's"
    for precision, differences in found.items():
        loss, variable = differences.max(axis=0)
        print(
            f"{find_device().device_kind}, {precision} precision: losses within "
            f"{differences[: check.JUDGED, 0].max():.1e} of {other} in the first {check.JUDGED} "
            f"steps, within {loss:.1e} in {len(differences)}; variables within {variable:.1e}"
        )
    return DONE if check.passes(found["highest"]) else FAILED


def _run(argv: Sequence[str]) -> int:
    parser = _parser(
        "run",
        "Trains with an exported step, on any device of JAX, to the end of the run's schedule.\n"
        "The state is saved in OUT_DIR. To resume a run, repeat the command.\n"
        "With --together, several runs train at once on one device. Each keeps its own folder,\n"
        "and can be resumed alone or with others.",
        "python -m dml_tf.export run exported/pair --max_seconds=300\n"
        "  python -m dml_tf.export run exported/pair/seed* --together",
        runs="+",
    )
    _add_data_dir(parser)
    parser.add_argument(
        "--max_seconds",
        type=float,
        default=math.inf,
        help="save and stop before so many seconds have passed, with exit status 3; the first "
        "dispatch, which compiles, is always done",
    )
    parser.add_argument(
        "--precision",
        choices=("default", "highest"),
        default="default",
        help="of products: the device's own, as TF32 on a GPU, or float32",
    )
    parser.add_argument(
        "--dispatch", type=float, default=2.0, metavar="SECONDS", help="of steps in one dispatch"
    )
    parser.add_argument("--together", action="store_true", help="train several runs at once")
    parser.add_argument(
        "--processes", type=int, help="train in so many processes side by side; default: here"
    )
    parser.add_argument(
        "--program",
        help="for --together: each operation does the work of all runs (batched, the default on "
        "an accelerator), or each run has its own (calls, the default on a CPU)",
    )
    _add_loader(parser)
    asked = parser.parse_args(argv)
    if len(asked.folder) > 1 and not asked.together:
        raise FlagError("For several runs add --together.")
    if asked.processes is not None:
        from dml_tf.export import side_by_side

        names = ("data_dir", "max_seconds", "precision", "dispatch", "program", "loader")
        given = {name: getattr(asked, name) for name in names}
        flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return side_by_side.train(asked.folder, asked.processes, flags)
    from dml_tf.export import run

    manner = run.Manner(
        asked.data_dir, asked.precision, asked.dispatch, asked.program, asked.loader
    )
    return run.train(asked.folder, manner, asked.max_seconds)


def _import(argv: Sequence[str]):
    parser = _parser(
        "import",
        "Takes a trained run back: measures it with the project's own code and data, and writes\n"
        "<results_dir>/models/<run_id>.keras and <results_dir>/runs/<run_id>.json as train.py "
        "does.",
        "python -m dml_tf.export import exported/pair",
    )
    parser.add_argument("--data_dir", help="as train.py's; default: as for the export")
    parser.add_argument("--results_dir", help="as train.py's; default: as for the export")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing record")
    asked = parser.parse_args(argv)
    from dml_tf.export.folder import Export
    from dml_tf.runs import quiet
    from dml_tf.runs.files import RunFiles

    export = Export.read(asked.folder)
    places = {"data_dir": asked.data_dir, "results_dir": asked.results_dir}
    given = {name: place for name, place in places.items() if place is not None}
    config = export.config.replace(**given, overwrite=asked.overwrite)
    quiet.import_tensorflow()
    from dml_tf.export import read_back
    from dml_tf.runs import records

    record = read_back.import_run(export, config)
    print(f"{records.summary(record)}\nrecord: {RunFiles.of(config).record}")


def _parser(
    command: str, description: str, example: str, runs: str | None = None
) -> argparse.ArgumentParser:
    """A parser that takes the folder, or several."""
    parser = argparse.ArgumentParser(
        f"python -m dml_tf.export {command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder", type=Path, nargs=runs, metavar="OUT_DIR", help="folder that `write` wrote"
    )
    return parser


def _add_loader(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--loader",
        help="how JAX takes the step: as a whole (export), or operation by operation (operations); "
        "default: the first that works",
    )


def _add_data_dir(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="official archive, or the JPEG copy's archive or folder; default: OUT_DIR/images.npz",
    )


# Name -> the function, and exceptions that mean refused files or data.
COMMANDS = {
    "write": (_write, ()),
    "check": (_check, (ValueError,)),
    "run": (_run, (ValueError,)),
    "import": (_import, (ValueError,)),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
