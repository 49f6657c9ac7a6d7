"""Peak memory of training by the number of peers: growth of a fresh process, of Linux.

From the repository's root: `python -m benchmarks.memory`.

Each measurement is a new process, which imports TensorFlow, notes its resident memory, builds K
peers, makes a few steps, and reports its peak above what it noted. A recorded pass keeps its
activations until its peer's update: both updates of a cohort keep those of all peers at once, the
literal Algorithm 1 those of one. `K alone` is K times a single peer's growth.
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
    asked = list(itertools.product(args.cohorts, args.kinds))
    growths: dict[tuple[int, str], list[dict]] = {case: [] for case in asked}
    for _, case in itertools.product(range(args.repeats), asked):
        growths[case].append(_in_a_fresh_process(args, *case))
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
    parser.add_argument("--net", default="resnet32", help="network of every peer")
    parser.add_argument("--cohorts", type=harness.sizes, default="1,2,3,4", help="from K = 1")
    parser.add_argument("--kinds", type=harness.names, default=",".join(KINDS), help="of a step")
    parser.add_argument("--steps", type=harness.positive, default=3, help="in each process")
    args = parser.parse_args(argv)
    if 1 not in args.cohorts or not set(args.kinds) <= set(KINDS):
        parser.error(f"--cohorts must have 1 among them; --kinds are {', '.join(KINDS)}")
    return args


def _in_a_fresh_process(args: argparse.Namespace, peers: int, kind: str) -> dict:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, args, peers, kind).result()


def measure(args: argparse.Namespace, peers: int, kind: str) -> dict:
    """Growth of this process's peak memory by building and training K peers, bytes."""
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
    """Resident memory of this process in bytes: `VmRSS` now, `VmHWM` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux.")


def compare(samples: Sequence[dict]) -> list[dict]:
    """Rows of the table; a kind's growth for one peer is the unit of its others."""
    median = {(s["peers"], s["contender"]): harness.median(s["growth_bytes"]) for s in samples}
    return [
        {
            "peers": (peers := sample["peers"]),
            "contender": (kind := sample["contender"]),
            "parameter_bytes": sample["parameter_bytes"],
            "growth_bytes": median[peers, kind],
            "growth_bytes_range": [min(sample["growth_bytes"]), max(sample["growth_bytes"])],
            "bound_bytes": peers * median[1, kind],
            "growth_over_bound": median[peers, kind] / (peers * median[1, kind]),
        }
        for sample in samples
    ]


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
