"""Times the training step of mutual learning in dml_tf and in PyTorch.

Example, from the root of the repository:
  python -m pip install -r requirements-benchmarks.txt
  python -m benchmarks.pytorch_step --nets=resnet32

Both libraries have the same networks, batch, threads and optimizer, and train on noise. Each has
its own process, which waits while the other is timed; they take turns. The PyTorch step is written
in two forms: with recorded passes as in dml_tf, and plainly, with one pass for each prediction and
each gradient. Each form is timed in both memory formats of PyTorch, and in channels-last format
under bfloat16 autocast, beside our step in mixed bfloat16.
"""

import argparse
import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks import harness

CLASSES = 100
_HALF = "_bfloat16"
_TORCH_KINDS = {
    "independent": "PyTorch, independent",
    "cheap": "PyTorch, Algorithm 1, recorded passes",
    "plain": "PyTorch, Algorithm 1, plainly",
}
# Name in the record -> row of the table.
_OUR_KINDS = {"independent": "dml_tf, independent", "sequential": "dml_tf, Algorithm 1"}
CONTENDERS = {
    **{f"tf_{kind}": title for kind, title in _OUR_KINDS.items()},
    **{f"tf_{kind}{_HALF}": f"{title}, bfloat16" for kind, title in _OUR_KINDS.items()},
    **{f"torch_{kind}": title for kind, title in _TORCH_KINDS.items()},
    **{f"torch_{kind}_nhwc": f"{title}, channels last" for kind, title in _TORCH_KINDS.items()},
    **{
        f"torch_{kind}{_HALF}": f"{title}, channels last, bfloat16"
        for kind, title in _TORCH_KINDS.items()
    },
}
COLUMNS = ("network", "K", "step", "CPU, ms", "wall-clock, ms", "dml_tf / it, CPU", "wall-clock")


def main(argv: Sequence[str]) -> int:
    """Measures, prints the table and writes the record; 1 without PyTorch."""
    args = parse(argv)
    if importlib.util.find_spec("torch") is None:
        print(
            "PyTorch is not installed: python -m pip install -r requirements-benchmarks.txt",
            file=sys.stderr,
        )
        return 1
    samples = {net: measure(args, net) for net in args.nets}
    record = harness.record(
        "pytorch_step",
        argv,
        args,
        versions={"torch": importlib.metadata.version("torch")},
        rows=[row for net in samples for row in compare(net, args.peers, *samples[net])],
        samples=[{"net": n, "cpu_s": cpu, "wall_s": wall} for n, (cpu, wall) in samples.items()],
    )
    table = harness.table(COLUMNS, map(_cells, record["rows"]))
    harness.finish(record, "The same step in TensorFlow and PyTorch", [table], args.out)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("pytorch_step", __doc__, repeats=16)
    parser.add_argument(
        "--nets", type=_nets, default="resnet32,mobilenet", help="resnet<6n+2> or mobilenet"
    )
    parser.add_argument("--peers", type=harness.positive, default=2, help="number of peers K")
    return parser.parse_args(argv)


def _nets(text: str) -> list[str]:
    nets = harness.names(text)
    for net in nets:
        if not re.fullmatch(r"resnet\d+(:\d+)?|mobilenet(:[\d.]+)?", net):
            raise argparse.ArgumentTypeError(f"{net!r} is neither resnet<6n+2> nor mobilenet")
    return nets


def measure(args: argparse.Namespace, net: str) -> tuple[harness.Samples, harness.Samples]:
    """CPU time and wall-clock of every contender on one network, in seconds."""
    with _library("tf", args, net) as ours, _library("torch", args, net) as theirs:
        sides = {"tf": ours, "torch": theirs}
        sizes = [side.submit(_parameters).result() for side in sides.values()]
        if sizes[0] != sizes[1]:
            raise RuntimeError(f"{net} has {sizes[0]} parameters in dml_tf, {sizes[1]} in PyTorch.")
        ask = {name: sides[name.partition("_")[0]] for name in CONTENDERS}
        contenders = {name: partial(_ask, side, name) for name, side in ask.items()}
        return harness.in_turns(contenders, args.repeats)


def _library(library: str, args: argparse.Namespace, net: str) -> ProcessPoolExecutor:
    """A new process for one library."""
    spawn = multiprocessing.get_context("spawn")
    prepare = {"tf": _prepare_tf, "torch": _prepare_torch}[library]
    return ProcessPoolExecutor(1, spawn, initializer=prepare, initargs=(args, net))


def _ask(side: ProcessPoolExecutor, name: str) -> tuple[float, float]:
    return side.submit(_time, name).result()


_prepared: dict = {}  # in a library's process: the steps, and the network's parameters


def _prepare_torch(args: argparse.Namespace, net: str):
    from benchmarks import pytorch_cohort

    _prepared["parameters"], _prepared["calls"] = pytorch_cohort.prepare(
        net,
        peers=args.peers,
        batch_size=args.batch_size,
        image_size=args.image_size,
        classes=CLASSES,
        threads=args.threads,
    )


def _prepare_tf(args: argparse.Namespace, net: str):
    import keras

    from benchmarks import step
    from dml_tf import networks
    from dml_tf.runs import quiet

    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # both are measured on the processor
    quiet.import_tensorflow(args.threads)
    args.net = net
    batch = step.make_batch(args)
    _prepared["parameters"] = networks.count_parameters(step.build(args, 1).networks[0])
    _prepared["calls"] = {}
    for suffix, policy in (("", "float32"), (_HALF, "mixed_bfloat16")):
        keras.config.set_dtype_policy(policy)
        for kind in _OUR_KINDS:
            call = step.contender(args, args.peers, batch, kind)
            _prepared["calls"][f"tf_{kind}{suffix}"] = call


def _parameters() -> int:
    return _prepared["parameters"]


def _time(name: str) -> tuple[float, float]:
    return harness.timed(_prepared["calls"][name])


def compare(net: str, peers: int, cpu: harness.Samples, wall: harness.Samples) -> list[dict]:
    """Rows of the table for one network; a ratio is the median of the ratios within a repeat."""
    return [
        {
            "net": net,
            "peers": peers,
            "contender": name,
            "cpu_s": harness.median(cpu[name]),
            "wall_s": harness.median(wall[name]),
            "ours_cpu_ratio": harness.median(harness.ratios(cpu, _ours(name), name)),
            "ours_wall_ratio": harness.median(harness.ratios(wall, _ours(name), name)),
        }
        for name in CONTENDERS
    ]


def _ours(name: str) -> str:
    """The dml_tf step with which a contender is compared: of its kind and precision."""
    kind = "independent" if "independent" in name else "sequential"
    return f"tf_{kind}{_HALF if name.endswith(_HALF) else ''}"


def _cells(row: dict) -> list[str]:
    return [
        row["net"],
        str(row["peers"]),
        CONTENDERS[row["contender"]],
        f"{1000 * row['cpu_s']:.1f}",
        f"{1000 * row['wall_s']:.1f}",
        f"{row['ours_cpu_ratio']:.3f}",
        f"{row['ours_wall_ratio']:.3f}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
