"""The dress rehearsal: real steps late in a schedule, and what it must refuse."""

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
from dml_tf.runs import build, config, rehearse
from dml_tf.runs.config import Schedule
from dml_tf.runs.watch import Watch

FIRST_VALUES = {"momentum": 0.0, "epsilon": 1e-10}  # of ImageNet's RMSProp, until they were mended
INCEPTIONS_VALUES = {"momentum": 0.9, "epsilon": 1.0}


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


def test_a_rehearsal_leaves_nothing_but_its_result(rehearsed, tmp_path):
    measured = rehearsed(dataset="digits", steps=6, epochs=0, cohort=2, learning_rate=0.01)
    assert measured["peak_memory"]["host"] > 2**20 and measured["step_s"] > 0
    assert list(measured["parameters"]) == ["resnet8_0", "resnet8_1"]
    assert not measured["replaced"] and not list(tmp_path.iterdir())


def test_an_update_is_measured_relative_to_its_kernel():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="logits")])
    kernel = network.layers[0].kernel
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
        assert change == pytest.approx(np.full((3, 2), 0.01), rel=1e-3)  # rate x sign of gradient


# What is refused


def test_rmsprop_of_imagenet_is_refused_as_it_was(rehearsed):
    flags = {"dataset": "imagenet", "image_size": 32}
    with pytest.raises(RunFailed, match=r"logits/kernel has .* times the kernel's own norm"):
        rehearsed(**flags, **FIRST_VALUES)
    updates = [p["update"] for p in rehearsed(**flags, **INCEPTIONS_VALUES)["places"].values()]
    assert max(updates) < 0.5


def test_entropy_sgd_is_refused_without_the_bound_of_its_scope(rehearsed, monkeypatch):
    flags = {
        "dataset": "market1501", "image_size": (32, 16), "optimizer": "entropy_sgd",
        "learning_rate": 1.0, "momentum": 0.9, "net": ("resnet8:2",), "batch_size": 4,
    }  # fmt: skip
    assert rehearsed(**flags)["places"]["end"]["step"] == 199_960
    monkeypatch.setattr(entropy_sgd, "LARGEST_PULL", float("inf"))
    with pytest.raises(RunFailed, match="scope 657 is 65.7 at step 199,999"):
        rehearsed(**flags)


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


def test_a_teacher_is_made_and_missing_weights_are_replaced(rehearsed):
    small = {"dataset": "digits", "steps": 4, "epochs": 0, "learning_rate": 0.01}
    measured = rehearsed(**small, net=("resnet8:4", "resnet8:2"), method="distill", teacher="a-run")
    assert len(measured["parameters"]) == 2 and not measured["replaced"]
    (reason,) = rehearsed(**small, pretrained="digits-never-trained")["replaced"]
    assert reason.startswith("random weights stand for trained ones: --pretrained=")


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
    with pytest.warns(UserWarning, match="not Market-1501 as it was published"):
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


def test_the_smallest_run_of_each_item_has_the_shortest_step(tmp_path):
    estimate, scale = Estimate(), BY_NAME["paper"]
    chosen = rehearsal.smallest(scale, tuple(ITEMS), estimate, str(tmp_path))
    assert len(chosen) == len(set(chosen)) < len(ITEMS)
    for item in ITEMS:
        runs = plan.runs(scale, (item,), results_dir=str(tmp_path), seeds=1)
        least = min(map(estimate.step_s, runs), default=None)
        assert not runs or least in map(estimate.step_s, chosen)


def test_the_command_prints_what_it_measured_and_does_not_repeat_it(tmp_path, capsys):
    flags = ["--scale=smoke", f"--results_dir={tmp_path}", "--rehearse=smallest", "--jobs=1"]
    flags += ["--only=section31", "--gpu_jobs=0"]
    assert run_all.main(flags) == 0
    first = capsys.readouterr().out
    assert "1 settings: 0 rehearsed, 1 to do" in first
    assert "0.01M + 0.01M parameters; " in first and "learning rate 0.1, 0.1, 0.1; " in first
    assert run_all.main(flags) == 0
    again = capsys.readouterr().out
    assert "1 settings: 1 rehearsed, 0 to do" in again
    assert again.splitlines()[1:] == first.splitlines()[-len(again.splitlines()) + 1 :]


def test_a_rehearsal_of_other_settings_or_on_another_machine_does_not_count(tmp_path):
    (run,) = rehearsal.smallest(BY_NAME["smoke"], ("section31",), Estimate(), str(tmp_path))
    record = {
        "config": run.comparable(), "versions": {"dml_tf": rehearsal.__version__},
        "gpus": [], "steps": 2, "step_s": 1.0,
    }  # fmt: skip
    rehearsal.records.write(record, rehearsal.RunFiles.of(run).rehearsal)
    assert rehearsal.find(run) == record and rehearsal.left([run], Estimate()) == []
    assert rehearsal.left([run], Estimate(kind="a GPU")) == [run]
    record["config"]["learning_rate"] = 0.5
    rehearsal.records.write(record, rehearsal.RunFiles.of(run).rehearsal)
    assert rehearsal.find(run) is None
