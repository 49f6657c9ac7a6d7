"""What the benchmarks share: timing in turns, flags, records and tables.

TensorFlow is imported for a network's name and for a record only: some benchmarks do without it.
"""

import argparse
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dml_tf.runs import records

Call = Callable[[], object]
Samples = dict[str, list[float]]


def timed(call: Call, finish: Call = lambda: None) -> tuple[float, float]:
    """CPU time of all threads and wall-clock, in seconds, of a call and of `finish` after it."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    finish()
    return time.process_time() - cpu, time.perf_counter() - wall


def in_turns(
    contenders: Mapping[str, Callable[[], tuple[float, float]]], repeats: int
) -> tuple[Samples, Samples]:
    """Times every contender once in each repeat, so that other load on the machine meets all.

    Args:
        contenders: Name -> function that makes one measurement, CPU time and wall-clock. It is
            called once more before the first repeat, to trace graphs and fill caches.
        repeats: Measurements of each contender.

    Returns:
        CPU time and wall-clock: for each contender, the seconds of each repeat.
    """
    for measure in contenders.values():
        measure()
    order, times = list(contenders), {name: [] for name in contenders}
    for repeat in range(repeats):
        first = repeat % len(order)  # another contender starts in each repeat
        for name in order[first:] + order[:first]:
            times[name].append(contenders[name]())
    cpu, wall = (
        {name: [round(sample[clock], 6) for sample in times[name]] for name in order}
        for clock in (0, 1)
    )
    return cpu, wall


def median(values) -> float:
    """The median as a Python number."""
    return float(np.median(values))


def ratios(samples: Samples, name: str, base: str) -> np.ndarray:
    """One contender's samples divided by another's, repeat by repeat."""
    return np.divide(samples[name], samples[base])


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that keeps the description's lines and prints the defaults."""


def parser(
    module: str, description: str, *, repeats: int, has_batches: bool = True
) -> argparse.ArgumentParser:
    """A parser with the flags that several benchmarks have.

    Args:
        module: Name of the benchmark.
        description: Its docstring.
        repeats: Default of `--repeats`.
        has_batches: Whether it trains on batches of images.

    Returns:
        The parser; the benchmark adds its own flags.
    """
    made = argparse.ArgumentParser(
        f"python -m benchmarks.{module}", description=description, formatter_class=Help
    )
    if has_batches:
        made.add_argument("--batch_size", type=positive, default=64, help="images in a batch")
        made.add_argument("--image_size", type=positive, default=32, help="height and width")
        made.add_argument("--threads", type=positive, default=1, help="threads of TensorFlow")
    made.add_argument("--repeats", type=positive, default=repeats, help="measurements of each kind")
    made.add_argument("--out", type=Path, help="JSON file to write")
    return made


def positive(text: str) -> int:
    """A flag's whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def sizes(text: str) -> list[int]:
    """A flag's comma-separated whole numbers above 0."""
    return [positive(size) for size in text.split(",")]


def names(text: str) -> list[str]:
    """A flag's comma-separated names."""
    return text.split(",")


def network(text: str) -> str:
    """A flag's name of a network."""
    from dml_tf import networks

    try:
        networks.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def networks_list(text: str) -> list[str]:
    """A flag's comma-separated names of networks."""
    return [network(name) for name in text.split(",")]


def record(module: str, argv: Sequence[str], args: argparse.Namespace, **measured) -> dict:
    """A benchmark's record: its command and settings, the machine, and what it measured."""
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{module}", *argv]),
        "machine": records.machine(),
        "versions": records.versions() | measured.pop("versions", {}),
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        **measured,
    }


def finish(record: dict, title: str, tables: Iterable[str], out: Path | None, shown: str = ""):
    """Prints a record's tables, with the machine, the versions and the command, and writes it.

    Args:
        record: As `record` makes it.
        title: What was measured.
        tables: Markdown.
        out: File of the record, if it is kept.
        shown: Which of the repeats the tables show; default: their medians.
    """
    settings = record["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    batch = ""
    if "batch_size" in settings:
        size = settings["image_size"]
        batch = f", batch {settings['batch_size']}, {size}x{size}"
    shown = shown or f"medians of {settings['repeats']} interleaved repeats"
    head = (
        f"{title}{batch}, threads: {settings['threads']}; {shown}. {record['machine']}; "
        f"{versions}.\n"
    )
    printed = "\n".join([head, *tables, f"    {record['command']}"])
    print(printed)
    if out:
        records.write(record | {"printed": printed.splitlines()}, out)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---:"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
