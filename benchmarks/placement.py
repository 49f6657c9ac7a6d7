"""Times one step of a simultaneous pair, in one process and in two processes.

Example, from the root of the repository:
  python -m benchmarks.placement --net=resnet32 --threads=2

There are three ways to make one step of two equal networks:
1. both peers in one process, with all threads;
2. one peer in each of two processes, with half of the threads each. The processes exchange
   posteriors by TensorFlow's collectives;
3. the same two processes without mutual learning. This is the bound: nothing is exchanged.

The processes stay alive and take turns, so that other load on the machine meets all three ways.
Wall-clock is measured from the order to start until the last process is done. CPU time is that of
all threads of the processes at work.
"""

import argparse
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from benchmarks import harness
from dml_tf.data import Split, Splits
from dml_tf.runs import config, quiet

CLASSES = 100
TRAINING_IMAGES = 50_000  # of CIFAR-100: the schedule counts in epochs

# Name in the record -> row of the table, and the processes that work.
CONTENDERS = {
    "one_process": ("one process, all threads", (0,)),
    "two_processes": ("two processes, half of the threads each", (1, 2)),
    "alone": ("the same without an exchange (bound)", (1, 2)),
}
COLUMNS = ("step", "wall-clock, ms (quartiles)", "CPU, ms", "wall-clock / one process", "/ bound")


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = parse(argv)
    with processes(args) as ends:
        received = [end.recv() for end in ends][-1]
        contenders = {
            name: partial(order, name, [ends[place] for place in at_work])
            for name, (_, at_work) in CONTENDERS.items()
        }
        cpu, wall = harness.in_turns(contenders, args.repeats)
    record = harness.record(
        "placement",
        argv,
        args,
        bytes_per_step=received,
        rows=[compare(name, cpu, wall) for name in CONTENDERS],
        samples={"cpu_s": cpu, "wall_s": wall},
    )
    title = (
        f"A simultaneous pair of {args.net}, of which each process receives {received:,} bytes a "
        "step"
    )
    table = harness.table(COLUMNS, map(_cells, record["rows"]))
    harness.finish(record, title, [table], args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("placement", __doc__, repeats=16)
    parser.add_argument(
        "--net", type=harness.network, default="resnet32", help="network of both peers"
    )
    parser.set_defaults(threads=2)
    args = parser.parse_args(argv)
    if args.threads % 2:
        parser.error(f"--threads={args.threads} is odd: two processes share the threads evenly")
    return args


@contextmanager
def processes(args: argparse.Namespace) -> Iterator[list[Connection]]:
    """Context with three running processes: the one, then the two; yields their connections."""
    spawn, addresses, ends, started = multiprocessing.get_context("spawn"), _addresses(), [], []
    for place in range(3):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=serve, args=(theirs, args, place, addresses), daemon=True)
        process.start()
        theirs.close()
        ends.append(ours)
        started.append(process)
    yield ends
    for end, process in zip(ends, started, strict=True):
        end.send(None)
        process.join()


def _addresses() -> list[str]:
    """Two free addresses of this machine."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]


def serve(connection: Connection, args: argparse.Namespace, place: int, addresses: list[str]):
    """Work of one process: makes each step that it receives the name of, and sends its CPU time."""
    if place:
        cluster = {"worker": addresses}
        task = {"type": "worker", "index": place - 1}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the times are of a processor
    quiet.import_tensorflow(threads=args.threads // 2 if place else args.threads)
    calls, received = contenders(args, bool(place))
    connection.send(received)
    while name := connection.recv():
        before = time.process_time()
        calls[name]()
        connection.send(time.process_time() - before)


def contenders(args: argparse.Namespace, is_worker: bool) -> tuple[dict[str, Callable], int]:
    """Name -> function that makes one step in this process; and the bytes that it receives."""
    from benchmarks import step
    from dml_tf.runs.build import build_cohort
    from dml_tf.runs.parallel import placement

    pair = config.load(
        dataset="cifar100", net=(args.net,), cohort=2, update="simultaneous",
        batch_size=args.batch_size, placement="peers" if is_worker else "one",
    )  # fmt: skip
    place = placement.arrange(pair)
    splits, batch = _empty_splits(args.image_size), step.make_batch(args)
    cohort = build_cohort(pair, splits, place)
    received = place.bytes_per_step(cohort, args.batch_size, CLASSES)
    together = step.traced(cohort, batch)
    if not is_worker:
        return {"one_process": together}, received
    single = pair.replace(placement="one", cohort=1, net=(args.net,), method="independent")
    alone = step.traced(build_cohort(single, splits), batch)
    return {"two_processes": together, "alone": alone}, received


def _empty_splits(size: int) -> Splits:
    """Splits of the size of CIFAR-100, for the schedule; they take no memory."""
    pixels = np.broadcast_to(np.zeros((), np.uint8), (TRAINING_IMAGES, size, size, 3))
    split = Split(pixels, np.zeros(TRAINING_IMAGES, np.int64))
    names = tuple(map(str, range(CLASSES)))
    return Splits("empty", split, None, split, CLASSES, names, np.ones(3), np.ones(3))


def order(name: str, ends: Sequence[Connection]) -> tuple[float, float]:
    """CPU time and wall-clock, in seconds, of one step by the processes at `ends`."""
    started = time.perf_counter()
    for end in ends:
        end.send(name)
    return sum(end.recv() for end in ends), time.perf_counter() - started


def compare(name: str, cpu: harness.Samples, wall: harness.Samples) -> dict:
    """Row of the table: medians, and median ratios within a repeat."""
    return {
        "contender": name,
        "wall_s": harness.median(wall[name]),
        "wall_s_quartiles": np.quantile(wall[name], [0.25, 0.75]).tolist(),
        "cpu_s": harness.median(cpu[name]),
        "wall_ratio": harness.median(harness.ratios(wall, name, "one_process")),
        "wall_ratio_to_bound": harness.median(harness.ratios(wall, name, "alone")),
    }


def _cells(row: dict) -> list[str]:
    low, high = (1000 * seconds for seconds in row["wall_s_quartiles"])
    return [
        CONTENDERS[row["contender"]][0],
        f"{1000 * row['wall_s']:.1f} ({low:.1f}-{high:.1f})",
        f"{1000 * row['cpu_s']:.1f}",
        f"{row['wall_ratio']:.3f}",
        f"{row['wall_ratio_to_bound']:.3f}",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
