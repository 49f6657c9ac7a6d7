"""Measures images a second in training, for each of the paper's networks, alone and in a pair.

Example, from the root of the repository:
  python -m benchmarks.throughput --nets=resnet32,mobilenet

Whole training steps are timed on prepared batches, without the input pipeline. In a pair, each
image trains both networks. A backward pass counts as two forward passes. Then a pair makes 7 passes
in Algorithm 1, and two networks alone make 6: the bound of the ratio of their CPU times is 7/6.
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
    parser.add_argument("--nets", type=harness.networks_list, default=nets, help=networks.NAMES)
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, net: str) -> dict:
    """CPU time and wall-clock of one network's step and of a pair's, in seconds."""
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
    """Row of the table; a ratio is the median of the ratios within a repeat."""
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
