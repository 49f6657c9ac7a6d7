"""`--precision=auto`: the faster of float32 and bfloat16, by a short measurement on this machine.

Processors with AVX512_BF16 or AMX, and GPUs, multiply bfloat16 faster than float32; others do it
more slowly. It also depends on the network: depthwise convolutions gain nothing.
"""

import json
import statistics
import time
from pathlib import Path

import tensorflow as tf

from dml_tf import data
from dml_tf.atomic import write_whole
from dml_tf.data import Splits
from dml_tf.runs import build
from dml_tf.runs.config import Config

CANDIDATES = ("float32", "mixed_bfloat16")
GAIN = 0.95  # bfloat16 is chosen if its step takes less than this share of float32's
_REPEATS = 5


def of_run(config: Config, splits: Splits, folder: Path) -> dict:
    """The precision of a run whose settings say `auto`, and what the choice rests on.

    Args:
        config: The run's settings.
        splits: The run's data.
        folder: Of the run's checkpoint. The choice is kept there, since an interrupted run must go
            on in the precision in which it began.

    Returns:
        `chosen`, and `step_ms`, the milliseconds of a step in each; only `chosen` if the settings
        name a precision.
    """
    if config.precision != "auto":
        return {"chosen": config.precision}
    file = folder / "precision.json"
    if file.exists():
        return json.loads(file.read_text())
    choice = choose(config, splits)
    with write_whole(file) as part:
        part.write_text(json.dumps(choice))
    return choice


def choose(config: Config, splits: Splits) -> dict:
    """Times training steps of the run in each precision, in turns, and says which it chose."""
    batch = next(iter(data.train_batches(splits, config)))
    steps = {name: _step(config, splits, batch, name) for name in CANDIDATES}
    seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for _ in range(_REPEATS):
        for name, step in steps.items():
            seconds[name].append(_timed(step, batch))
    took = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    plain, half = took.values()
    chosen = "mixed_bfloat16" if half < GAIN * plain else "float32"
    print(
        f"--precision=auto: a step takes {plain:.3g} ms in float32 and {half:.3g} ms in "
        f"mixed_bfloat16; {chosen} is used.",
        flush=True,
    )
    return {"chosen": chosen, "step_ms": {name: round(ms, 2) for name, ms in took.items()}}


def _step(config: Config, splits: Splits, batch: tuple, precision: str):
    """A traced training step of a cohort that is only timed."""
    cohort = build.build_cohort(config, splits, precision=precision)
    step = tf.function(cohort.train_step, autograph=False, jit_compile=cohort.jit_compile)
    made = step.get_concrete_function(batch)
    made(batch)  # kernels choose their algorithms
    return made


def _timed(step, batch: tuple) -> float:
    started = time.perf_counter()
    step(batch)
    tf.test.experimental.sync_devices()
    return time.perf_counter() - started
