"""The dress rehearsal: real steps late in a schedule, and what it must refuse."""

import math

import keras
import numpy as np
import pytest

from dml_tf.data.generated import samples
from dml_tf.errors import RunFailed
from dml_tf.method import entropy_sgd
from dml_tf.method.cohort import Cohort
from dml_tf.paper import plan, rehearsal, run_all
from dml_tf.paper.estimate import Estimate, train_images
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import BY_NAME
from dml_tf.runs import build, config, records, rehearse
from dml_tf.runs.config import Schedule
from dml_tf.runs.files import RunFiles
from dml_tf.runs.watch import Watch, _relative
from dml_tf.version import __version__

FIRST_VALUES = {"momentum": 0.0, "epsilon": 1e-10}  # of ImageNet's RMSProp, until they were mended


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return tmp_path_factory.mktemp("generated")


@pytest.fixture
def rehearsed(tmp_path, generated, monkeypatch):
    """Rehearses a run of small networks with other settings from its flag file."""
    monkeypatch.setattr(rehearse, "GENERATED", generated)

    def run(**settings):
        asked = {"net": ("resnet8:4",), "batch_size": 16, **settings}
        made = config.load(**asked, results_dir=str(tmp_path))
        return rehearse.rehearse(made, images=train_images(made), steps=2)

    return run


# The places


def test_steps_are_made_at_the_start_the_middle_and_the_end():
    schedule = Schedule(steps=200_000, epochs=248, steps_per_epoch=808)
    assert rehearse.first_steps(schedule, 2) == {"start": 0, "middle": 100_000, "end": 199_998}
    loops = rehearse.first_steps(Schedule(2010, 3, 808), count=40, stride=20)
    assert loops == {"start": 0, "middle": 1000, "end": 1960}  # each begins a Langevin loop


def test_the_schedule_is_that_of_the_real_number_of_images(rehearsed):
    measured = rehearsed(dataset="cifar10", batch_size=64)
    assert measured["steps"] == 200 * 781
    rates = [place["learning_rate"] for place in measured["places"].values()]
    assert rates == pytest.approx([0.1, 0.01, 0.0001])  # epochs 0, 100 and 199
    assert [place["step"] for place in measured["places"].values()] == [0, 78_100, 156_198]
    assert measured["data"].startswith("CIFAR-10") and "generated" in measured["replaced"][0]


def test_an_update_is_measured_relative_to_its_kernel():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="logits")])
    kernel = network.layers[0].kernel
    kernel.assign([[3.0, -1.0], [0.0, 2.0], [-2.0, 1.0]])
    before = kernel.numpy()
    images, labels = np.eye(3, dtype="float32"), np.array([0, 1, 1])
    cohort = Cohort([network])
    cohort.compile(keras.optimizers.SGD(0.5))
    watch = Watch(cohort, steps=10)
    watch.move_to("middle", 5, 1)
    posteriors = network(images).numpy()
    posteriors = np.exp(posteriors) / np.exp(posteriors).sum(axis=1, keepdims=True)
    gradient = images.T @ (posteriors - np.eye(2)[labels]) / 3
    cohort.fit(images, labels, batch_size=3, verbose=0, callbacks=[watch])
    place = watch.places["middle"]
    assert place["update"] == pytest.approx(
        0.5 * np.linalg.norm(gradient) / np.linalg.norm(before), rel=1e-4
    )
    assert place["step"] == 5 and place["kernel"].endswith("logits/kernel")


def test_a_classifier_that_starts_small_may_grow():
    """It counts with the norm of Glorot's rule: each weight has a variance of 2 / (3 + 2)."""
    small = np.full((3, 2), 1e-6, "float32")
    assert _relative(small + 0.1, small) == pytest.approx(0.1 / math.sqrt(2 / 5), rel=1e-4)
    assert _relative(small + 10, small) > 1
    assert _relative(small * np.nan, small) == np.inf


def test_means_of_squares_are_as_after_many_steps_and_momentum_is_fresh():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    images, labels = np.eye(3, dtype="float32"), np.array([0, 1, 1])
    cohort = Cohort([network])
    cohort.compile(keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.5, epsilon=1e-12))
    watch = Watch(cohort, steps=10)
    for _ in range(2):
        before = network.layers[0].kernel.numpy()
        watch.move_to("middle", 5, 1)
        cohort.fit(images, labels, batch_size=3, verbose=0, callbacks=[watch])
        change = np.abs(network.layers[0].kernel.numpy() - before)
        assert change == pytest.approx(np.full((3, 2), 0.01), rel=0.05)  # rate x sign of gradient


# What is refused


def test_rmsprop_of_imagenet_is_refused_as_it_was(rehearsed):
    flags = {"dataset": "imagenet", "image_size": 32}
    with pytest.raises(RunFailed, match=r"logits/kernel has .* times the kernel's own norm"):
        rehearsed(**flags, **FIRST_VALUES)
    updates = [p["update"] for p in rehearsed(**flags)["places"].values()]
    assert max(updates) < 0.5


def test_entropy_sgd_is_refused_without_the_bound_of_its_scope(tmp_path, monkeypatch):
    """The optimizer of Table 5 at the end of its schedule."""
    runs = plan.runs(BY_NAME["paper"], ("table5",), results_dir=str(tmp_path), seeds=1)
    (run,) = (run for run in runs if run.optimizer == "entropy_sgd")
    cohort = Cohort([keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])])
    schedule = run.schedule(train_images(run))
    cohort.compile(build.optimizer(run, schedule.steps_per_epoch))
    watch = Watch(cohort, schedule.steps)
    watch.move_to("end", 199_960, 40)
    monkeypatch.setattr(entropy_sgd, "LARGEST_PULL", float("inf"))
    with pytest.raises(RunFailed, match="scope 657 is 65.7 at step 199,999"):
        watch.move_to("end", 199_960, 40)


def test_a_number_that_is_not_finite_is_refused(rehearsed, monkeypatch):
    build_cohort = build.build_cohort

    def broken(*args, **kwargs):
        cohort = build_cohort(*args, **kwargs)
        cohort.networks[0].trainable_variables[0].assign_add(np.float32(np.nan))
        return cohort

    monkeypatch.setattr(build, "build_cohort", broken)
    with pytest.raises(RunFailed, match=r"resnet8_supervised_loss is nan at step 0 of 6"):
        rehearsed(dataset="digits", steps=6, epochs=0)


# What stands in for what is missing


def test_missing_teachers_and_weights_are_replaced_and_nothing_is_left(rehearsed, tmp_path):
    measured = rehearsed(
        dataset="digits", net=("resnet8:4", "resnet8:2"), method="distill", teacher="never-trained",
        pretrained="never-trained", steps=4, epochs=0, learning_rate=0.01,
    )  # fmt: skip
    assert list(measured["parameters"]) == ["resnet8_0", "resnet8_1"]
    (reason,) = measured["replaced"]
    assert reason.startswith("random weights stand for trained ones: --pretrained=")
    assert measured["peak_memory"]["host"] > 2**20 and measured["step_s"] > 0
    assert not list(tmp_path.iterdir())


def test_generated_files_hold_all_four_data_sets_side_by_side(generated, capsys):
    """One --data_dir serves every loader, ImageNet in its own folder or directly."""
    folder = samples.ensure(generated / "samples")
    counts = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
    for dataset, classes in counts.items():
        run = config.load(dataset=dataset, net=("resnet8",), data_dir=str(folder))
        splits = build.load_data(run)
        assert splits.num_classes == len(set(splits.train.labels)) == classes
        alone = folder / "imagenet"
        if dataset == "imagenet":
            direct = build.load_data(run.replace(data_dir=str(alone)))
            assert direct.train.digest == splits.train.digest
            assert direct.identity == splits.identity and "train" in splits.identity["parts"]
    run = config.load(dataset="market1501", net=("resnet8",), data_dir=str(folder))
    people = build.load_data(run)
    assert people.num_classes == 751 and len(people.reid.query) == 8
    flags = ["--scale=paper", f"--data_dir={folder}", "--dry_run", f"--results_dir={folder / 'r'}"]
    assert run_all.main([*flags, "--rehearse"]) == 0
    assert "settings: 0 rehearsed" in capsys.readouterr().out


# All of a scale


def test_settings_differ_in_more_than_their_seed(tmp_path):
    runs = plan.runs(BY_NAME["paper"], results_dir=str(tmp_path))
    chosen = rehearsal.settings(runs)
    without_seed = {run.replace(seed=0, teacher="").run_id for run in runs}
    assert len(chosen) == len(without_seed) < len(runs)
    assert {run.replace(seed=0, teacher="").run_id for run in chosen} == without_seed


def test_each_item_has_one_of_few_small_settings(tmp_path):
    estimate, scale = Estimate(), BY_NAME["paper"]
    chosen = rehearsal.smallest(scale, tuple(ITEMS), estimate, str(tmp_path))
    for item in ITEMS:
        runs = plan.runs(scale, (item,), results_dir=str(tmp_path), seeds=1)
        assert not runs or {run.run_id for run in runs} & {run.run_id for run in chosen}
    assert {run.dataset for run in chosen} == {"cifar10", "cifar100", "imagenet", "market1501"}
    assert len(chosen) <= 6 and max(map(estimate.step_s, chosen)) < 10


@pytest.fixture
def measured(tmp_path):
    """A setting, and what a rehearsal would have measured."""
    (run,) = rehearsal.smallest(BY_NAME["smoke"], ("section31",), Estimate(), str(tmp_path))
    places = {
        place: {"step": step, "learning_rate": rate, "update": rate / 2, "kernel": "logits/kernel"}
        for place, step, rate in (("start", 0, 0.1), ("middle", 50, 0.01), ("end", 98, 0.001))
    }
    record = {
        "config": run.comparable(), "versions": {"dml_tf": __version__}, "gpus": [],
        "command": run.command, "machine": "a core", "replaced": ["no weights"],
        "parameters": {"a": 2_000_000, "b": 500_000}, "peak_memory": {"host": 3 * 2**30},
        "steps": 1000, "step_s": 0.25, "places": places,
    }  # fmt: skip
    records.write(record, RunFiles.of(run).rehearsal)
    return run, record


def test_the_command_prints_what_was_measured_and_does_not_repeat_it(measured, tmp_path, capsys):
    flags = ["--scale=smoke", f"--results_dir={tmp_path}", "--rehearse=smallest", "--jobs=1"]
    assert run_all.main([*flags, "--only=section31", "--gpu_jobs=0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 settings: 1 rehearsed, 0 to do",
        measured[0].command,
        "  2.00M + 0.50M parameters; 0.25 s a step; peak memory 3.0 GiB host",
        "  learning rate 0.1, 0.01, 0.001; "
        "largest update of a kernel relative to the kernel 0.05, 0.005, 0.0005",
        "  1,000 steps: 4 min on a core",
        "Note: no weights",
    ]


def test_a_rehearsal_of_other_settings_or_on_another_machine_does_not_count(measured):
    run, record = measured
    assert rehearsal.find(run) == record and rehearsal.left([run], Estimate()) == []
    assert rehearsal.left([run], Estimate(kind="a GPU")) == [run]
    record["config"]["learning_rate"] = 0.5
    records.write(record, RunFiles.of(run).rehearsal)
    assert rehearsal.find(run) is None


def test_a_teacher_beside_students_is_untrained(rehearsed):
    teacher = config.load(dataset="digits", net=("resnet8:4",) * 2, method="independent").run_id
    nets = ("resnet8:4",) * 3
    measured = rehearsed(dataset="digits", net=nets, method="dml", teacher=teacher)
    assert len(measured["places"]) == 3
