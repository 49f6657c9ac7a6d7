"""Flags: where a default comes from, what a run is called, and what is refused."""

import dataclasses
import re

import numpy as np
import pytest
from absl import flags as absl_flags

from dml_tf.errors import FlagError
from dml_tf.method import checks, divergences, targets
from dml_tf.runs import config, flags

CIFAR = ["--dataset=cifar100", "--net=resnet32,mobilenet"]


def test_flag_files_hold_the_settings_of_section_4_1():
    sgd = config.load(dataset="cifar100", net=("resnet32",))
    assert (sgd.optimizer, sgd.learning_rate, sgd.momentum) == ("sgd", 0.1, 0.9)
    assert (sgd.batch_size, sgd.epochs, sgd.decay_epochs, sgd.decay_rate) == (64, 200, 60, 0.1)
    assert (sgd.augment, sgd.weight_decay) == ("crop_flip", 5e-4)
    adam = flags.parse(["--dataset=market1501", "--net=mobilenet"])
    assert (adam.optimizer, adam.learning_rate, adam.batch_size) == ("adam", 2e-4, 16)
    assert (adam.beta_1, adam.beta_2) == (0.5, 0.999)
    assert (adam.stored_size, adam.image_size) == ((160, 64), (224, 224))
    rms = flags.parse(["--dataset=imagenet", "--net=mobilenet"])
    assert (rms.optimizer, rms.rho, rms.learning_rate, rms.batch_size) == ("rmsprop", 0.9, 0.1, 64)
    assert (rms.decay_epochs, rms.decay_rate) == (20, 0.16)
    assert (rms.momentum, rms.epsilon, rms.mean_square_start) == (0.9, 1.0, 1.0)


def test_the_release_adds_what_the_paper_does_not_print():
    paper = flags.parse(["--dataset=market1501", "--net=mobilenet"])
    release = flags.parse(["--flagfile=flags/market1501_release.flags", "--net=mobilenet"])
    added = {
        "label_smoothing": 0.1, "dropout": 0.001, "weight_decay": 4e-5, "decay_depthwise": False,
        "batch_norm_momentum": 0.9997, "batch_norm_epsilon": 0.001, "ema": 0.9999,
        "ema_statistics": True,
    }  # fmt: skip
    assert release == paper.replace(**added)


def test_cifar_10_and_cifar_100_have_the_same_settings():
    ten, hundred = (config.load(dataset=d, net=("resnet32",)) for d in ("cifar10", "cifar100"))
    assert dataclasses.replace(ten, dataset="cifar100") == hundred


def test_explicit_flags_win_over_the_scales_file_and_that_over_the_data_sets():
    plain = flags.parse(["--dataset=cifar10", "--net=resnet8"])
    scaled = flags.parse(["--dataset=cifar10", "--net=resnet8", "--scale=cpu"])
    explicit = flags.parse(["--dataset=cifar10", "--net=resnet8", "--scale=cpu", "--epochs=7"])
    assert (plain.epochs, scaled.epochs, explicit.epochs) == (200, 40, 7)
    assert scaled.learning_rate == plain.learning_rate


def test_order_of_flags_does_not_matter():
    ahead = flags.parse(["--epochs=7", "--net=resnet8", "--dataset=cifar10"])
    assert ahead.epochs == 7


def test_one_name_serves_the_whole_cohort_and_a_cohort_is_dml():
    three = flags.parse(["--dataset=cifar10", "--net=resnet8", "--cohort=3"])
    assert (three.net, three.method) == (("resnet8",) * 3, "dml")
    pair = flags.parse(CIFAR)
    assert (pair.cohort, pair.method) == (2, "dml")
    assert flags.parse(["--dataset=cifar10", "--net=resnet8"]).method == "independent"


def test_run_ids_are_readable_and_name_what_differs_by_a_hash():
    assert flags.parse(CIFAR).run_id == "cifar100-dml-resnet32+mobilenet-seed0"
    changed = flags.parse([*CIFAR, "--temperature=2", "--seed=3"]).run_id
    assert changed.startswith("cifar100-dml-resnet32+mobilenet-seed3-")
    assert changed != flags.parse([*CIFAR, "--temperature=3", "--seed=3"]).run_id


@pytest.mark.parametrize("flag", ["--data_dir=/somewhere", "--results_dir=/else", "--overwrite"])
def test_run_ids_do_not_depend_on_where_a_run_is(flag):
    assert flags.parse([*CIFAR, flag]).run_id == flags.parse(CIFAR).run_id


def test_the_command_of_a_config_makes_the_same_config():
    asked = flags.parse(
        ["--dataset=cifar10", "--scale=cpu", "--net=resnet8", "--cohort=2", "--seed=4", "--steps=9"]
    )
    program, script, *argv = asked.command.split()
    assert (program, script) == ("python", "train.py")
    assert flags.parse(argv) == asked


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--net=resnet8"], "--dataset is missing. Give one of cifar10"),
        (
            ["--dataset=mnist", "--net=resnet8"],
            "not a data set. Did you mean fashion_mnist",
        ),
        (["--dataset=digits"], "--net is missing"),
        (["--dataset=digits", "--nett=resnet8"], "There is no flag --nett. Did you mean --net"),
        (["--dataset=digits", "--net=a,b", "--cohort=3"], "names 2 networks for --cohort=3"),
        (["--dataset=digits", "--net=a", "--method=dml"], "needs two peers or more"),
        (["--dataset=digits", "--net=a", "--seed=one"], "seed"),
        (["--dataset=digits", "--net=a", "--seed=-1"], "--seed=-1 is out of range"),
        (["--dataset=digits", "--net=a", "--batch_size=0"], "numbers from 1 to 1,000,000"),
        (["--dataset=digits", "--net=a", "--dropout=1.5"], "numbers from 0 to 0.99"),
        (["--dataset=digits", "--net=a", "--learning_rate=nan"], "--learning_rate=nan is out"),
        (["--dataset=digits", "--net=a", "--epochs=0"], "Set --epochs or --steps"),
        (["--dataset=digits", "--net=a", "--temperature=2"], "no effect with --method=independent"),
        (["--dataset=digits", "--net=a", "--rho=0.5"], "no effect with --optimizer=sgd"),
        (
            ["--dataset=digits", "--net=a", "--optimizer=entropy_sgd", "--scope=10"],
            "--langevin_rate=0.1 times --scope=10 must be below 1",
        ),
        (["--dataset=digits", "--net=a", "--unlabelled=drop"], "has no effect while"),
        (["--dataset=digits", "--net=a", "--stored_size=8"], "no effect with --dataset=digits"),
        (["--dataset=market1501", "--net=a", "--stored_size=8x"], "--stored_size=8x is neither"),
        (["--dataset=digits", "--net=a", "--ema_statistics"], "no effect without --ema"),
        (["--dataset=pedestrians", "--net=a", "--nodecay_depthwise"], "without --weight_decay"),
        (["--dataset=digits", "--net=a", "--labelled_fraction=0"], "must be above 0"),
        (
            ["--dataset=digits", "--net=a", "--watch_test", "--validation_fraction=0.2"],
            "--watch_test and --validation_fraction=0.2: only one set",
        ),
        (["--dataset=pedestrians", "--net=a", "--watch_test"], "no effect with --dataset=ped"),
        (["--dataset=digits", "--net=a", "resnet8"], "Unexpected argument 'resnet8'"),
        (["--flagfile=absent.flags"], "absent.flags"),
    ],
)
def test_flags_that_cannot_be_taken_are_refused_by_name(argv, message):
    with pytest.raises(FlagError, match=message):
        flags.parse(argv)


def test_an_unknown_setting_is_refused_by_name():
    with pytest.raises(FlagError, match="Unknown setting 'momentun'"):
        config.load(dataset="digits", net=("a",), momentun=0.9)


def test_every_setting_is_a_flag_with_help():
    text = flags.flag_help()
    for field in dataclasses.fields(config.Config):
        assert len(re.findall(rf"^  --{field.name}\b", text, re.MULTILINE)) == 1


def test_parsing_leaves_no_trace_in_absls_global_flags():
    flags.parse(CIFAR)
    assert "dataset" not in absl_flags.FLAGS


def test_choices_of_flags_are_those_of_the_cohort():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(config.Config)}
    assert choices["update"] == checks.UPDATES
    assert choices["peer_reduction"] == checks.PEER_REDUCTIONS
    assert choices["ensemble_average"] == checks.ENSEMBLE_AVERAGES
    by_method = {"none", "ensemble"}  # independent, dml_e
    assert set(choices["mimicry"]) == set(checks.MIMICRIES) - by_method
    assert choices["mimicry"] == tuple(divergences.BY_NAME)
    assert choices["target"] == tuple(targets.BY_NAME)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"net": "resnet8, resnet8"}, {"net": ("resnet8", "resnet8"), "cohort": 2}),
        ({"analyse": "True"}, {"analyse": True}),
        ({"analyse": np.True_}, {"analyse": True}),
        ({"epochs": np.int64(3)}, {"epochs": 3}),
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"image_size": "16"}, {"image_size": 16}),
        ({"dataset": "pedestrians", "stored_size": "32x16"}, {"stored_size": (32, 16)}),
    ],
)
def test_values_get_the_type_of_their_field(given, kept):
    asked = config.load(**{"dataset": "digits", "net": ("resnet8",), **given})
    assert {name: getattr(asked, name) for name in kept} == kept
    assert all(type(getattr(asked, name)) is type(value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"net": ""}, "--net is missing"),
        ({"net": 5}, "--net=5 is not names of networks"),
        ({"epochs": True}, "--epochs=True is not a whole number"),
        ({"epochs": 2.5}, "--epochs=2.5 is not a whole number"),
        ({"learning_rate": "fast"}, "--learning_rate=fast is not a number"),
        ({"analyse": "maybe"}, "--analyse=maybe is not true or false"),
        ({"teacher": 3}, "--teacher=3 is not text"),
    ],
)
def test_a_value_of_another_type_is_refused(given, message):
    with pytest.raises(FlagError, match=message):
        config.load(**{"dataset": "digits", "net": ("resnet8",), **given})


def test_a_config_needs_a_data_set():
    with pytest.raises(FlagError, match="--dataset is missing"):
        config.Config(net=("resnet8",), epochs=1)


def test_a_flag_stands_in_for_a_setting_that_no_flag_file_has(monkeypatch):
    monkeypatch.setattr(config.flag_files, "settings_of", lambda dataset, scale="": {})
    assert config.load(dataset="digits", net=("resnet8",), epochs=2).run_id.startswith("digits-")
