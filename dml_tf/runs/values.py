"""Values of settings as flags and Python give them: text, or a value of the field's type."""

import dataclasses
import difflib
import operator
import os
from collections.abc import Iterable

import numpy as np

from dml_tf.errors import FlagError

LARGEST_SIDE = 65_535  # pixels


def to_flag(name: str, value) -> str:
    """The command-line form of a setting: `--name=value`, sequences joined by commas."""
    if isinstance(value, (tuple, list)):
        value = ("x" if name == "image_size" else ",").join(map(str, value))
    return f"--{name}={value}"


def read(field: dataclasses.Field, value):
    """A value, or its text, in the type of its field; `FlagError` if it has another."""
    if field.name == "image_size":
        return _size(value)
    kind, convert = _KINDS.get(field.type, ("names of networks", _names))
    try:
        return convert(value)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise FlagError(f"{to_flag(field.name, value)} is not {kind}.") from None


def _names(value) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    return tuple(name.strip() for name in names if name.strip())


def _whole_number(value) -> int:
    if isinstance(value, bool):
        raise ValueError
    return int(value) if isinstance(value, str) else operator.index(value)


def _number(value) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _truth(value) -> bool:
    if isinstance(value, np.bool_):
        return bool(value)
    return value if isinstance(value, bool) else {"true": True, "false": False}[value.lower()]


def _text(value) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError
    return os.fspath(value)


# Type of a field -> what its value is called in messages, and how it is read.
_KINDS = {
    int: ("a whole number", _whole_number),
    float: ("a number", _number),
    bool: ("true or false", _truth),
    str: ("text", _text),
}


def _size(size: object) -> int | tuple[int, int]:
    """Reads `32` or `160x64`."""
    try:
        parts = size if isinstance(size, (tuple, list)) else str(size).split("x")
        numbers = tuple(int(part) for part in parts)
    except (ValueError, TypeError):
        numbers = ()
    if max(numbers, default=0) > LARGEST_SIDE:
        raise FlagError(f"--image_size={size} is out of range: sides have up to {LARGEST_SIDE}.")
    if len(numbers) == 1 and numbers[0] >= 0:
        return numbers[0]
    if len(numbers) == 2 and min(numbers) >= 1:
        return numbers
    raise FlagError(f"--image_size={size} is neither a side as in 32, nor HEIGHTxWIDTH.")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: `. Did you mean ...?`, or a full stop if no known name is near.

    Examples:
        >>> nearest("lr", ["momentum", "learning_rate"])
        '. Did you mean learning_rate?'
    """
    known = list(known)
    by_initials = [each for each in known if "".join(w[0] for w in each.split("_")) == name]
    found = by_initials or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f". Did you mean {found[0]}?" if found else "."
