"""Measures the peak memory of training against the number of peers K; Linux only.

Example, from the root of the repository:
  python -m benchmarks.memory --cohorts=1,2 --kinds=sequential,literal

Each measurement has a new process. It imports TensorFlow, reads its resident memory, builds K
peers, makes a few steps, and reports how far its peak lies above the first reading. A recorded
forward pass keeps its activations until its peer's update. Both updates of a cohort therefore keep
the activations of all peers at once; the literal Algorithm 1 keeps those of one. `K alone` is K
times the growth of a single peer.
"""

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks import harness

KINDS = ("sequential", "simultaneous", "literal")
COLUMNS = ("K", "step", "parameters, MB", "peak growth, MB (range)", "growth / K alone")


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = parse(argv)
    cases = list(itertools.product(args.cohorts, args.kinds))
    growths: dict[tuple[int, str], list[dict]] = {case: [] for case in cases}
    for _, case in itertools.product(range(args.repeats), cases):
        growths[case].append(_in_a_new_process(args, *case))
    samples = [
        {
            "peers": peers,
            "contender": kind,
            "parameter_bytes": measured[0]["parameter_bytes"],
            "growth_bytes": [sample["growth_bytes"] for sample in measured],
        }
        for (peers, kind), measured in growths.items()
    ]
    record = harness.record("memory", argv, args, rows=compare(samples), samples=samples)
    table = harness.table(COLUMNS, map(_cells, record["rows"]))
    harness.finish(record, f"Peak memory of training {args.net}", [table], args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("memory", __doc__, repeats=3)
    kinds = ",".join(KINDS)
    parser.add_argument(
        "--net", type=harness.network, default="resnet32", help="network of every peer"
    )
    parser.add_argument(
        "--cohorts", type=harness.sizes, default="1,2,3,4", help="numbers of peers K, 1 included"
    )
    parser.add_argument("--kinds", type=harness.names, default=kinds, help="kinds of a step")
    parser.add_argument(
        "--steps", type=harness.positive, default=3, help="training steps of each process"
    )
    args = parser.parse_args(argv)
    if 1 not in args.cohorts:
        parser.error("--cohorts must contain 1: the others are compared with a single peer")
    if not set(args.kinds) <= set(KINDS):
        parser.error(f"--kinds must be some of {kinds}")
    return args


def _in_a_new_process(args: argparse.Namespace, peers: int, kind: str) -> dict:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, args, peers, kind).result()


def measure(args: argparse.Namespace, peers: int, kind: str) -> dict:
    """Growth of this process's peak memory while K peers are built and trained, in bytes."""
    from benchmarks import step
    from dml_tf import networks
    from dml_tf.runs import quiet

    quiet.import_tensorflow(args.threads)
    before = resident("VmRSS")
    batch = step.make_batch(args)
    call = step.contender(args, peers, batch, kind)
    for _ in range(args.steps):
        call()
    growth = resident("VmHWM") - before
    parameters = networks.count_parameters(step.build(args, 1).networks[0])
    return {"growth_bytes": growth, "parameter_bytes": 4 * peers * parameters}


def resident(field: str) -> int:
    """Resident memory of this process in bytes: `VmRSS` is the present, `VmHWM` the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}. This benchmark needs Linux.")


def compare(samples: Sequence[dict]) -> list[dict]:
    """Rows of the table; K peers are compared with K times a single peer of the same kind."""
    one = {s["contender"]: harness.median(s["growth_bytes"]) for s in samples if s["peers"] == 1}
    rows = []
    for sample in samples:
        growth = harness.median(sample["growth_bytes"])
        bound = sample["peers"] * one[sample["contender"]]
        rows.append(
            {
                "peers": sample["peers"],
                "contender": sample["contender"],
                "parameter_bytes": sample["parameter_bytes"],
                "growth_bytes": growth,
                "growth_bytes_range": [min(sample["growth_bytes"]), max(sample["growth_bytes"])],
                "bound_bytes": bound,
                "growth_over_bound": growth / bound,
            }
        )
    return rows


def _cells(row: dict) -> list[str]:
    low, high = (f"{size / 1e6:.0f}" for size in row["growth_bytes_range"])
    return [
        str(row["peers"]),
        row["contender"],
        f"{row['parameter_bytes'] / 1e6:.1f}",
        f"{row['growth_bytes'] / 1e6:.0f} ({low}-{high})",
        f"{row['growth_over_bound']:.3f}",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
