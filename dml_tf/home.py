"""Where the package's own files are, in a checkout and in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_IS_CHECKOUT = (PACKAGE.parent / "flags" / "digits.flags").is_file()

# Folder under which results and generated data are kept by default: the checkout, or, where the
# package is installed, the folder in which the command runs.
HOME = PACKAGE.parent if _IS_CHECKOUT else Path.cwd()

# How a person calls the training there.
TRAIN = "python train.py" if _IS_CHECKOUT else "dml_tf train"


def shipped(name: str) -> Path:
    """Path of a file or folder that the wheel contains, such as `flags` or `results/paper.csv`."""
    return (PACKAGE.parent if _IS_CHECKOUT else PACKAGE) / name
