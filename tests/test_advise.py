"""The advice: equal compute by hand, the verdict, and what the command does with measured runs."""

import argparse
import json
import re

import numpy as np
import pytest
from scipy import stats

from dml_tf import networks
from dml_tf.data import load
from dml_tf.errors import FlagError
from dml_tf.runs import config, records, steps
from dml_tf.tools import advise, candidates, commands, verdict
from dml_tf.tools.candidates import Candidate


def test_the_cost_of_a_step_counts_passes_refreshes_and_the_teachers_training():
    sizes = {"small": 10, "large": 40}
    costs = {
        (("small",), "independent"): 3 * 10,
        (("small", "large"), "dml"): 3 * 10 + 3 * 40 + 10,  # the first is refreshed
        (("large", "small"), "distill"): 3 * 40 + 40 + 3 * 10,  # train, then predict
        (("small", "small", "small"), "distill"): 2 * (3 * 10 + 10) + 3 * 10,
    }
    for (net, method), cost in costs.items():
        assert Candidate("", net, method).cost(sizes) == cost


def test_multiply_adds_are_those_of_the_layers():
    net = networks.build("resnet8:4", num_classes=10, input_shape=(8, 8, 3))
    by_hand = 9 * 3 * 4 * 64  # the stem
    by_hand += 2 * (9 * 4 * 4 * 64)
    by_hand += 9 * 4 * 8 * 16 + 9 * 8 * 8 * 16
    by_hand += 9 * 8 * 16 * 4 + 9 * 16 * 16 * 4
    by_hand += 16 * 10
    shortcuts = sum(
        int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
        for layer in net.layers
        if getattr(layer, "kernel", None) is not None and layer.kernel.shape[:2] == (1, 1)
    )
    assert steps.multiplications(net) == by_hand + shortcuts


def test_every_way_trains_the_wanted_network():
    ways = candidates.candidates("resnet8", "resnet8", "resnet8:32")
    assert [way.net[0 if way.method != "distill" else -1] for way in ways] == ["resnet8"] * 4
    assert ways[0].method == "independent"
    with pytest.raises(FlagError, match="--teacher is missing"):
        candidates.larger("inception_v1")


def test_a_way_is_recommended_only_if_its_interval_lies_above_zero():
    alone = [0.60, 0.62, 0.58, 0.61, 0.59, 0.60]
    better = [a + 0.02 + 0.002 * (i % 3) for i, a in enumerate(alone)]
    noisy = [a + d for a, d in zip(alone, (0.2, -0.1, 0.2, -0.1, 0.1, 0.0), strict=True)]
    lines = verdict.compare({"alone": alone, "better": better, "noisy": noisy})
    assert verdict.recommended(lines).name == "better"
    assert lines[2].mean > lines[0].mean and not lines[2].is_better
    assert verdict.recommended(verdict.compare({"alone": alone, "noisy": noisy})).name == "alone"


def test_intervals_of_few_seeds_are_students_with_bonferronis_correction():
    rows = {"alone": [0.0, 0.0, 0.0], "a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0]}
    line = verdict.compare(rows)[1]
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 2) / 3**0.5
    assert (line.low, line.high) == pytest.approx((2 - half, 2 + half))


def digits(tmp_path, **changes):
    flags = {
        "data_dir": "", "minutes": 30.0, "net": "resnet8:4", "partner": "", "teacher": "",
        "image_size": "8", "seeds": 3, "dataset": "digits", "train_images": 0,
        "results_dir": str(tmp_path),
    }  # fmt: skip
    return argparse.Namespace(**flags | changes)


def test_the_command_compares_paired_seeds_at_equal_compute(tmp_path, monkeypatch, capsys):
    """The short trainings are stood in for; what is planned and said is the command's own."""
    from dml_tf.tools import trials

    asked = []

    def train(run, splits):
        asked.append(run)
        gain = 0.1 if run.method == "dml" else 0.0
        students = run.net[-1:] if run.method == "distill" else run.net
        return {f"peer{k}": 0.5 + gain + 0.01 * k for k in range(len(students))}

    monkeypatch.setattr(trials, "train", train)
    monkeypatch.setattr(trials, "speed", lambda base, splits, sizes: (1e-9, 5.0))
    words = "advise --dataset=digits --net=resnet8:4 --image_size=8 --minutes=10 --seeds=3"
    assert commands.main([*words.split(), f"--results_dir={tmp_path}"]) == 0
    assert [run.seed for run in asked] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(run.validation_fraction == 0.2 for run in asked)
    ways = candidates.candidates("resnet8:4", "resnet8:4", "resnet8:8")
    splits = load(asked[0])
    sizes = trials.sizes(ways, asked[0], splits)
    compute = [w.cost(sizes) * run.steps for w, run in zip(ways, asked[:4], strict=True)]
    assert max(compute) < 1.01 * min(compute)
    text = capsys.readouterr().out
    assert "Use: mutual learning with resnet8:4; keep peer1." in text
    assert "In full: dml_tf train --dataset=digits --net=resnet8:4,resnet8:4 --method=dml" in text
    advice = records.read(tmp_path / "advice.json")
    assert advice["differences"]["mutual learning with resnet8:4"][0] == pytest.approx(0.105)
    steps = json.loads((tmp_path / "plan.json").read_text())["steps"]
    monkeypatch.setattr(trials, "speed", lambda base, splits, sizes: (1e-3, 5.0))
    assert commands.main([*words.split(), f"--results_dir={tmp_path}"]) == 0  # the plan is kept
    assert asked[12].steps == steps["independent"]


def test_more_minutes_go_on_where_the_last_ones_gave_no_advice(tmp_path, monkeypatch, capsys):
    from dml_tf.tools import trials

    asked = []
    slow = iter([0.0] * 3 + [1e3] * 50)  # the clock of the first call

    def train(run, splits):
        asked.append((run.seed, run.steps))
        return {f"peer{k}": 0.5 for k in range(1 if run.method == "distill" else len(run.net))}

    monkeypatch.setattr(trials, "train", train)
    monkeypatch.setattr(trials, "speed", lambda base, splits, sizes: (1e-9, 5.0))
    words = "advise --dataset=digits --net=resnet8:4 --image_size=8".split()
    with monkeypatch.context() as late:
        late.setattr(advise.time, "monotonic", lambda: next(slow))
        assert commands.main([*words, "--minutes=10", f"--results_dir={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "no advice" in text and "independent: 50.00%" in text
    first = asked[:4]
    assert commands.main([*words, "--minutes=20", f"--results_dir={tmp_path}"]) == 0
    assert asked[4:8] == first  # which `train` finds finished
    assert "Use: independent" in capsys.readouterr().out


def test_too_few_minutes_or_seeds_are_refused_with_what_is_needed(tmp_path, monkeypatch):
    from dml_tf.tools import trials

    monkeypatch.setattr(trials, "speed", lambda base, splits, sizes: (1e-6, 5.0))
    with pytest.raises(FlagError, match=r"--minutes=1 are too few: 3 seeds need \d+ min") as few:
        advise._advise(digits(tmp_path, minutes=1))
    needed = int(re.search(r"need (\d+)", str(few.value))[1])
    (tmp_path / "advice.json").write_text("of another plan")
    monkeypatch.setattr(trials, "train", lambda run, splits: {"peer": 0.5})
    monkeypatch.setattr(advise, "report", lambda *about: "")
    advise._advise(digits(tmp_path, minutes=needed))
    assert json.loads((tmp_path / "plan.json").read_text())["seeds"] == 3
    assert not (tmp_path / "advice.json").exists()
    with pytest.raises(FlagError, match="--seeds=2: give 3 or more"):
        advise._advise(digits(tmp_path, seeds=2))


def test_no_seed_begins_that_would_end_after_the_time(capsys):
    ways = [Candidate("alone", ("resnet8:4",), "independent")]
    base = config.load(dataset="digits", net=("resnet8:4",), steps=5, image_size=8)
    measured = advise._train(
        lambda run, splits: {"peer": 0.5}, base, load(base), ways,
        {"steps": {"alone": 5}, "seeds": 4}, deadline=0.0, latest=0.0,
    )  # fmt: skip
    assert len(measured["alone"]) == 1  # the first is always trained
    assert "The time is over after 1 seeds." in capsys.readouterr().out
    measured = advise._train(
        lambda run, splits: {"peer": 0.5}, base, load(base), ways,
        {"steps": {"alone": 5}, "seeds": 4}, deadline=0.0, latest=1e12,
    )  # fmt: skip
    assert len(measured["alone"]) == 3  # as many as an interval needs


def test_a_short_training_measures_validation_images_only(tmp_path, monkeypatch):
    """Not trained here: what trains is the same `fit` as of every run."""
    from dml_tf.tools import trials

    monkeypatch.setattr(trials, "fit", lambda *args, **options: None)
    base, splits = trials.load(advise._base(digits(tmp_path)))
    way = candidates.candidates("resnet8:4", "resnet8:4", "resnet8:8")[2]
    run = way.config(base, seed=1, steps=2, steps_per_epoch=2)
    learning = trials.train(run, splits)
    assert len(learning) == 1 and 0 <= next(iter(learning.values())) <= 1  # the student alone
    assert trials.train(run, splits) == learning  # from its record
    assert not (tmp_path / "runs").exists()  # they are no runs
    (teacher,) = [f for f in (tmp_path / "trials").glob("*.json") if "independent" in f.name]
    assert records.read(teacher).keys() == {"validation", "config"}


def test_the_network_that_is_kept_is_the_wanted_one():
    way = Candidate("mutual", ("resnet8:4", "wrn-10-1"), "dml")
    rows = [{"resnet8": 0.5, "wrn-10-1": 0.9}]
    assert advise._best_peer(way, rows) == "resnet8" and advise._of_net(way, rows[0]) == 0.5
    student = Candidate("taught", ("wrn-10-1", "resnet8:4"), "distill")
    assert advise._best_peer(student, [{"resnet8": 0.5}]) == "resnet8"


def test_the_time_in_full_is_of_all_images_that_the_command_trains_on(tmp_path):
    options = digits(tmp_path, train_images=0)
    base = config.load(dataset="digits", net=("resnet8:4",), validation_fraction=0.2)
    way = Candidate("alone", ("resnet8:4",), "independent")
    plan, sizes = {"per_unit": 1.0}, {"resnet8:4": 1}
    seconds = advise._full_seconds(options, base, load(base), way, plan, sizes)
    every = config.load(dataset="digits", net=("resnet8:4",))
    steps = every.schedule(len(load(every).train)).steps
    assert seconds == steps * base.batch_size * way.cost(sizes)


def test_re_identification_is_refused_before_any_work(tmp_path):
    with pytest.raises(FlagError, match="--dataset=pedestrians is of re-identification"):
        advise._advise(digits(tmp_path, dataset="pedestrians"))
