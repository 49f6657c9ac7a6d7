"""Faults in numbers that the test suite has no time for: `python -m tests.faults [--all] [ROW...]`.

Each row is one of docs/reliability.md. Without `--all` it does a sample. A row that
finds something wrong ends with an error.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import contextlib
import io
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import hypothesis
from hypothesis import strategies as st

from dml_tf.errors import exit_status
from dml_tf.runs import flags
from dml_tf.runs.config import FIELDS
from tests import fuzz, kills, processes, resources

# Drawn flags stay off what takes minutes or writes elsewhere; what they may be is below.
_LEFT_OUT = ("dataset", "scale", "data_dir", "results_dir", "features_out", "analyse", "steps")
_LEFT_OUT += ("epochs", "placement", "jit_compile", "watch_test", "overwrite", "max_memory_gb")
_GIVEN = {
    "net": ("resnet8:4", "resnet8:1", "mobilenet_short:0.25", "resnet8:4,resnet8:2", "wrn-10-1:2",
            "resnet9", "resnet8:0", "resnet8:99999999", "resnet6002:4", "resnet"),
    "cohort": (0, 1, 2, 2, 3, -1, 1001, "two"),
    "image_size": (0, 8, 8, 4, 2, 1, 7, 60_000, 10**6, "8x8", "x", -1),
    "batch_size": (1, 2, 16, 200, 201, 10**6, 0, 10**30),
    "train_images": (0, 1, 20, 797, 798, 10**9, 10**10),
    "teacher": ("absent", "absent.keras"),
    "pretrained": ("imagenet", "absent", "absent.h5"),
    "steps_per_execution": (1, 2, 3, 0),
}  # fmt: skip
# A failure with status 1 must say one of these: what has diverged, or what the data lack.
_FAILED = re.compile(
    r"not finite| is -?(nan|inf)|^train\.py: --\w+|there is no |No such file", re.M
)


def flag_sets() -> st.SearchStrategy[list[str]]:
    """Command lines of up to three drawn flags; about half of them can be trained."""
    names = [name for name in FIELDS if name not in _LEFT_OUT]
    drawn = st.lists(st.sampled_from(names), max_size=3, unique=True)
    return drawn.flatmap(lambda chosen: st.tuples(*map(_flag, chosen))).map(list)


def _flag(name: str) -> st.SearchStrategy[str]:
    field = FIELDS[name]
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if name in _GIVEN:
        values = st.sampled_from(_GIVEN[name])
    elif choices:
        values = st.sampled_from([*choices, "mistyped"])
    elif field.type is bool:
        values = st.sampled_from(["true", "false", "maybe"])
    elif field.type is int:
        inside = st.integers(low, low + 5)
        values = st.one_of(inside, inside, st.sampled_from([high, high + 1, -1, 2**64]))
    else:
        inside = st.floats(low, min(high, 1.0))
        values = st.one_of(
            inside, inside, st.sampled_from([low, high, 2 * high, -1, "nan", "inf", "x"])
        )
    return values.map(lambda value: f"--{name}={value}")


def outcome(argv: Sequence[str], folder: Path) -> str:
    """What two steps with these flags end in; `AssertionError` unless it is done, or in words."""
    base = ["--dataset=digits", "--net=resnet8:4", "--image_size=8", "--train_images=40"]
    base += ["--batch_size=8", f"--results_dir={folder}", "--overwrite"]
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        command = partial(_train, [*base, *argv, "--steps=2"])
        status = exit_status("train.py", command)
    message = stderr.getvalue()
    assert status == 0 or "train.py: " in message, (argv, message)
    assert status in (0, 2) or _FAILED.search(message), (argv, message)
    return {0: "trained", 1: "failed, with the reason", 2: "refused"}[status]


def _train(argv: Sequence[str]):
    from dml_tf.runs import train

    record = train.run(flags.parse(argv), verbose=0)
    assert record["steps"] in (2, 0)


def draw_flags(count: int) -> Counter:
    """Draws flag sets; counts how they end."""
    ends = Counter()

    @hypothesis.settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(flag_sets())
    def trained_or_refused(argv):
        import keras

        with tempfile.TemporaryDirectory() as folder:
            ends[outcome(argv, Path(folder))] += 1
        keras.backend.clear_session()

    trained_or_refused()
    return ends


class Row(NamedTuple):
    """Faults of one kind.

    Attributes:
        do: Does so many of them and counts how they end.
        some: How many in a sample.
        many: How many with `--all`.
    """

    do: Callable[[int], Counter]
    some: int
    many: int


ROWS = {
    "flags": Row(draw_flags, 15, 500),
    "kills": Row(kills.kill, 10, 400),
    "training": Row(kills.kill_training, 1, 40),
    "sweeps": Row(kills.kill_sweep, 1, 12),
    "exports": Row(kills.kill_export, 1, 40),
    "disks": Row(kills.fail_disks, 1, 100),
    "processes": Row(processes.lose, 1, len(processes.MOMENTS)),
    "epochs": Row(resources.epochs, 20, 200),
    "runs": Row(resources.runs, 4, 100),
    "readers": Row(fuzz.read_altered, 400, 120_000),
}


def main(argv: Sequence[str]) -> int:
    """Does rows and prints how often each ended how."""
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"default: {', '.join(ROWS)}")
    parser.add_argument("--all", action="store_true", help="as many as the page says; hours")
    asked = parser.parse_args(argv)
    if unknown := set(asked.rows) - ROWS.keys():
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if len(rows := asked.rows or list(ROWS)) > 1:
        # A process of its own for each: where TensorFlow has trained, a fork of it hangs.
        command = [sys.executable, "-m", "tests.faults", *(["--all"] if asked.all else [])]
        return int(any([subprocess.run([*command, row], check=False).returncode for row in rows]))
    row = ROWS[rows[0]]
    ends = row.do(row.many if asked.all else row.some)
    print(f"{rows[0]}: {', '.join(f'{count} {end}' for end, count in ends.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
