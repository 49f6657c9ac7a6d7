"""Writes the measured tables of the Markdown files from the records in `results/`.

    python -m docs.figures [--check]

A table stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`, in README.md,
docs/*.md, results/cpu/README.md or benchmarks/README.md. With `--check` nothing is written, and the
exit status is 1 if a table differs from the records.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from dml_tf import home
from dml_tf.atomic import write_text
from dml_tf.paper import plan, scales, statistics
from dml_tf.runs import config, records
from dml_tf.runs.config import Config
from docs import beyond_accuracy, evidence, formats, studies
from docs.evidence import EXPLORATORY

RESULTS = home.HOME / "results"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

_AUGMENTED = {
    "net": ("resnet8:16",),
    "train_images": 1000,
    "epochs": 80,
    "decay_epochs": 24,
    "augment": "crop_flip",
}
_LARGER = {
    "net": ("resnet20",),
    "augment": "crop_flip",
    "image_size": 0,
    "train_images": 5000,
    "epochs": 24,
    "decay_epochs": 7,
    "validation_fraction": 0.1,
}
# Title -> flags of the independent run; the DML run is a pair of the same network.
SETTINGS = {
    "1,000 images, 16x16, ResNet-8, with crops and flips": _AUGMENTED,
    "5,000 images, 32x32, ResNet-20, with crops and flips": _LARGER,
}
PEDESTRIANS = ("table3", "table5", "figure2b", "figure6b")  # items that run on them at cpu scale
# Part and measure in the record -> name in the table, and the factor from record to table.
_MEASURES = {
    ("test", "accuracy"): ("test accuracy, %", 100),
    ("test", "cross_entropy"): ("test cross-entropy, nats", 1),
    ("test", "entropy"): ("test posterior entropy, nats", 1),
    ("train", "accuracy"): ("training accuracy, %", 100),
}


def main(argv: Sequence[str]) -> int:
    """Writes the tables, or checks them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if stale")
    options = parser.parse_args(argv)
    stale = False
    for file in markdown_files():
        text = file.read_text(encoding="utf-8")
        if fill(text) != text:
            stale = True
            if not options.check:
                write_text(file, fill(text))
    return int(options.check and stale)


def markdown_files() -> list[Path]:
    """The files that have tables to fill."""
    places = (
        home.HOME / "README.md",
        *sorted((home.HOME / "docs").glob("*.md")),
        RESULTS / "cpu" / "README.md",
        home.HOME / "benchmarks" / "README.md",
    )
    return [file for file in places if _BLOCK.search(file.read_text(encoding="utf-8"))]


def fill(text: str) -> str:
    """A text with its tables computed again."""
    return _BLOCK.sub(lambda m: f"{m[1]}{FIGURES[m[2]]()}\n{m[3]}", text)


def augmented() -> str:
    """Independent training and DML with crops and flips: mean, spread and paired difference."""
    rows, commands = [], []
    for title, flags in SETTINGS.items():
        alone, pair = _runs(flags), _runs({**flags, "cohort": 2})
        shared = sorted(alone.keys() & pair.keys())
        commands += [f"{_command(runs, shared)}" for runs in (alone, pair)]
        for measure, (label, factor) in _MEASURES.items():
            first, second = (
                {seed: factor * _mean(runs[seed][1], measure) for seed in shared}
                for runs in (alone, pair)
            )
            difference = statistics.summary({seed: second[seed] - first[seed] for seed in shared})
            places = 2 if factor == 100 else 3
            rows.append(
                {
                    "setting": title if measure == ("test", "accuracy") else "",
                    "measure": label,
                    "independent": formats.mean_and_spread(list(first.values()), places),
                    "DML, mean of both peers": formats.mean_and_spread(
                        list(second.values()), places
                    ),
                    "difference [95% interval]": formats.interval(difference, places),
                    "seeds": len(shared),
                }
            )
        name = alone[shared[0]][1]["data"]
    commands = "\n".join(f"    {command}" for command in commands)
    return f"Data: {name}.\n\n{formats.markdown(rows)}\n\n{commands}"


def selection() -> str:
    """The validation accuracies that decided on the larger setting's learning rate."""
    rows = []
    for rate in (0.1, 0.05):
        found = _runs({**_LARGER, "learning_rate": rate}, seeds=1)
        validation = found[0][1]["validation"]["peers"]["resnet20"]["accuracy"]
        rows.append({"learning rate": rate, "validation accuracy, %": f"{100 * validation:.2f}"})
    return formats.markdown(rows)


def setting() -> str:
    """The six candidates for the cpu scale's setting, with the accuracies that decided."""
    rows = []
    for file in sorted((EXPLORATORY / "selection" / "runs").glob("*.json")):
        record = records.read(file)
        run = record["config"]
        train, validation = (
            100 * _mean(record, (part, "accuracy")) for part in ("train", "validation")
        )
        rows.append(
            {
                "images": run["train_images"],
                "epochs": run["epochs"],
                "augmentation": run["augment"],
                "training accuracy, %": f"{train:.2f}",
                "validation accuracy, %": f"{validation:.2f}",
            }
        )
    return formats.markdown(sorted(rows, key=lambda row: tuple(map(str, row.values()))))


def pilots() -> str:
    """Runs, also of DML, that were made before the cpu scale's setting was chosen."""
    rows = []
    for file in sorted((EXPLORATORY / "pilots" / "runs").glob("*.json")):
        record = records.read(file)
        run = record["config"]
        rows.append(
            {
                "images": run["train_images"],
                "epochs": run["epochs"],
                "augmentation": run["augment"],
                "seed": run["seed"],
                "method": run["method"],
                "training accuracy, %": f"{100 * _mean(record, ('train', 'accuracy')):.2f}",
                "test accuracy, %": f"{100 * _mean(record, ('test', 'accuracy')):.2f}",
            }
        )
    return formats.markdown(sorted(rows, key=lambda row: tuple(map(str, row.values()))))


def precision() -> str:
    """Accuracy and speed of pairs in float32 and in mixed bfloat16, paired by seed."""
    found: dict[tuple[str, str], dict[int, dict]] = {}
    for file in sorted((RESULTS / "cpu" / "precision" / "runs").glob("*.json")):
        record = records.read(file)
        run = record["config"]
        found.setdefault((record["data"], run["precision"]), {})[run["seed"]] = record
    rows = []
    for name in sorted({name for name, _ in found}):
        plain, half = (found[name, kind] for kind in ("float32", "mixed_bfloat16"))
        shared = sorted(plain.keys() & half.keys())
        accuracies = [
            {seed: 100 * _mean(runs[seed], ("test", "accuracy")) for seed in shared}
            for runs in (plain, half)
        ]
        difference = {seed: accuracies[1][seed] - accuracies[0][seed] for seed in shared}
        ratios = [half[seed]["cpu_s"] / plain[seed]["cpu_s"] for seed in shared]
        rows.append(
            {
                "data": name,
                "float32": formats.mean_and_spread(list(accuracies[0].values())),
                "bfloat16": formats.mean_and_spread(list(accuracies[1].values())),
                "difference [95% interval]": formats.interval(statistics.summary(difference)),
                "CPU time, ratio": f"{np.median(ratios):.2f}",
                "seeds": len(shared),
            }
        )
    return formats.markdown(rows)


def spread() -> str:
    """How many seeds would decide re-identification on generated pedestrians, and their cost."""
    found: dict[str, dict[int, dict]] = {"independent": {}, "dml": {}}
    for file in sorted((RESULTS / "spread" / "runs").glob("pedestrians-*.json")):
        record = records.read(file)
        found[record["config"]["method"]][record["config"]["seed"]] = record
    alone, pair = found["independent"], found["dml"]
    shared = sorted(alone.keys() & pair.keys())
    if len(shared) < 2:
        return formats.markdown([])
    runs = plan.runs(scales.BY_NAME["cpu"], PEDESTRIANS, results_dir="results")
    runs = [run for run in runs if run.dataset == "pedestrians"]
    seconds = [r["cpu_s"] / r["steps"] for r in (*alone.values(), *pair.values())]
    each = sum(run.steps for run in runs) / len({run.seed for run in runs})  # steps of a seed
    hours = each * np.mean(seconds) / 3600
    paper = pd.read_csv(RESULTS / "paper.csv").set_index(["item", "row", "metric"])["value"]
    rows = []
    for metric, name in (("mAP", "single-query mAP"), ("rank1", "single-query rank-1")):
        gains = {s: 100 * (_mean(pair[s], ("test", metric)) - _mean(alone[s], ("test", metric)))
                 for s in shared}  # fmt: skip
        gain = statistics.summary(gains)
        printed = [float(paper["table3", row, metric]) for row in ("MobileNet, DML", "MobileNet")]
        needed = statistics.seeds_to_show(gain["std"], printed[0] - printed[1])
        seeds = max(needed, statistics.FEWEST_SEEDS)
        rows.append(
            {
                "DML less independent": name,
                "here [95% interval]": formats.interval(gain),
                "spread over seeds": f"{gain['std']:.2f}",
                "seeds": len(shared),
                "in the paper": f"{printed[0] - printed[1]:+.2f}",
                "seeds that show the paper's": needed,
                "core-hours of all four items": f"{hours * seeds:.1f} ({seeds} seeds)",
            }
        )
    first, last = shared[0], shared[-1]
    commands = [f"    {r[first]['command']} --seed={first}  # to {last}" for r in (alone, pair)]
    return "\n".join([formats.markdown(rows), "", *commands])


def benchmark(name: str) -> str:
    """What a benchmark printed when its record was written."""
    return "\n".join(records.read(RESULTS / "benchmarks" / f"{name}.json")["printed"])


def protocol() -> str:
    """The cost of the re-identification protocol at Market-1501's size."""
    measured = records.read(RESULTS / "benchmarks" / "reid.json")
    rows = [
        {
            "gallery": f"{row['gallery']:,}",
            "dimensions": row["dim"],
            "features": row["features"],
            "method": row["method"],
            "CPU, s": f"{row['cpu_s']:.2f}",
            "minus the product, s": f"{row['cpu_s_less_product']:.2f}",
            "peak memory, MB": f"{row['peak_mb']:.0f}",
        }
        for row in measured["rows"]
    ]
    return (
        f"Medians of {measured['repeats']} interleaved repeats, {measured['machine']}.\n\n"
        f"{formats.markdown(rows)}\n\n    {measured['command']}"
    )


FIGURES = {
    **evidence.FIGURES,
    **beyond_accuracy.FIGURES,
    **studies.FIGURES,
    "augmented": augmented,
    "setting": setting,
    "pilots": pilots,
    "selection": selection,
    "precision": precision,
    "protocol": protocol,
    "spread": spread,
    **{
        name: partial(benchmark, name)
        for name in (
            "step",
            "input_pipeline",
            "decoding",
            "data_memory",
            "memory",
            "market1501_memory",
            "throughput",
            "pytorch_step",
            "placement",
            "run_time",
            "sweep_time",
        )
    },
}


def _runs(flags: Mapping, seeds: int = 20) -> dict[int, tuple[Config, dict]]:
    """Seed -> config and record, of the runs that have records."""
    found = {}
    for seed in range(seeds):
        run = config.load(
            dataset="cifar10", scale="cpu", seed=seed, results_dir=str(EXPLORATORY), **flags
        )
        if record := records.find(run):
            found[seed] = (run, record)
    return found


def _command(runs: Mapping[int, tuple[Config, dict]], seeds: Sequence[int]) -> str:
    command = runs[seeds[0]][0].replace(seed=0).command
    return f"{command} --data_dir=FOLDER --seed={seeds[0]}  # to {seeds[-1]}"


def _mean(record: dict, measure: tuple[str, str]) -> float:
    """Mean of a measure over a record's peers."""
    part, name = measure
    return float(np.mean([peer[name] for peer in record[part]["peers"].values()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
