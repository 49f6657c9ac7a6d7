"""Times the steps of some runs at once on JAX's device, and prints one line of JSON.

Example, on inputs that `accelerator.sh --prepare` wrote:
  python -m benchmarks.accelerator.step_time --net=resnet32 --together=4 --way=batched
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accelerator import processes
from benchmarks.accelerator.inputs import INPUTS, Inputs
from benchmarks.accelerator.planning import METHODS, PRECISIONS, WAYS, Step
from dml_tf.errors import RunFailed, exit_status

_WAIT_S = 60  # for the other processes to compile


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    return exit_status("benchmarks.accelerator.step_time", lambda: _main(argv), (ValueError,))


def _main(argv: Sequence[str]):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--net", required=True)
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--method", choices=METHODS, default=METHODS[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32")
    parser.add_argument("--together", type=int, required=True)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--meeting", type=Path, help="where processes wait for each other")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--loader", help="as for `dml_tf.export run`")
    asked = parser.parse_args(argv)
    measure = side_by_side if asked.way == "processes" else in_one_program
    print(json.dumps(measure(asked)))


def side_by_side(asked: argparse.Namespace) -> dict:
    """As many processes as runs, each with its part of the memory; they are timed together."""
    from dml_tf.export.side_by_side import environment

    count = asked.together
    with tempfile.TemporaryDirectory() as meeting:
        command = [sys.executable, "-m", "benchmarks.accelerator.step_time"]
        own = vars(asked) | {"together": 1, "way": "calls", "processes": count, "meeting": meeting}
        command += [f"--{name}={value}" for name, value in own.items() if value is not None]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(count))
            for _ in range(count)
        ]
        if any(processes.wait_for_all(started)):
            raise RunFailed("A process failed: perhaps its part of the memory is too small.")
    each = [json.loads(process.stdout.read().splitlines()[-1]) for process in started]
    return {
        "step_s": max(row["step_s"] for row in each),
        "images_per_s": sum(row["images_per_s"] for row in each),
        "compile_s": max(row["compile_s"] for row in each),
    }


def in_one_program(asked: argparse.Namespace) -> dict:
    """Seconds of a step of all runs, after compiling, on noise from a start of our own."""
    import jax

    from dml_tf.data import Split
    from dml_tf.export.folder import Export
    from dml_tf.export.jax_step import FORMS, Trainer, advance_together, find_device

    inputs = Inputs(asked.inputs)
    step = Step(asked.net, asked.peers, asked.method, asked.precision)
    export = Export.read(inputs.program(step))
    rng = np.random.default_rng(0)
    shape = (export.manifest["images"]["count"], *export.manifest["images"]["shape"])
    noise = Split(rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, shape[0]))
    first, states = None, []
    trainers = []
    for seed in range(asked.together):
        one = dataclasses.replace(export, config=export.config.replace(seed=seed))
        first = Trainer(
            one, noise, find_device(), PRECISIONS[asked.precision][1], form=FORMS[asked.way],
            loader=asked.loader, beside=first,
        )  # fmt: skip
        trainers.append(first)
        states.append(start(export, rng))

    def advance(states, steps):
        places = [(t, state, 0, 0) for t, state in zip(trainers, states, strict=True)]
        began = time.perf_counter()
        states = jax.block_until_ready(advance_together(places, steps))
        return states, time.perf_counter() - began

    states, compile_s = advance(states, 1)
    states, once = advance(states, 1)
    most = export.schedule.steps_per_epoch
    steps = max(1, min(most, round(inputs.plan.seconds / max(once, 1e-4))))
    if asked.meeting:
        meet(asked.meeting, asked.processes)
    seconds, done = [], 0.0
    while done < inputs.plan.seconds or len(seconds) < 3:
        states, took = advance(states, steps)
        seconds.append(took / steps)
        done += took
    step_s = float(np.median(seconds))
    rate = asked.together * export.config.batch_size / step_s
    return {"step_s": step_s, "images_per_s": rate, "compile_s": compile_s - once}


def start(export, rng: np.random.Generator) -> list[np.ndarray]:
    """A start for timing: small random kernels, unit scales and variances, zeros."""
    values = []
    for variable in export.manifest["variables"]:
        shape, dtype = variable["shape"], variable["dtype"]
        last = variable["name"].rsplit("/", 1)[-1]
        if last in ("gamma", "moving_variance"):
            values.append(np.ones(shape, dtype))
        elif dtype == "float32" and len(shape) > 1 and "momentum" not in last:
            spread = 1 / np.sqrt(np.prod(shape[:-1]))
            values.append((spread * rng.standard_normal(shape, np.float32)).astype(dtype))
        else:
            values.append(np.zeros(shape, dtype))
    return values


def meet(folder: Path, count: int):
    """Waits until so many processes are here."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + _WAIT_S
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > until:
            raise RunFailed("The other processes did not come: perhaps one failed.")
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
