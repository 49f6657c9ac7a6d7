"""Images a second in training, alone and in a pair, for each of the paper's networks.

From the repository's root: `python -m benchmarks.throughput`.

Whole steps on images that are ready, without the input pipeline. A pair's image trains both of its
networks. A pair of equal networks by Algorithm 1 makes 7 passes for the 6 of two networks alone, a
backward pass counted as two: 7/6 of their CPU time is the bound.
"""

import argparse
import sys
from collections.abc import Sequence

import keras

from benchmarks import harness, step
from dml_tf import networks
from dml_tf.paper import scales
from dml_tf.runs import quiet

PASSES_BOUND = 7 / 6
COLUMNS = (
    "network",
    "parameters, millions",
    "alone, images/s",
    "DML pair, images/s",
    "CPU of the pair / two alone",
    "bound",
    "ratio / bound",
)


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = parse(argv)
    quiet.import_tensorflow(args.threads)
    samples = [measure(args, net) for net in args.nets]
    rows = [compare(args, sample) for sample in samples]
    record = harness.record("throughput", argv, args, rows=rows, samples=samples)
    table = harness.table(COLUMNS, map(_cells, rows))
    harness.finish(record, "Images a second in training", [table], args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("throughput", __doc__, repeats=5)
    nets = ",".join(scales.PAPER_NETWORKS.values())
    parser.add_argument("--nets", type=harness.names, default=nets, help=networks.NAMES)
    args = parser.parse_args(argv)
    try:
        for net in args.nets:
            networks.parse(net)
    except ValueError as error:
        parser.error(f"--nets: {error}")
    return args


def measure(args: argparse.Namespace, net: str) -> dict:
    """CPU time and wall-clock of a step alone and of a pair's, seconds in each repeat."""
    of_net = argparse.Namespace(**{**vars(args), "net": net})
    batch = step.make_batch(of_net)
    contenders = {
        "independent": step.timed(step.contender(of_net, 1, batch, "independent")),
        "pair": step.timed(step.contender(of_net, 2, batch, "sequential")),
    }
    cpu, wall = harness.in_turns(contenders, args.repeats)
    parameters = networks.count_parameters(step.build(of_net, 1).networks[0])
    keras.backend.clear_session()
    return {"net": net, "parameters": parameters, "cpu_s": cpu, "wall_s": wall}


def compare(args: argparse.Namespace, sample: dict) -> dict:
    """A row of the table; a ratio is the median of those within a repeat."""
    ratio = harness.median(harness.ratios(sample["cpu_s"], "pair", "independent")) / 2
    return {
        "net": sample["net"],
        "parameters": sample["parameters"],
        **{
            f"{name}_images_per_s": args.batch_size / harness.median(seconds)
            for name, seconds in sample["wall_s"].items()
        },
        "cpu_ratio": ratio,
        "bound": PASSES_BOUND,
        "cpu_ratio_over_bound": ratio / PASSES_BOUND,
    }


def _cells(row: dict) -> list[str]:
    return [
        row["net"],
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['independent_images_per_s']:.1f}",
        f"{row['pair_images_per_s']:.1f}",
        f"{row['cpu_ratio']:.3f}",
        f"{row['bound']:.3f}",
        f"{row['cpu_ratio_over_bound']:.3f}",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
