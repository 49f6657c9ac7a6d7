"""Writes a generated data set into a folder: `python -m dml_tf.data.generated DATASET FOLDER`."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dml_tf.data.generated import imagenet_mini, pedestrians
from dml_tf.errors import FlagError, exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the folder is refused; bad arguments exit with 2."""
    parser = _parser()
    asked = vars(parser.parse_args(argv))
    write, folder = asked.pop("write"), Path(asked.pop("folder")).expanduser()
    return exit_status(parser.prog, partial(_write, write, folder, asked))


def _write(write: Callable, folder: Path, asked: dict):
    try:
        write(folder, **asked)
    except ValueError as error:
        raise FlagError(error) from error
    parts = sorted(path for path in folder.iterdir() if path.is_dir())
    counts = (f"{sum(f.is_file() for f in part.rglob('*'))} in {part.name}" for part in parts)
    print(f"{folder}: pictures: {', '.join(counts)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dml_tf.data.generated", description=__doc__, allow_abbrev=False
    )
    datasets = parser.add_subparsers(required=True, metavar="DATASET")
    mini = datasets.add_parser("imagenet_mini", help="twenty shapes in ImageNet's class folders")
    people = datasets.add_parser("pedestrians", help="drawn people in Market-1501's folders")
    mini.set_defaults(write=imagenet_mini.write)
    people.set_defaults(write=_write_pedestrians)
    for dataset in (mini, people):
        dataset.add_argument(
            "folder", metavar="FOLDER", help="where to write: a new or empty folder"
        )
    for field in dataclasses.fields(pedestrians.Sizes):
        help_text = f"default: {field.default}"
        people.add_argument(f"--{field.name}", type=int, default=field.default, help=help_text)
    return parser


def _write_pedestrians(folder: Path, **sizes: int):
    pedestrians.write(folder, pedestrians.Sizes(**sizes))


if __name__ == "__main__":
    sys.exit(main())
