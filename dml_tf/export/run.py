"""Trains with exported steps, on any device of JAX, without TensorFlow.

A run continues from `state.npz` to the end of its schedule, with the order and augmentation of its
seed, and saves its state there on the way. Runs of the same step can train together.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dml_tf.errors import CUT, DONE, FlagError, uninterrupted
from dml_tf.export.folder import Export
from dml_tf.export.group import Group, Manner
from dml_tf.export.jax_step import device_errors

_SAVE_S = 30.0


@device_errors()
def train(folders: Sequence[Path], manner: Manner, max_seconds: float = math.inf) -> int:
    """Trains to the end of the runs, or until `max_seconds`; returns `DONE` or `CUT`."""
    exports = [Export.read(folder) for folder in folders]  # before a lock file is made
    refuse_others(exports)
    with contextlib.ExitStack() as held:
        for export in exports:
            held.enter_context(export.hold())
        return _train(Group(exports, manner), max_seconds)


def refuse_others(exports: Sequence[Export]):
    """Refuses runs that cannot be one program."""
    first, *others = exports
    folders = [export.folder.resolve() for export in exports]
    if len(set(folders)) < len(folders):
        raise FlagError("A folder is named twice: name each run once.")
    for other in others:
        for what, are_same in _SAME.items():
            if not are_same(first, other):
                raise FlagError(
                    f"{first.folder} and {other.folder} have different {what}, so they cannot be "
                    "one program. Train them in separate commands, or export them in one with "
                    "`python -m dml_tf.export write --seeds=0,1,...`."
                )


def _equal(read: Callable[[Export], object]) -> Callable[[Export, Export], bool]:
    return lambda first, second: read(first) == read(second)


# What runs that train together have in common.
_SAME = {
    "numbers of images": _equal(lambda export: export.manifest["images"]["count"]),
    "shapes of images": _equal(lambda export: export.manifest["images"]["shape"]),
    "schedules": _equal(lambda export: export.schedule),
    "variables": _equal(
        lambda export: [
            (each["shape"], each["dtype"], each["updated"]) for each in export.manifest["variables"]
        ]
    ),
    "metrics": _equal(lambda export: export.manifest["metrics"]),
    "steps": Export.has_step_of,
}


def _train(group: "Group", max_seconds: float) -> int:
    if group.training:
        print(f"{group.summary}; compiling ...", flush=True)
    try:
        _advance(group, max_seconds)
    except KeyboardInterrupt:
        if group.step_s:  # it was not the first dispatch, which a signal may cut in two
            group.save()
        raise
    print(f"{group.summary}.")
    group.raise_failures()
    return CUT if group.training else DONE


def _advance(group: "Group", max_seconds: float):
    """Trains to the end of the runs or of the time, and saves now and then."""
    saved = time.perf_counter()
    while group.training:
        # Compiling takes long: only then a signal does not wait.
        with uninterrupted() if group.step_s else contextlib.nullcontext():
            ended = group.dispatch()
        now = time.perf_counter()
        cut = now + max(group.dispatch_s, group.step_s) - group.started > max_seconds
        if cut or ended or now - saved > _SAVE_S:
            group.save()
            saved = now
        if cut:
            break
