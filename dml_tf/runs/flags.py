"""The command line: absl flags made from the fields of `Config`. Only this module uses absl."""

from collections.abc import Sequence

from absl import flags

from dml_tf.errors import FlagError
from dml_tf.runs.config import FIELDS, Config, load
from dml_tf.runs.values import Size


def parse(argv: Sequence[str]) -> Config:
    """A config from command-line flags, without the program's name.

    Raises:
        FlagError: For an unknown flag, a value out of range or a contradiction.
    """
    given = _flag_values(argv)
    return load(**{name: getattr(given, name) for name in FIELDS if given[name].present})


def flag_help() -> str:
    """Help on every flag, for `--help`."""
    note = "Defaults are those without flags/DATASET.flags, which --dataset=DATASET reads first."
    return f"{note}\n{_define_flags().get_help()}"


def _flag_values(argv: Sequence[str]) -> flags.FlagValues:
    values = _define_flags()
    try:
        rest = values(["train.py", *argv])[1:]
    except flags.Error as error:
        raise FlagError(f"{error}. `python train.py --help` lists the flags.") from None
    except OSError as error:
        raise FlagError(f"--flagfile: cannot read {error.filename}: {error.strerror}.") from None
    if rest:
        raise FlagError(f"Unexpected argument {rest[0]!r}: settings are given as --name=value.")
    return values


def _define_flags() -> flags.FlagValues:
    """A fresh set of absl flags, one for each field; absl's global FLAGS stays untouched."""
    values = flags.FlagValues()
    for name, field in FIELDS.items():
        text, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            default = field.default or None  # absl checks a default, but for None
            flags.DEFINE_enum(name, default, choices, text, flag_values=values)
        elif field.type is bool:
            flags.DEFINE_bool(name, field.default, text, flag_values=values)
        elif field.type is int:
            flags.DEFINE_integer(name, field.default, text, flag_values=values)
        elif field.type is float:
            flags.DEFINE_float(name, field.default, text, flag_values=values)
        elif field.type is str or field.type == Size:
            flags.DEFINE_string(name, str(field.default), text, flag_values=values)
        else:
            flags.DEFINE_list(name, list(field.default), text, flag_values=values)
    return values
