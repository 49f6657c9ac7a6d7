"""Quantities and runs in words, for people who watch."""

from collections import Counter

from dml_tf.runs.config import Config
from dml_tf.runs.values import to_flag

_METHODS = {"dml": "DML", "dml_e": "DML_e", "distill": "distillation"}


def title(run: Config) -> str:
    """A run's name for people: `DML, 2 x resnet8:16, digits, seed 0`."""
    counts = Counter(run.net).items()
    nets = " + ".join(f"{count} x {net}" if count > 1 else net for net, count in counts)
    settings = ", ".join(to_flag(name, value)[2:] for name, value in run.differing().items())
    more = f" ({settings})" if settings else ""
    method = _METHODS.get(run.method, run.method)
    return f"{method}, {nets}, {run.dataset}, seed {run.seed}{more}"


def duration(seconds: float) -> str:
    """Some time in words: `40 s`, `5 min`, `3.5 h`, `12 days`."""
    for size, unit, least in ((86400, "days", 3), (3600, "h", 2), (60, "min", 2), (1, "s", 0)):
        if seconds >= least * size:
            digits = 1 if unit == "h" and seconds < 10 * size else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return "0 s"
