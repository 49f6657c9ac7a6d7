"""The command line: absl flags made from the fields of `Config`. Only this module uses absl."""

from collections.abc import Iterator, Sequence

from absl import flags

from dml_tf.errors import FlagError
from dml_tf.runs import flag_help as help_on
from dml_tf.runs.checks import refuse
from dml_tf.runs.config import FIELDS, Config, load
from dml_tf.runs.values import nearest

_ABSL = ("flagfile", "undefok", "help")


def parse(argv: Sequence[str]) -> Config:
    """A config from command-line flags, without the program's name.

    Raises:
        FlagError: For an unknown flag, a value out of range or a contradiction.
    """
    given = _flag_values(argv)
    return load(**{name: getattr(given, name) for name in FIELDS if given[name].present})


def flag_help() -> str:
    """Help on every flag, for `--help`."""
    return help_on.text(FIELDS)


def _flag_values(argv: Sequence[str]) -> flags.FlagValues:
    values = _define_flags()
    try:
        rest = values(["train.py", *argv])[1:]
    except flags.Error as error:
        problems = [*_unknown(argv), *_misread(argv)] or [f"{error}."]
        problems += _wrong_values(argv)
        refuse([*problems, "--help lists the flags."])
    except OSError as error:
        raise FlagError(f"--flagfile: cannot read {error.filename}: {error.strerror}.") from None
    if rest:
        raise FlagError(f"Unexpected argument {rest[0]!r}: settings are given as --name=value.")
    return values


def _unknown(argv: Sequence[str]) -> Iterator[str]:
    """A line for each flag that there is not, with the name that is nearest."""
    for name in filter(None, map(_name, argv)):
        is_negated_bool = name.startswith("no") and name[2:] in FIELDS
        if name not in FIELDS and not is_negated_bool and name not in _ABSL:
            near = nearest(name, FIELDS).replace("mean ", "mean --")
            yield f"There is no flag --{name}{near}"


def _misread(argv: Sequence[str]) -> Iterator[str]:
    """A line for each flag whose value absl itself must read, and cannot."""
    for text in argv:
        if _is_setting(text) and not _can_be_read(text):
            yield f"{text} is not true or false."


def _wrong_values(argv: Sequence[str]) -> Iterator[str]:
    """What is wrong with the flags that can be read."""
    values = _define_flags()
    values(["train.py", *(text for text in argv if _is_setting(text) and _can_be_read(text))])
    try:
        load(**{name: getattr(values, name) for name in FIELDS if values[name].present})
    except FlagError as error:
        yield str(error)


def _is_setting(text: str) -> bool:
    return "=" in text and _name(text) in FIELDS


def _can_be_read(text: str) -> bool:
    try:
        _define_flags()(["train.py", text])
    except flags.Error:
        return False
    return True


def _name(text: str) -> str:
    """The name in `--name=value` or `--name`; empty for other arguments."""
    return text.lstrip("-").partition("=")[0] if text.startswith("-") else ""


def _define_flags() -> flags.FlagValues:
    """A fresh set of absl flags, one for each field; absl's global FLAGS stays untouched.

    They take any text: `Config` tells what is wrong with all of them together.
    """
    values = flags.FlagValues()
    for name, field in FIELDS.items():
        text = field.metadata["help"]
        if field.type is bool:
            flags.DEFINE_bool(name, field.default, text, flag_values=values)
        else:
            flags.DEFINE_string(name, None, text, flag_values=values)
    return values
