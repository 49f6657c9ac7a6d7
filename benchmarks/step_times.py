"""CPU time of a training step of each network at each scale, which `run_all.sh` estimates from.

From the repository's root: `python -m benchmarks.step_times`. Pictures of noise, one thread, the
median of a few steps of a network trained alone. What the record has already is kept.
"""

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

from dml_tf.paper import estimate, plan, scales
from dml_tf.runs import config, quiet, records
from dml_tf.runs.config import Config

CHANNELS = {"digits": 1, "fashion_mnist": 1}  # 3 elsewhere
OWN_SIZE = {"market1501": (160, 64), "imagenet": (224, 224)}  # 32 elsewhere
CLASSES = 100


def main(argv: Sequence[str]):
    """Measures what has not been measured yet and writes the record."""
    parser = argparse.ArgumentParser("python -m benchmarks.step_times", description=__doc__)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each network")
    options = parser.parse_args(argv)
    quiet.import_tensorflow(1)

    file = estimate.MEASURED
    known = records.read(file)["seconds"] if file.exists() else {}
    wanted = {
        estimate.key(run, net): (run, net)
        for scale in scales.BY_NAME.values()
        for run in plan.runs(scale, results_dir="unused", seeds=1)
        for net in run.net
    }
    known = {name: seconds for name, seconds in known.items() if name in wanted}
    for name, (run, net) in wanted.items():
        if name not in known:
            known[name] = round(measure(run, net, options.steps), 5)
            print(f"{name}: {known[name]} s", flush=True)
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.step_times", *argv]),
            "machine": records.machine(),
            "seconds": known,
        }
        records.write(record, file)


def measure(run: Config, net: str, steps: int) -> float:
    """Median CPU time of a step of one network, in seconds."""
    import keras
    import tensorflow as tf

    from dml_tf import Cohort, networks
    from dml_tf.method import optimizers

    size = run.image_size or OWN_SIZE.get(run.dataset, 32)
    shape = (*np.broadcast_to(size, 2).tolist(), CHANNELS.get(run.dataset, 3))
    cohort = Cohort([networks.build(net, num_classes=CLASSES, input_shape=shape)])
    cohort.compile([optimizers.build(config.load(dataset=run.dataset, net=(net,)), 100)])
    batch = tf.random.normal((run.batch_size, *shape)), tf.zeros(run.batch_size, tf.int64)
    step = tf.function(cohort.train_step, autograph=False)
    times = []
    for _ in range(steps + 2):
        start = time.process_time()
        step(batch)
        times.append(time.process_time() - start)
    keras.backend.clear_session()
    return statistics.median(times[2:])  # the first ones trace, and fill caches


if __name__ == "__main__":
    main(sys.argv[1:])
