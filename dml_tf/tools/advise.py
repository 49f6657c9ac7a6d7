"""Compares ways to get one good network from your own pictures, within a time.

Trained are, each with the same amount of computing and with the same seeds: the network alone; two
networks that learn from each other; a student of a larger, frozen teacher; a student of an ensemble
of two. Teachers' training counts. They are compared on validation images; test images are not used.
"""

import argparse
import json
import math
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dml_tf.data import REID_DATASETS, Splits
from dml_tf.errors import FlagError, exit_status
from dml_tf.paper.statistics import FEWEST_SEEDS
from dml_tf.runs import config as configs
from dml_tf.runs import quiet, records
from dml_tf.runs.config import Config
from dml_tf.runs.words import duration
from dml_tf.tools import verdict
from dml_tf.tools.candidates import Candidate, candidates, larger

EXAMPLE = """example:
  dml_tf advise --data_dir=PICTURES --net=resnet20 --image_size=64 --minutes=30"""
_PART = 0.85  # of the time is planned, the rest is for what takes longer
_LONG = 20  # minutes from which on six seeds are trained, if they fit
_FEWEST, _MANY = 3, FEWEST_SEEDS  # seeds of an interval
_LATER = 1.5  # of the time, if a busy machine has not trained these yet
_TRAININGS = 6  # of a seed: two of the four ways train teachers first
_LEAST = 10  # steps of a training that teach anything


def main(argv: Sequence[str]) -> int:
    """The command `dml_tf advise`; returns its exit status."""
    parser = argparse.ArgumentParser(
        "dml_tf advise", description=__doc__, epilog=EXAMPLE, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data_dir", default="", help="your pictures, as for training")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long it may take (30)")
    parser.add_argument("--net", default="resnet20", help="the network that you want (resnet20)")
    parser.add_argument("--partner", default="", help="its peer; default: the same network")
    parser.add_argument("--teacher", default="", help="the larger one; default: twice the width")
    parser.add_argument("--image_size", default="0", help="side in pixels; default: 64")
    parser.add_argument("--seeds", type=int, default=0, help="default: 6, or 3 below 20 minutes")
    parser.add_argument("--dataset", default="image_folder", help="default: image_folder")
    parser.add_argument("--train_images", type=int, default=0, help="fewer training images")
    parser.add_argument("--results_dir", default="", help="default: results/PICTURES/advise")
    options = parser.parse_args(argv)
    return exit_status(parser.prog, partial(_advise, options), also=(ValueError,))


def _advise(options: argparse.Namespace):
    started = time.monotonic()
    if options.seeds and options.seeds < _FEWEST:
        raise FlagError(
            f"--seeds={options.seeds}: give {_FEWEST} or more, or no interval can be said."
        )
    ways = candidates(
        options.net, options.partner or options.net, options.teacher or larger(options.net)
    )
    base = _base(options)
    quiet.import_tensorflow()
    from dml_tf.tools import trials

    base, splits = trials.load(base)
    sizes = trials.sizes(ways, base, splits)
    plan = _plan(options, base, splits, ways, sizes, started)
    print(_heading(options, splits, plan), flush=True)
    asked = 60 * options.minutes
    ends = (started + asked, started + _LATER * asked)
    measured = _train(trials.train, base, splits, ways, plan, *ends)
    print(report(options, base, splits, ways, plan, measured, sizes))


def _base(options: argparse.Namespace) -> Config:
    if options.dataset in REID_DATASETS:
        raise FlagError(
            f"--dataset={options.dataset} is of re-identification: advise compares networks that "
            "tell classes, on validation images."
        )
    settings = {
        name: getattr(options, name)
        for name in ("dataset", "data_dir", "image_size", "train_images")
    }
    asked = configs.load(**settings, net=(options.net,))
    folder = Path(options.results_dir or Path(asked.results_dir) / "advise").expanduser()
    return asked.replace(results_dir=str(folder), epochs=0, steps=1)


def _plan(options, base, splits, ways, sizes, started) -> dict:
    """Seeds, and steps of each way, kept in a file so that the same command resumes.

    With up to twice the minutes, too, if the last ones gave no advice.
    """
    from dml_tf.tools import trials

    file = Path(base.results_dir) / "plan.json"
    asked = {
        "net": [way.net for way in ways], "seeds": options.seeds, "minutes": options.minutes,
        "digest": splits.train.digest, "image_size": base.image_size,
    }  # fmt: skip
    asked = json.loads(json.dumps(asked))
    if file.exists():
        kept = records.read(file)
        before = kept["asked"]["minutes"]
        gave_none = not (file.parent / "advice.json").exists()
        if gave_none and before <= options.minutes <= 2 * before:
            asked["minutes"] = before
        if kept["asked"] == asked:
            return kept
    seconds_per_unit, overhead = trials.speed(base, splits, sizes)
    gone = time.monotonic() - started
    left = _PART * 60 * options.minutes - gone
    costs = {way.name: way.cost(sizes) * base.batch_size * seconds_per_unit for way in ways}
    for seeds in (options.seeds,) if options.seeds else _seeds(options.minutes):
        seconds = (left / seeds - _TRAININGS * overhead) / len(ways)
        steps = {name: int(seconds / cost) for name, cost in costs.items()}
        if min(steps.values()) >= _LEAST:
            break
    else:
        least = len(ways) * _LEAST * max(costs.values()) + _TRAININGS * overhead
        needed = math.ceil((seeds * least + gone) / _PART / 60 + 0.5)
        raise FlagError(
            f"--minutes={options.minutes:g} are too few: {seeds} seeds need {needed} minutes at "
            "least. Give more, or a smaller --image_size or --net."
        )
    asked["minutes"] = options.minutes
    (file.parent / "advice.json").unlink(missing_ok=True)  # that of another plan
    plan = {
        "asked": asked, "seeds": seeds, "steps": steps, "seconds": seconds,
        "per_unit": seconds_per_unit,
    }  # fmt: skip
    records.write(plan, file)
    return plan


def _seeds(minutes: float) -> tuple[int, ...]:
    """Numbers of seeds to try, the best first."""
    return (_MANY, _FEWEST) if minutes >= _LONG else (_FEWEST,)


def _heading(options, splits: Splits, plan: dict) -> str:
    images = f"{len(splits.train)} training images, {len(splits.validation)} for validation"
    each = f"about {duration(plan['seconds'])} of training for each way and seed"
    return f"{options.net} on {splits.name}: {images}, {plan['seeds']} seeds, {each}"


def _train(
    train: Callable, base: Config, splits: Splits, ways: Sequence[Candidate], plan: dict,
    deadline: float, latest: float,
) -> dict[str, list[dict[str, float]]]:  # fmt: skip
    """Way -> peer -> validation accuracy, for each seed that the time allows, whole seeds only.

    The first seeds, without which there is no advice, may take until `latest`.
    """
    measured = {way.name: [] for way in ways}
    per_epoch = base.schedule(len(splits.train)).steps_per_epoch
    longest = 0.0
    for seed in range(plan["seeds"]):
        began = time.monotonic()
        if seed and began + longest > (deadline if seed >= _FEWEST else latest):
            print(f"The time is over after {seed} seeds.")
            break
        found = {}
        for way in ways:
            run = way.config(base, seed, plan["steps"][way.name], per_epoch)
            found[way.name] = train(run, splits)
            best = 100 * max(found[way.name].values())
            print(f"  seed {seed}, {way.name}: {best:.2f}%", flush=True)
        for name, accuracies in found.items():
            measured[name].append(accuracies)
        longest = max(longest, time.monotonic() - began)
    return measured


def report(
    options: argparse.Namespace, base: Config, splits: Splits, ways: Sequence[Candidate],
    plan: dict, measured: dict[str, list[dict[str, float]]], sizes: dict[str, int],
) -> str:  # fmt: skip
    """The comparison and the advice in words; also written to `advice.json`."""
    seeds = len(measured[ways[0].name])
    own = {way.name: [_of_net(way, row) for row in measured[way.name]] for way in ways}
    if seeds < _FEWEST:
        means = [f"  {name}: {100 * np.mean(row):.2f}%" for name, row in own.items()]
        return "\n".join(
            [
                "Fewer than three seeds were trained: no advice. The same command with up to twice "
                "the --minutes goes on with the next seed. Means so far:",
                *means,
            ]
        )
    lines = verdict.compare(own)
    chosen = verdict.recommended(lines)
    way = next(each for each in ways if each.name == chosen.name)
    advice = {
        "use": chosen.name,
        "keep": _best_peer(way, measured[way.name]),
        "command": _command(options, way),
        "seconds": _full_seconds(options, base, splits, way, plan, sizes),
        "seeds": seeds,
        "validation": measured,
        "steps": plan["steps"],
        "differences": {x.name: [x.difference, x.low, x.high] for x in lines[1:]},
    }
    records.write(advice, Path(base.results_dir) / "advice.json")
    doubt = " (no other way is clearly better)" if chosen is lines[0] else ""
    keep = f"; keep {advice['keep']}" if len(measured[way.name][0]) > 1 else ""
    return "\n".join(
        [
            *_table(lines, plan["steps"]),
            "",
            f"Use: {chosen.name}{doubt}{keep}.",
            f"In full: {advice['command']}",
            f"  takes about {duration(advice['seconds'])} on this machine, with the epochs of the "
            "flag file.",
        ]
    )


def _table(lines: Sequence[verdict.Line], steps: dict[str, int]) -> list[str]:
    width = max(len(line.name) for line in lines)
    text = [f"{'':{width}}  steps  accuracy, %     against independent, points [95% interval]"]
    for line in lines:
        against = ""
        if line is not lines[0]:
            low, high = 100 * line.low, 100 * line.high
            against = f"{100 * line.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        own = f"{100 * line.mean:5.2f} ± {100 * line.spread:4.2f}"
        text.append(f"{line.name:{width}}  {steps[line.name]:5}  {own}    {against}".rstrip())
    return text


def _of_net(way: Candidate, accuracies: dict[str, float]) -> float:
    """Mean accuracy of the copies of the wanted network that learnt in this way."""
    return float(np.mean([accuracies[peer] for peer in _wanted(way, accuracies)]))


def _best_peer(way: Candidate, rows: Sequence[dict[str, float]]) -> str:
    """The copy of the wanted network with the best mean validation accuracy."""
    return max(_wanted(way, rows[0]), key=lambda peer: np.mean([row[peer] for row in rows]))


def _wanted(way: Candidate, peers: Iterable[str]) -> list[str]:
    """The learning peers that are the wanted network."""
    students = way.net[-1:] if way.method == "distill" else way.net
    return [peer for net, peer in zip(students, peers, strict=True) if net == students[0]]


def _command(options: argparse.Namespace, way: Candidate) -> str:
    words = [f"--dataset={options.dataset}", f"--net={','.join(way.net)}"]
    words += [f"--data_dir={options.data_dir}"] if options.data_dir else []
    words += [f"--method={way.method}"]
    words += [f"--image_size={options.image_size}"] if options.image_size != "0" else []
    words += [f"--train_images={options.train_images}"] if options.train_images else []
    return shlex.join(["dml_tf", "train", *words])


def _full_seconds(options, base: Config, splits: Splits, way: Candidate, plan, sizes) -> float:
    names = ("dataset", "data_dir", "train_images")
    given = {name: value for name in names if (value := getattr(options, name))}
    full = configs.load(**given, net=(options.net,))
    held_out = len(splits.validation) if base.validation_fraction else 0  # only here
    images = len(splits.train) + held_out
    images = min(images, full.train_images or images)
    steps = full.replace(batch_size=base.batch_size).schedule(images).steps
    return steps * base.batch_size * way.cost(sizes) * plan["per_unit"]
