"""The flag files: defaults of each data set, and of a data set at one scale."""

import functools
from pathlib import Path

from dml_tf import home
from dml_tf.errors import FlagError

FLAG_FILES = home.shipped("flags")


@functools.cache
def settings_of(dataset: str, scale: str = "") -> dict[str, str]:
    """What a flag file sets: field of `Config` -> value as text.

    Args:
        dataset: Value of `--dataset`; its file is `flags/<dataset>.flags`.
        scale: With a scale, `flags/<scale>/<dataset>.flags`, which not every data set has.

    Returns:
        The settings of the file; without such a file for a scale, nothing.

    Raises:
        FlagError: The data set's own file is missing, or a line is not `--name=value`.
    """
    file = FLAG_FILES / scale / f"{dataset}.flags"
    if scale and not file.is_file():
        return {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FlagError(
            f"Cannot read the flag file {file} ({error.strerror}), which has the default settings "
            f"of --dataset={dataset}. Restore it, or install the package again."
        ) from None
    return dict(_setting(line, file) for line in lines if line.strip() and line[0] != "#")


def lines_of(dataset: str, scale: str) -> list[str]:
    """The settings of a data set at a scale as flags, for people to read."""
    settings = settings_of(dataset) | settings_of(dataset, scale)
    return [f"--{name}={value}" for name, value in settings.items() if name != "scale"]


def _setting(line: str, file: Path) -> tuple[str, str]:
    name, equals, value = line.strip().removeprefix("--").partition("=")
    if not (line.startswith("--") and equals):
        raise FlagError(f"{file}: the line {line!r} is not of the form --name=value.")
    return name, value
