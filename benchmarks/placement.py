"""Times a simultaneous pair as two processes of a thread each against one process of two threads.

From the repository's root: `python -m benchmarks.placement`.

Three ways to make one step of two equal networks on two cores: both peers in one process, whose
TensorFlow has two threads; a peer in each of two processes of one thread, which exchange posteriors
by TensorFlow's collectives; and the same two processes without mutual learning, each its network
alone, which is the bound: the slower peer's step with nothing to exchange. The processes stay
alive and take turns, so that other load meets all ways alike. Wall-clock runs from the order to
start until the last process is done; CPU time is that of all threads of the processes at work.
"""

import argparse
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from benchmarks import harness
from dml_tf.runs import build, config, quiet

CLASSES = 100
TRAINING_IMAGES = 50_000  # CIFAR-100's: the schedule counts in epochs

# Name in the record -> row of the table, and which of the processes work.
CONTENDERS = {
    "one_process": ("one process, all threads", (0,)),
    "two_processes": ("two processes, half of the threads each", (1, 2)),
    "alone": ("the same without an exchange (bound)", (1, 2)),
}
COLUMNS = ("step", "wall-clock, ms (quartiles)", "CPU, ms", "wall-clock / one process", "/ bound")


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = parse(argv)
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
    context, ends, processes = multiprocessing.get_context("spawn"), [], []
    for place in range(3):  # the one, then the two
        ours, theirs = context.Pipe()
        processes.append(
            context.Process(target=serve, args=(theirs, args, place, addresses), daemon=True)
        )
        processes[-1].start()
        theirs.close()
        ends.append(ours)
    received = [end.recv() for end in ends][-1]
    contenders = {
        name: partial(order, name, [ends[place] for place in at_work])
        for name, (_, at_work) in CONTENDERS.items()
    }
    cpu, wall = harness.in_turns(contenders, args.repeats)
    for end, process in zip(ends, processes, strict=True):
        end.send(None)
        process.join()
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
    harness.finish(record, title, [harness.table(COLUMNS, map(_cells, record["rows"]))], args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("placement", __doc__, repeats=16)
    parser.add_argument("--net", default="resnet32", help="a network's name")
    parser.set_defaults(threads=2)
    args = parser.parse_args(argv)
    if args.threads % 2:
        parser.error(f"--threads={args.threads} cannot be shared by two processes")
    return args


def serve(connection: Connection, args: argparse.Namespace, place: int, addresses: list[str]):
    """One process: makes steps when it is told to, and says how long they took."""
    if place:
        cluster = {"worker": addresses}
        task = {"type": "worker", "index": place - 1}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    quiet.import_tensorflow(threads=args.threads // 2 if place else args.threads)
    calls, received = contenders(args, bool(place))
    connection.send(received)
    while name := connection.recv():
        before = time.process_time()
        calls[name]()
        connection.send(time.process_time() - before)


def contenders(args: argparse.Namespace, is_worker: bool) -> tuple[dict[str, Callable], int]:
    """What a process does: name -> a call that makes one step; and the bytes that it receives."""
    import tensorflow as tf

    from dml_tf import data
    from dml_tf.runs.parallel import placement

    pair = config.load(
        dataset="cifar100", net=(args.net,), cohort=2, update="simultaneous",
        batch_size=args.batch_size, placement="peers" if is_worker else "one",
    )  # fmt: skip
    here = placement.arrange(pair)
    # Noise: what images show does not change a step's work. No memory is taken for all of them.
    shape = (args.image_size, args.image_size, 3)
    pixels = np.broadcast_to(np.zeros((), np.uint8), (TRAINING_IMAGES, *shape))
    split = data.Split(pixels, np.zeros(TRAINING_IMAGES, np.int64))
    names = tuple(map(str, range(CLASSES)))
    splits = data.Splits("noise", split, None, split, CLASSES, names, np.ones(3), np.ones(3))
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(args.batch_size, *shape)).astype("float32"))
    labels = tf.constant(rng.integers(CLASSES, size=args.batch_size))

    def step(cohort) -> Callable:
        return tf.function(cohort.train_step, autograph=False).get_concrete_function(
            (images, labels)
        )

    cohort = build.build_cohort(pair, splits, here)
    received = here.bytes_per_step(cohort, args.batch_size, CLASSES)
    together = step(cohort)
    if not is_worker:
        return {"one_process": lambda: together((images, labels))}, received
    single = pair.replace(placement="one", cohort=1, net=(args.net,), method="independent")
    alone = step(build.build_cohort(single, splits))
    calls = {"two_processes": lambda: together((images, labels))}
    return calls | {"alone": lambda: alone((images, labels))}, received


def order(name: str, ends: Sequence[Connection]) -> tuple[float, float]:
    """CPU time and wall-clock, in seconds, of a step that some of the processes make."""
    started = time.perf_counter()
    for end in ends:
        end.send(name)
    return sum(end.recv() for end in ends), time.perf_counter() - started


def compare(name: str, cpu: harness.Samples, wall: harness.Samples) -> dict:
    """Row of the table: medians, and the medians of the ratios within a repeat."""
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
