"""Measures the step times from which `run_all.sh` estimates how long its runs take.

Example, from the root of the repository:
  python -m benchmarks.step_times --steps=5

For each network at each scale this is the median CPU time of a few steps of the network alone, on
one thread, with noise as images. Times that results/benchmarks/step_times.json already has are
kept.
"""

import argparse
import os
import shlex
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import harness
from dml_tf.paper import estimate, plan, scales
from dml_tf.runs import config, quiet, records
from dml_tf.runs.config import Config

CHANNELS = {"digits": 1, "fashion_mnist": 1}  # 3 for other data sets
OWN_SIZE = {"market1501": (160, 64), "imagenet": (224, 224)}  # 32 for other data sets
CLASSES = 100


def main(argv: Sequence[str]):
    """Measures what has not been measured yet, and writes the record."""
    args = parse(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the times are of a processor
    quiet.import_tensorflow(1)
    file = estimate.MEASURED
    kept = records.read(file) if file.exists() else {}
    measured = kept["seconds"] if kept.get("machine") == records.machine() else {}
    wanted = steps_of_all_runs()
    measured = {name: seconds for name, seconds in measured.items() if name in wanted}
    for name, (run, net) in wanted.items():
        if name not in measured:
            measured[name] = round(measure(run, net, args.steps), 5)
            print(f"{name}: {measured[name]} s", flush=True)
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.step_times", *argv]),
            "machine": records.machine(),
            "seconds": measured,
        }
        records.write(record, file)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.step_times",
        description=__doc__,
        formatter_class=harness.Help,
    )
    parser.add_argument(
        "--steps", type=harness.positive, default=5, help="timed steps of each network"
    )
    return parser.parse_args(argv)


def steps_of_all_runs() -> dict[str, tuple[Config, str]]:
    """Name in the record -> a run and one of its networks, for every step that a run needs."""
    return {
        estimate.key(run, net): (run, net)
        for scale in scales.BY_NAME.values()
        for run in plan.runs(scale, results_dir="unused", seeds=1)
        for net in run.net
    }


def measure(run: Config, net: str, steps: int) -> float:
    """Median CPU time of one network's step, in seconds."""
    import keras
    import tensorflow as tf

    from dml_tf import Cohort, networks
    from dml_tf.runs.build import optimizer

    size = run.image_size or OWN_SIZE.get(run.dataset, 32)
    shape = (*np.broadcast_to(size, 2).tolist(), CHANNELS.get(run.dataset, 3))
    cohort = Cohort([networks.build(net, num_classes=CLASSES, input_shape=shape)])
    cohort.compile([optimizer(config.load(dataset=run.dataset, net=(net,)), 100)])
    batch = tf.random.normal((run.batch_size, *shape)), tf.zeros(run.batch_size, tf.int64)
    step = tf.function(cohort.train_step, autograph=False)
    times = []
    for _ in range(steps + 2):
        start = time.process_time()
        step(batch)
        times.append(time.process_time() - start)
    keras.backend.clear_session()
    return statistics.median(times[2:])  # the first two trace the graph and fill caches


if __name__ == "__main__":
    main(sys.argv[1:])
