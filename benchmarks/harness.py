"""What the benchmarks share: timing in turns, flags, records and tables.

Nothing here imports TensorFlow before a record is made: some benchmarks do without it.
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
    """CPU time of all threads and wall-clock, in seconds, of a call and what it leaves undone."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    finish()
    return time.process_time() - cpu, time.perf_counter() - wall


def in_turns(
    contenders: Mapping[str, Callable[[], tuple[float, float]]], repeats: int
) -> tuple[Samples, Samples]:
    """Times every contender once in each repeat, so that other load meets all alike.

    Args:
        contenders: Name -> what makes one measurement; made once more before all others, which
            traces and fills caches.
        repeats: Measurements of each.

    Returns:
        CPU time and wall-clock: for each contender, seconds in each repeat.
    """
    for measure in contenders.values():
        measure()
    names, times = list(contenders), {name: [] for name in contenders}
    for repeat in range(repeats):
        first = repeat % len(names)  # another one each time: no place in the round helps anyone
        for name in names[first:] + names[:first]:
            times[name].append(contenders[name]())
    cpu, wall = (
        {name: [round(sample[clock], 6) for sample in times[name]] for name in names}
        for clock in (0, 1)
    )
    return cpu, wall


def median(values) -> float:
    """The median."""
    return float(np.median(values))


def ratios(samples: Samples, name: str, base: str) -> np.ndarray:
    """One contender's samples over another's, within each repeat."""
    return np.divide(samples[name], samples[base])


def parser(module: str, description: str, *, repeats: int) -> argparse.ArgumentParser:
    """Flags that the benchmarks of a step have in common."""
    made = argparse.ArgumentParser(f"python -m benchmarks.{module}", description=description)
    made.add_argument("--batch_size", type=positive, default=64, help="images")
    made.add_argument("--image_size", type=positive, default=32, help="side in pixels")
    made.add_argument("--repeats", type=positive, default=repeats, help="measurements of each kind")
    made.add_argument("--threads", type=positive, default=1, help="of each kind")
    made.add_argument("--out", type=Path, help="JSON file for the record")
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


def record(module: str, argv: Sequence[str], args: argparse.Namespace, **measured) -> dict:
    """A benchmark's record: what was asked for, where it ran, and what was measured."""
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{module}", *argv]),
        "machine": records.machine(),
        "versions": records.versions() | measured.pop("versions", {}),
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        **measured,
    }


def finish(record: dict, title: str, tables: Iterable[str], out: Path | None):
    """Prints a record's tables, with the machine, the versions and the command, and writes both."""
    from dml_tf.runs import records

    settings = record["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    head = (
        f"{title}, batch {settings['batch_size']}, {settings['image_size']}x"
        f"{settings['image_size']}, threads: {settings['threads']}; medians of "
        f"{settings['repeats']} interleaved repeats. {record['machine']}; {versions}.\n"
    )
    printed = "\n".join([head, *tables, f"    {record['command']}"])
    print(printed)
    if out:
        records.write(record | {"printed": printed.splitlines()}, out)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---:"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
