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
import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from dml_tf import config, records, startup

CLASSES = 100
TRAINING_IMAGES = 50_000  # CIFAR-100's: the schedule counts in epochs

# Name in the record -> row of the table, and which of the processes work.
CONTENDERS = {
    "one_process": ("one process, two threads", (0,)),
    "two_processes": ("two processes, a thread each", (1, 2)),
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
    facts = [end.recv() for end in ends][-1]
    samples = measure(args, ends)
    for end, process in zip(ends, processes, strict=True):
        end.send(None)
        process.join()
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.placement", *argv]),
        **facts,
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        "rows": compare(samples),
        "samples": samples,
    }
    print(markdown(record))
    records.write(record, args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser("python -m benchmarks.placement", description=__doc__)
    parser.add_argument("--net", default="resnet32", help="a network's name")
    parser.add_argument("--batch_size", type=int, default=64, help="images")
    parser.add_argument("--image_size", type=int, default=32, help="side in pixels")
    parser.add_argument("--repeats", type=int, default=16, help="timed steps of each kind")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/benchmarks/placement.json"),
        help="JSON file for the record",
    )
    return parser.parse_args(argv)


def serve(connection: Connection, args: argparse.Namespace, place: int, addresses: list[str]):
    """One process: makes steps when it is told to, and says how long they took."""
    if place:
        cluster = {"worker": addresses}
        task = {"type": "worker", "index": place - 1}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    startup.import_tensorflow(threads=1 if place else 2)
    calls, received = contenders(args, bool(place))
    for call in calls.values():
        call()  # traces, and fills caches

    from dml_tf import train

    machine, versions = train.machine(), train._versions()
    connection.send({"machine": machine, "versions": versions, "bytes_per_step": received})
    while name := connection.recv():
        before = time.process_time()
        calls[name]()
        connection.send(time.process_time() - before)


def contenders(args: argparse.Namespace, is_worker: bool) -> tuple[dict[str, Callable], int]:
    """What a process does: name -> a call that makes one step; and the bytes that it receives."""
    import tensorflow as tf

    from dml_tf import data, placement, train

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

    cohort = train.build_cohort(pair, splits, here)
    received = here.bytes_per_step(cohort, args.batch_size, CLASSES)
    together = step(cohort)
    if not is_worker:
        return {"one_process": lambda: together((images, labels))}, received
    single = pair.replace(placement="one", cohort=1, net=(args.net,), method="independent")
    alone = step(train.build_cohort(single, splits))
    calls = {"two_processes": lambda: together((images, labels))}
    return calls | {"alone": lambda: alone((images, labels))}, received


def measure(args: argparse.Namespace, ends: Sequence[Connection]) -> list[dict]:
    """Times every contender once in each repeat; seconds."""
    samples, names = [], list(CONTENDERS)
    for repeat in range(args.repeats):
        first = repeat % len(names)  # another one each time: no place in the round helps anyone
        for name in names[first:] + names[:first]:
            at_work = [ends[place] for place in CONTENDERS[name][1]]
            started = time.perf_counter()
            for end in at_work:
                end.send(name)
            cpu = sum(end.recv() for end in at_work)
            wall = time.perf_counter() - started
            samples.append({"repeat": repeat, "contender": name, "wall_s": wall, "cpu_s": cpu})
    return samples


def compare(samples: list[dict]) -> list[dict]:
    """Rows of the table: medians, and the medians of the ratios within a repeat."""

    def seconds(clock: str) -> dict[str, np.ndarray]:
        return {
            name: np.array([s[clock] for s in samples if s["contender"] == name])
            for name in CONTENDERS
        }

    wall, cpu = seconds("wall_s"), seconds("cpu_s")
    return [
        {
            "contender": name,
            "wall_s": float(np.median(wall[name])),
            "wall_s_quartiles": np.quantile(wall[name], [0.25, 0.75]).tolist(),
            "cpu_s": float(np.median(cpu[name])),
            "wall_ratio": float(np.median(wall[name] / wall["one_process"])),
            "wall_ratio_to_bound": float(np.median(wall[name] / wall["alone"])),
        }
        for name in CONTENDERS
    ]


def markdown(record: dict) -> str:
    """The table of a record, with the machine, the versions and the command."""
    settings = record["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [COLUMNS, ["---:"] * len(COLUMNS), *map(_cells, record["rows"])]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return (
        f"A simultaneous pair of {settings['net']}, batch {settings['batch_size']}, "
        f"{settings['image_size']}x{settings['image_size']}; medians of {settings['repeats']} "
        f"interleaved repeats. Each process receives {record['bytes_per_step']:,} bytes a step.\n\n"
        f"{record['machine']}; {versions}.\n\n`{record['command']}`\n\n{table}"
    )


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
