"""Measures the cost of the re-identification protocol at Market-1501's size, on one thread.

Also with the 500,000 distractors that come beside it.

Example, from the root of the repository:
  python -m benchmarks.reid --repeats=5 --out=results/benchmarks/reid.json

`dml_tf.reid.evaluate` is compared with the obvious way: all distances at once, with every row
sorted. Each identity has a random centre; its features are the centre plus noise. Little noise
stands for a good network, much noise for a poor network. The farther away the good images are, the
more images must be ranked. Times are medians of interleaved repeats. Peak memory is that of one
more call, as NumPy reports it, without the features.
"""

import itertools
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import threadpoolctl

from benchmarks import harness
from dml_tf import reid
from dml_tf.reid.gallery import blocks
from dml_tf.runs import quiet, records

DIMENSIONS = (128, 1024)
# Cosine of two images of one identity, in standard deviations of the cosine of unrelated images.
FEATURES = {"good": 3.7, "poor": 1.5}
QUERIES, IDENTITIES, CAMERAS = 3368, 750, 6
LABELLED, DISTRACTORS, JUNK = 13115, 2798, 3819
MORE_DISTRACTORS = 500_000  # Market-1501+500k
COLUMNS = (
    "gallery",
    "dim",
    "features",
    "mAP",
    "method",
    "CPU s",
    "less the product",
    "wall s",
    "peak MB",
)
FAST, PLAIN, PRODUCT = "`dml_tf.reid.evaluate`", "all distances, `argsort`", "matrix product alone"


def labels(rng: np.random.Generator, distractors: int) -> tuple[np.ndarray, ...]:
    """Pids and camids of queries and gallery; no two queries share identity and camera."""
    pairs = rng.permutation(IDENTITIES * CAMERAS)[:QUERIES]
    pids = np.concatenate([
        rng.integers(1, IDENTITIES + 1, LABELLED),
        np.full(distractors, reid.DISTRACTOR),
        np.full(JUNK, reid.JUNK),
    ])  # fmt: skip
    camids = rng.integers(CAMERAS, size=len(pids))
    return pairs // CAMERAS + 1, pairs % CAMERAS, rng.permutation(pids), camids


def features(rng: np.random.Generator, pids: np.ndarray, centres: np.ndarray, deviations: float):
    """Features `(images, dim)`, float32; each junk image and each distractor has its own centre."""
    dim = centres.shape[1]
    noise = np.float32((dim**0.5 / deviations - 1) ** 0.5)
    own = rng.standard_normal((len(pids), dim), np.float32)
    own[pids > 0] = centres[pids[pids > 0]]
    return own + noise * rng.standard_normal((len(pids), dim), np.float32)


def argsort_everything(q, q_pids, q_camids, g, g_pids, g_camids) -> dict[str, float]:
    """The protocol, the obvious way: one matrix of all distances, with every row sorted."""
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    g = g / np.linalg.norm(g, axis=1, keepdims=True)
    order = np.argsort(2 - 2 * q @ g.T, axis=1, kind="stable")
    precisions, first = [], []
    for row, pid, camid in zip(order, q_pids, q_camids, strict=True):
        same, own_camera = g_pids[row] == pid, g_camids[row] == camid
        hits = same[~(same & own_camera) & (g_pids[row] != reid.JUNK)]
        ranks = np.flatnonzero(hits)
        found = np.arange(len(ranks))
        before = np.where(ranks == 0, 1, found / np.maximum(ranks, 1))
        precisions.append(np.mean(((found + 1) / (ranks + 1) + before) / 2))
        first.append(ranks[0])
    return {"mAP": float(np.mean(precisions)), "rank1": float(np.mean(np.array(first) == 0))}


def product(q, q_pids, q_camids, g, g_pids, g_camids) -> dict[str, float]:
    """The matrix product that every way needs, in blocks as in `evaluate`."""
    for block in blocks(len(q), len(g)):
        q[block] @ g.T
    return {}


def measure(repeats: int, functions: dict[str, Callable], arguments: tuple) -> dict[str, tuple]:
    """Median CPU and wall-clock seconds, peak bytes and the result of each function."""
    calls = {name: partial(function, *arguments) for name, function in functions.items()}
    cpu, wall = harness.in_turns({n: partial(harness.timed, c) for n, c in calls.items()}, repeats)
    measured = {}
    for name, call in calls.items():
        tracemalloc.start()
        result = call()
        measured[name] = (
            harness.median(cpu[name]),
            harness.median(wall[name]),
            tracemalloc.get_traced_memory()[1],
            result,
        )
        tracemalloc.stop()
    return measured


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = harness.parser("reid", __doc__, repeats=5, has_batches=False).parse_args(argv)
    quiet.import_tensorflow(threads=1)  # for the machine's name
    machine = f"{records.machine()}, one thread, NumPy {np.__version__}"
    print(f"{QUERIES:,} queries; {machine}; medians of {args.repeats}.\n")
    rows = []
    for dim, kind in itertools.product(DIMENSIONS, FEATURES):
        rows += compare(dim, kind, DISTRACTORS, (PRODUCT, FAST, PLAIN), args.repeats)
    for kind in FEATURES:
        rows += compare(
            DIMENSIONS[0], kind, DISTRACTORS + MORE_DISTRACTORS, (PRODUCT, FAST), args.repeats
        )
    print(harness.table(COLUMNS, map(_cells, rows)))
    if args.out:
        record = harness.record("reid", argv, args, repeats=args.repeats, rows=rows)
        records.write(record | {"machine": machine}, args.out)


def compare(
    dim: int, kind: str, distractors: int, methods: Sequence[str], repeats: int
) -> list[dict]:
    """Rows of the table: some methods on the same features."""
    rng = np.random.default_rng(0)
    q_pids, q_camids, g_pids, g_camids = labels(rng, distractors)
    centres = rng.standard_normal((IDENTITIES + 1, dim), np.float32)
    q = features(rng, q_pids, centres, FEATURES[kind])
    g = features(rng, g_pids, centres, FEATURES[kind])
    functions = {PRODUCT: product, FAST: reid.evaluate, PLAIN: argsort_everything}
    asked = {method: functions[method] for method in methods}
    measured = measure(repeats, asked, (q, q_pids, q_camids, g, g_pids, g_camids))
    found = [result["mAP"] for _, _, _, result in measured.values() if result]
    if max(found) - min(found) > 1e-5:  # other blocks round differently: a few ranks change
        raise RuntimeError(f"The methods disagree: mAP {found}.")
    return [
        {
            "gallery": len(g),
            "dim": dim,
            "features": kind,
            "method": method,
            "mAP": found[0],
            "cpu_s": cpu,
            "cpu_s_less_product": cpu - measured[PRODUCT][0],
            "wall_s": wall,
            "peak_mb": peak / 1e6,
        }
        for method, (cpu, wall, peak, _) in measured.items()
    ]


def _cells(row: dict) -> list[str]:
    return [
        f"{row['gallery']:,}",
        str(row["dim"]),
        row["features"],
        f"{100 * row['mAP']:.1f}%",
        row["method"],
        f"{row['cpu_s']:.2f}",
        f"{row['cpu_s_less_product']:.2f}",
        f"{row['wall_s']:.2f}",
        f"{row['peak_mb']:.0f}",
    ]


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(1):
        main(sys.argv[1:])
