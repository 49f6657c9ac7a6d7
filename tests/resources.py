"""Memory, threads and open files over many epochs, and over many runs in one process."""

import gc
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SMALL = {"dataset": "digits", "net": "resnet8:2", "image_size": 8, "batch_size": 16,
         "train_images": 32}  # fmt: skip
_MEGABYTES = 60  # that memory may grow by in the second half: far below a run's, or 100 epochs'


class Used(NamedTuple):
    """What this process has now."""

    megabytes: float
    threads: int
    files: int


def used() -> Used:
    """Resident memory, threads and open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Used(megabytes, *(len(os.listdir(f"/proc/self/{of}")) for of in ("task", "fd")))


def refuse_growth(half: Used, whole: Used):
    """Raises `AssertionError` if more is used after the second half than after the first."""
    assert whole.megabytes - half.megabytes < _MEGABYTES, (half, whole)
    assert whole.threads <= half.threads + 2 and whole.files <= half.files + 2, (half, whole)


def graphs() -> list[str]:
    """Names of the traced functions that are alive in this process."""
    from tensorflow.python.framework.func_graph import FuncGraph

    return [each.name for each in gc.get_objects() if isinstance(each, FuncGraph)]


def epochs(count: int) -> Counter:
    """Trains for so many small epochs."""
    import keras

    from dml_tf.runs import config, train

    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 in (count // 2, count):
                seen.append(used())

    with tempfile.TemporaryDirectory() as folder:
        asked = config.load(**SMALL, cohort=2, epochs=count, results_dir=folder)
        train.run(asked, verbose=0, callbacks=[Look()])
    refuse_growth(*seen)
    return Counter({f"epochs, {seen[1].megabytes - seen[0].megabytes:+.0f} MB in the half": count})


def runs(count: int) -> Counter:
    """Trains so many runs one after the other, as a worker of `run_all.sh` does.

    Each second one takes over the trace of the one before; no graphs of others may be left.
    """
    from dml_tf.paper import run_all
    from dml_tf.runs import config, session

    seen, first = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            rate = 0.1 + number // 2 / 1000
            asked = config.load(
                **SMALL, steps=2, seed=number, learning_rate=rate, results_dir=folder
            )
            run_all.train_one(lambda text: None, asked)
            seen_now = used()  # collects garbage
            first = first or graphs()
            assert len(graphs()) <= len(first), f"{graphs()} are left after run {number + 1}"
            if number + 1 in (count // 2, count):
                seen.append(seen_now)
    session.clear()
    gc.collect()
    assert not graphs(), f"{graphs()} are left at the end"
    refuse_growth(*seen)
    return Counter({f"runs, {seen[1].megabytes - seen[0].megabytes:+.0f} MB in the half": count})
