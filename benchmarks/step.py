"""Times the training step of mutual learning, and compares it with independent training.

Example, from the root of the repository:
  python -m benchmarks.step --cohorts=1,2,4 --breakdown

An independent step has one forward and one backward pass for each peer. A backward pass counts as
two forward passes. Both updates of a cohort record one forward pass of each peer, which serves as
its prediction and for its gradient. The sequential update (Algorithm 1) runs each peer but the last
once more after its update. CPU time is that of all threads of this process, user and system.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from benchmarks import harness
from benchmarks.harness import Call, Samples
from dml_tf import Cohort, networks
from dml_tf.method import losses
from dml_tf.runs import config, quiet
from dml_tf.runs.build import optimizer

CLASSES = 100
TRAINING_IMAGES = 50_000  # of CIFAR-100: the schedule counts in epochs

# Name in the record -> row of the table, and the work for K peers in forward passes.
CONTENDERS = {
    "independent": ("(a) independent, one graph", lambda peers: 3 * peers),
    "separate": ("(b) independent, a graph each", lambda peers: 3 * peers),
    "simultaneous": ("simultaneous", lambda peers: 3 * peers),
    "sequential": ("sequential (Algorithm 1)", lambda peers: 4 * peers - 1),
    # One pass for each gradient and each prediction. TensorFlow drops two predictions that nothing
    # uses: the first peer's before its update, and the last peer's after its update.
    "literal": ("(c) literal Algorithm 1", lambda peers: 5 * peers - 2),
}

STEP_COLUMNS = (
    "K",
    "step",
    "CPU, ms",
    "wall-clock, ms",
    "CPU / (a) (quartiles)",
    "bound",
    "ratio / bound",
    "CPU / (b)",
    "wall-clock / (a)",
)
# Key in the record -> column: percent of (a)'s CPU time, for one peer, then for all peers.
PART_COLUMNS = {
    "forward": "forward, % of a peer's step (bound: 33.3)",
    "loss_backward": "loss and backward (66.7)",
    "metrics_optimizer": "metrics, optimizer (0)",
    "refresh": "refresh (33.3)",
    "above_bound": "sequential above its bound, % of (a)",
    "above_bound_refresh": "of which: refresh is not 33.3",
    "above_bound_mimicry": "mimicry losses",
    "above_bound_rest": "rest",
}


class Literal(Cohort):
    """Algorithm 1 as printed: one forward pass for each prediction, another for each gradient."""

    def train_step(self, data) -> dict[str, tf.Tensor]:
        """One mini-batch, `(images, labels)`; returns the metrics."""
        images, labels = data
        predictions = [_predict(network, images) for network in self.networks]
        for k, (network, sgd) in enumerate(zip(self.networks, self.optimizers, strict=True)):
            peers = predictions[:k] + predictions[k + 1 :]
            with tf.GradientTape() as tape:
                own = network(images, training=True)
                loss = self._student_loss(k, own, peers, labels, sgd.iterations)
            variables = network.trainable_variables
            sgd.apply(tape.gradient(loss, variables), variables)
            predictions[k] = _predict(network, images)
        return self.get_metrics_result()


def _predict(network: keras.Model, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """A prediction with batch statistics that leaves BatchNorm's averages unchanged."""
    with keras.StatelessScope():
        return network(images, training=True)


def main(argv: Sequence[str]):
    """Measures, prints the tables and writes the record."""
    args = parse(argv)
    quiet.import_tensorflow(args.threads)
    samples = {peers: measure(args, peers) for peers in args.cohorts}
    record = harness.record(
        "step",
        argv,
        args,
        rows=[row for peers in samples for row in compare(peers, *samples[peers])],
        breakdown=[explain(peers, samples[peers][0]) for peers in samples if args.breakdown],
        samples=[
            {"peers": peers, "cpu_s": cpu, "wall_s": wall} for peers, (cpu, wall) in samples.items()
        ],
    )
    tables = [harness.table(STEP_COLUMNS, map(_step_cells, record["rows"]))]
    if args.breakdown:
        columns = ["K", *PART_COLUMNS.values()]
        tables.append(harness.table(columns, map(_part_cells, record["breakdown"])))
    harness.finish(record, f"Training step of {args.net}", tables, args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("step", __doc__, repeats=16)
    parser.add_argument("--net", type=harness.network, default="resnet32", help=networks.NAMES)
    parser.add_argument("--cohorts", type=harness.sizes, default="1,2,4", help="numbers of peers K")
    parser.add_argument("--breakdown", action="store_true", help="also time the parts of a step")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, peers: int) -> tuple[Samples, Samples]:
    """CPU time and wall-clock of every contender and part, in seconds."""
    batch = make_batch(args)
    calls = {name: contender(args, peers, batch, name) for name in CONTENDERS}
    if args.breakdown:
        calls |= parts(args, batch)
    return harness.in_turns({name: timed(call) for name, call in calls.items()}, args.repeats)


def timed(call: Call) -> partial:
    """A function that measures a call; it waits for an accelerator to finish."""
    return partial(harness.timed, call, tf.test.experimental.sync_devices)


def make_batch(args: argparse.Namespace) -> tuple[tf.Tensor, tf.Tensor]:
    """Noise and labels of a mini-batch: what images show does not change the time."""
    rng = np.random.default_rng(0)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    images = rng.normal(size=shape).astype("float32")
    return tf.constant(images), tf.constant(rng.integers(CLASSES, size=args.batch_size))


def build(
    args: argparse.Namespace, peers: int, cohort_class: type[Cohort] = Cohort, **options
) -> Cohort:
    """A cohort of K copies of `--net` with the paper's settings for CIFAR-100 (Sec. 4.1)."""
    settings = config.load(dataset="cifar100", net=(args.net,))
    nets = [
        networks.build(
            args.net,
            num_classes=CLASSES,
            input_shape=(args.image_size, args.image_size, 3),
            weight_decay=settings.weight_decay,
            seed=k,
        )
        for k in range(peers)
    ]
    cohort = cohort_class(nets, **options)
    cohort.compile(optimizer(settings, TRAINING_IMAGES // args.batch_size))
    return cohort


def contender(args: argparse.Namespace, peers: int, batch, name: str) -> Call:
    """A function that makes one step of all peers; `name` is one of `CONTENDERS`."""
    if name == "separate":
        alone = [contender(args, 1, batch, "independent") for _ in range(peers)]
        return lambda: [call() for call in alone]
    options = {
        "independent": {"mimicry": "none"},
        "simultaneous": {"update": "simultaneous"},
        "sequential": {"update": "sequential"},
        "literal": {"cohort_class": Literal},
    }
    return traced(build(args, peers, **options[name]), batch)


def traced(cohort: Cohort, batch) -> Call:
    """A function that makes one training step of a cohort, already traced."""
    step = tf.function(cohort.train_step, autograph=False).get_concrete_function(batch)
    return lambda: step(batch)


def parts(args: argparse.Namespace, batch) -> dict[str, Call]:
    """Parts of one peer's step: refresh pass, forward pass, and forward pass with gradient."""
    images, labels = batch
    net = build(args, 1).networks[0]

    def refresh():
        with keras.StatelessScope():
            return net(images, training=True)["logits"]

    def forward():
        return net(images, training=True)["logits"]

    def gradient():
        with tf.GradientTape() as tape:
            log_q = losses.log_posterior(net(images, training=True)["logits"])
            loss = tf.add_n([losses.supervised_loss(log_q, labels), *net.losses])
        return tape.gradient(loss, net.trainable_variables)

    return {part.__name__: tf.function(part) for part in (refresh, forward, gradient)}


def compare(peers: int, cpu: Samples, wall: Samples) -> list[dict]:
    """Rows of the table for one K; a ratio is the median of the ratios within a repeat."""
    rows = []
    for name, (_, passes) in CONTENDERS.items():
        ratios, bound = harness.ratios(cpu, name, "independent"), passes(peers) / (3 * peers)
        rows.append(
            {
                "peers": peers,
                "contender": name,
                "cpu_s": harness.median(cpu[name]),
                "wall_s": harness.median(wall[name]),
                "cpu_ratio": harness.median(ratios),
                "cpu_ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
                "cpu_ratio_to_separate": harness.median(harness.ratios(cpu, name, "separate")),
                "wall_ratio": harness.median(harness.ratios(wall, name, "independent")),
                "bound": bound,
                "cpu_ratio_over_bound": harness.median(ratios) / bound,
            }
        )
    return rows


def explain(peers: int, cpu: Samples) -> dict:
    """Shares of one peer's independent step, then `above_bound` and the terms of its sum."""
    share = {
        part: peers * harness.median(harness.ratios(cpu, part, "independent"))
        for part in ("refresh", "forward", "gradient")
    }
    bound = (4 * peers - 1) / (3 * peers)
    above = harness.median(harness.ratios(cpu, "sequential", "independent")) - bound
    refresh = (peers - 1) / peers * (share["refresh"] - 1 / 3)
    mimicry = harness.median(harness.ratios(cpu, "simultaneous", "independent")) - 1
    return {
        "peers": peers,
        "forward": share["forward"],
        "loss_backward": share["gradient"] - share["forward"],
        "metrics_optimizer": 1 - share["gradient"],
        "refresh": share["refresh"],
        "above_bound": above,
        "above_bound_refresh": refresh,
        "above_bound_mimicry": mimicry,
        "above_bound_rest": above - refresh - mimicry,
    }


def _step_cells(row: dict) -> list[str]:
    low, high = row["cpu_ratio_quartiles"]
    return [
        str(row["peers"]),
        CONTENDERS[row["contender"]][0],
        f"{1000 * row['cpu_s']:.1f}",
        f"{1000 * row['wall_s']:.1f}",
        f"{row['cpu_ratio']:.3f} ({low:.3f}-{high:.3f})",
        f"{row['bound']:.3f}",
        f"{row['cpu_ratio_over_bound']:.3f}",
        f"{row['cpu_ratio_to_separate']:.3f}",
        f"{row['wall_ratio']:.3f}",
    ]


def _part_cells(row: dict) -> list[str]:
    return [str(row["peers"]), *(f"{100 * row[part]:z.1f}" for part in PART_COLUMNS)]


if __name__ == "__main__":
    main(sys.argv[1:])
