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
from dml_tf.paper import scales, tables
from dml_tf.paper.cells import Contrast, Line, contrasts, in_nats
from dml_tf.paper.items import ITEMS
from dml_tf.paper.verdicts import IN_WORDS, contrast, judge
from dml_tf.runs import config, records
from dml_tf.runs.config import Config

RESULTS = home.HOME / "results"
EXPLORATORY = RESULTS / "cpu" / "exploratory"
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


def results() -> str:
    """Table 2 on photographs: each small network over its places in the pairs, and all of them."""
    folder = EXPLORATORY
    scale = scales.EXPLORATORY.available(folder)
    here = scale.data["CIFAR-10"].networks
    pairs = [line for line in contrasts(ITEMS["table2"].lines) if line.first.dataset == "CIFAR-10"]
    by_network: dict[str, list[Contrast]] = {}
    for line in pairs:
        by_network.setdefault(f"`{here[_network(line)]}`", []).append(line)
    rows = []
    for name, lines in {**by_network, "all": pairs}.items():
        dml, alone = (
            tables.measure(_mean_of([line.terms[side][0] for line in lines]), scale, folder)
            for side in (0, 1)
        )
        gain = tables.measure(_mean_of(lines), scale, folder)
        rows.append(
            {
                "network": name,
                "places in Table 2": len(lines),
                "independent, %": f"{alone['measured']:.2f}",
                "DML, %": f"{dml['measured']:.2f}",
                "difference [95% interval]": _interval(gain, 100),
                "seeds": gain["seeds"],
            }
        )
    return _markdown(rows)


def photographs() -> str:
    """Table 2 at cpu scale: its gains."""
    gains = _gains("cpu", EXPLORATORY)
    return f"{gains}\n\n    bash run_all.sh --scale=cpu --only=table2 --data_dir=FOLDER"


def digits() -> str:
    """Table 2 at mini scale, first data set: its gains."""
    return _gains("mini", RESULTS / "mini")


def claims() -> str:
    """The paper's claims, and what the records on photographs say of them."""
    folder = EXPLORATORY
    scale = scales.EXPLORATORY.available(folder)
    lines = tables.comparisons(scale, folder, tuple(ITEMS))
    rows, not_run = [], []
    here = lines[~lines.item.isin(set(scales.STUDIES) - set(scale.studies))]
    for (item, section, claim), compared in here.groupby(["item", "section", "claim"], sort=False):
        run, short = compared[compared.seeds > 0], ITEMS[item].short
        if run.empty:
            not_run.append(short)
            continue
        where = ", ".join(dict.fromkeys((f"Sec. {section}", short)))
        counts = compared.verdict.map(IN_WORDS.get).value_counts(sort=False)
        rows.append(
            {
                "the paper says": f"{claim} ({where})",
                "here": f"**{judge(run.verdict)}**",
                "comparisons": ", ".join(f"{n} {words}" for words, n in counts.items()),
                "differences, points or nats": _differences(run),
            }
        )
    names = ", ".join(dict.fromkeys(not_run))
    rest = f"\n\nNot run on photographs: what the paper claims of {names}." if names else ""
    return _markdown(rows) + rest


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
            difference = contrast([(second, 1), (first, -1)])
            rows.append(
                {
                    "setting": title if measure == ("test", "accuracy") else "",
                    "measure": label,
                    "independent": _mean_and_spread(first, factor),
                    "DML, mean of both peers": _mean_and_spread(second, factor),
                    "difference [95% interval]": _interval(difference, factor),
                    "seeds": len(shared),
                }
            )
        name = alone[shared[0]][1]["data"]
    commands = "\n".join(f"    {command}" for command in commands)
    return f"Data: {name}.\n\n{_markdown(rows)}\n\n{commands}"


def selection() -> str:
    """The validation accuracies that decided on the larger setting's learning rate."""
    rows = []
    for rate in (0.1, 0.05):
        found = _runs({**_LARGER, "learning_rate": rate}, seeds=1)
        validation = found[0][1]["validation"]["peers"]["resnet20"]["accuracy"]
        rows.append({"learning rate": rate, "validation accuracy, %": f"{100 * validation:.2f}"})
    return _markdown(rows)


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
    return _markdown(sorted(rows, key=lambda row: tuple(map(str, row.values()))))


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
                "test accuracy, %": f"{100 * _mean(record, ('test', 'accuracy')):.2f}",
            }
        )
    return _markdown(sorted(rows, key=lambda row: tuple(map(str, row.values()))))


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
        f"{_markdown(rows)}\n\n    {measured['command']}"
    )


FIGURES = {
    "results": results,
    "photographs": photographs,
    "claims": claims,
    "augmented": augmented,
    "setting": setting,
    "pilots": pilots,
    "selection": selection,
    "digits": digits,
    "protocol": protocol,
    **{
        name: partial(benchmark, name)
        for name in (
            "step",
            "input_pipeline",
            "memory",
            "throughput",
            "pytorch_step",
            "placement",
        )
    },
}


def _gains(scale: str, folder: Path) -> str:
    """Table 2's gains on what stands in CIFAR-10's place, of the pairs that were run."""
    table = pd.read_csv(folder / "table2.csv").set_index(["dataset", "row", "column"])
    here = scales.BY_NAME[scale].data["CIFAR-10"].networks
    rows = []
    for line in contrasts(ITEMS["table2"].lines):
        dml, alone = (table.loc[cell.dataset, cell.row, cell.column] for cell, _ in line.terms)
        gain = table.loc[line.first.dataset, line.row, line.column]
        if line.first.dataset != "CIFAR-10" or not gain.seeds:
            continue
        rows.append(
            {
                "in the place of": line.row,
                "network": f"`{here[_network(line)]}`, Net {line.first.of + 1}",
                "independent": f"{alone.measured:.2f} ± {alone['std']:.2f}",
                "DML": f"{dml.measured:.2f} ± {dml['std']:.2f}",
                "difference [95% interval]": _interval(gain, 100),
                "seeds": int(gain.seeds),
            }
        )
    return _markdown(rows)


def _network(line: Contrast) -> str:
    """The paper's network that gains in a line of Table 2."""
    return line.first.networks[line.first.of]


def _mean_of(lines: Sequence[Line]) -> Contrast:
    terms = tuple((cell, weight / len(lines)) for line in lines for cell, weight in line.terms)
    return Contrast("", "mean", terms)


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


def _mean_and_spread(values: Mapping[int, float], factor: int) -> str:
    digits_shown = 2 if factor == 100 else 3
    mean, std = np.mean(list(values.values())), np.std(list(values.values()), ddof=1)
    return f"{mean:.{digits_shown}f} ± {std:.{digits_shown}f}"


def _interval(line: Mapping, factor: int) -> str:
    shown = _signed(line["measured"], factor)
    if np.isnan(line["low"]):
        return f"{shown} [too few seeds]"
    return f"{shown} [{_signed(line['low'], factor)}, {_signed(line['high'], factor)}]"


def _differences(run: pd.DataFrame) -> str:
    """The range of some comparisons' differences; of values against a threshold, the values."""
    factor = 1 if in_nats(run.metric.iloc[0]) else 100
    ends = run.measured.min(), run.measured.max()
    if threshold := -run.constant.iloc[0]:
        low, high = (f"{value + threshold:.2f}" for value in ends)
        return f"none: {low} to {high}, against {threshold:g}"
    if len(run) == 1:
        return _interval(run.iloc[0], factor)
    return " to ".join(_signed(value, factor) for value in ends)


def _signed(value: float, factor: int) -> str:
    return f"{value:+.{2 if factor == 100 else 3}f}"


def _markdown(rows: Sequence[Mapping]) -> str:
    """Rows as a Markdown table, columns named by the first row's keys."""
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
