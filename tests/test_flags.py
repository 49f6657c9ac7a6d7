"""Flags: what cannot be run is refused before anything is built, in words, all of it at once."""

import dataclasses
import math
import re
import types
from pathlib import Path

import pytest

from dml_tf import networks
from dml_tf.data import DATASETS
from dml_tf.errors import FlagError
from dml_tf.networks import size
from dml_tf.runs import build, config, flags, memory, values
from dml_tf.runs.parallel.placement import Placement
from tests import faults

DIGITS = ["--dataset=digits", "--net=resnet8:4", "--image_size=8"]


def test_drawn_flags_train_or_are_refused_in_words():
    ends = faults.draw_flags(5)  # `python -m tests.faults flags` draws more
    assert ends["trained"] and ends["refused"]
    assert ends.total() >= 5


@pytest.mark.parametrize(
    "flag",
    [
        f"--seed={2**64}", f"--seed={2**63}", "--decay_epochs=2147483648", "--weight_decay=inf",
        "--optimizer=rmsprop --mean_square_start=inf", "--learning_rate=inf", "--learning_rate=nan",
        "--image_size=1000000", "--image_size=1 --augment=crop_flip", "--epochs=99999999999",
        "--steps=2147483648", "--batch_size=1000000000", "--cohort=1001", "--dropout=nan",
    ],
)  # fmt: skip
def test_numbers_that_no_run_can_take_are_refused(flag):
    name = flag.split()[-1].partition("=")[0]
    with pytest.raises(FlagError, match=name if "augment" not in name else "--image_size=1 with"):
        flags.parse([*DIGITS, *flag.split()])


def test_every_number_has_a_finite_range():
    numbers = [field for field in dataclasses.fields(config.Config) if field.type in (int, float)]
    assert len(numbers) > 20
    for field in numbers:
        assert math.isfinite(field.metadata["low"]) and math.isfinite(field.metadata["high"])


def test_a_seed_of_63_bits_gives_weights():
    asked = config.load(dataset="digits", net="resnet8:4", image_size=8, seed=2**63 - 1, steps=1)
    assert build.build_cohort(asked, build.load_data(asked)).networks


def test_all_problems_are_in_one_message():
    wrong = [*DIGITS, "--seed=-1", "--epochs=many", "--optimizer=sdg", "--lr=1", "--analyse=maybe"]
    with pytest.raises(FlagError) as error:
        flags.parse(wrong)
    for part in (
        "--seed=-1 is out of range", "--epochs=many is not a whole number", "Did you mean sgd?",
        "no flag --lr. Did you mean --learning_rate?", "--analyse=maybe is not true or false",
    ):  # fmt: skip
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("learning_rat", "learning_rate"), ("lr", "learning_rate"), ("batchsize", "batch_size"),
     ("cohrt", "cohort"), ("nets", "net")],
)  # fmt: skip
def test_a_typo_names_the_nearest_flag(typed, meant):
    with pytest.raises(FlagError, match=f"no flag --{typed}. Did you mean --{meant}\\?"):
        flags.parse([*DIGITS, f"--{typed}=1"])


def test_a_name_that_is_like_no_other_gets_no_proposal():
    assert values.nearest("xyzzy", ["net", "cohort"]) == "."


# Memory


@pytest.mark.parametrize(
    "name",
    ["resnet8:4", "resnet20", "wrn-10-2", "mobilenet", "mobilenet_short:0.5", "inception_v1"],
)
def test_the_size_of_a_network_is_found_without_building_it(name):
    shape = (32, 32, 3)
    network = networks.build(name, num_classes=7, input_shape=shape)
    found = size.measure(name, num_classes=7, input_shape=shape)
    assert found.parameters == network.count_params()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--net=resnet8:99999999", "does not fit into"),
        ("--net=resnet62:4", "more than 40 layers"),
        ("--image_size=60000", "does not fit into|The run needs at least"),
        ("--max_memory_gb=0.0001", "does not fit into|The run needs at least"),
        ("--batch_size=1", "BatchNorm needs more than one value"),
    ],
)
def test_what_fits_no_memory_is_refused_before_anything_is_built(flag, message, monkeypatch):
    monkeypatch.setattr(size, "MOST_LAYERS", 40)
    asked = flags.parse([*DIGITS, "--image_size=4", "--steps=1", flag])
    with pytest.raises(FlagError, match=message):
        memory.refuse_too_large(asked)


def test_every_data_set_and_optimizer_has_an_estimate():
    assert memory._SHAPES.keys() == set(DATASETS)
    assert memory._SLOTS.keys() == set(config.FIELDS["optimizer"].metadata["choices"])


def test_a_data_set_without_an_estimate_is_not_refused(monkeypatch):
    asked = flags.parse([*DIGITS, "--steps=1", "--max_memory_gb=0.0001"])
    with pytest.raises(FlagError, match="memory"):
        memory.refuse_too_large(asked)
    monkeypatch.delitem(memory._SHAPES, "digits")
    memory.refuse_too_large(asked)


def test_a_frozen_network_needs_less_and_one_of_another_process_nothing(monkeypatch):
    monkeypatch.setattr(memory.tf.config, "list_physical_devices", lambda kind: [])

    def needed(asked, place=None):
        with pytest.raises(FlagError) as refused:
            memory.refuse_too_large(asked.replace(max_memory_gb=0.001), place)
        return float(re.search(r"x resnet8 ([\d.]+)", str(refused.value))[1])

    asked = config.load(dataset="digits", net=("resnet8", "resnet8"), steps=1)
    both = needed(asked)
    assert needed(asked.replace(method="distill")) < 0.95 * both
    other = Placement("peers", cluster=types.SimpleNamespace(size=2, rank=1))
    memory.refuse_too_large(asked.replace(net=("wrn-28-10", "resnet8"), max_memory_gb=0.1), other)
    elsewhere = Placement("peers", cluster=types.SimpleNamespace(size=2, rank=0))
    assert needed(asked, elsewhere) == pytest.approx(both / 2, rel=0.01)


def test_files_that_were_read_do_not_count_as_memory_in_use(tmp_path, monkeypatch):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("9000")
    (group / "memory.current").write_text("8000")
    monkeypatch.setattr(memory, "Path", lambda *parts: Path(f"{tmp_path}{Path(*parts)}"))
    assert list(memory._limits()) == [1000]  # without statistics
    (group / "memory.stat").write_text("inactive_file 3000")
    assert list(memory._limits()) == [4000]
    statistics = tmp_path / "memory.stat"
    statistics.write_text("anon 5\ninactive_file 7000\nactive_file 3\n")
    assert memory._given_back(statistics) == 7000
    statistics.write_text("inactive_file 70\ntotal_inactive_file 9000\n")  # of version 1
    assert memory._given_back(statistics) == 9000


def test_networks_that_are_not_ours_are_left_out_of_the_estimate():
    for net in ("keras.applications:resnet50", "some_module:some_function"):
        asked = ["--dataset=digits", "--steps=1", "--max_memory_gb=0.001"]
        memory.refuse_too_large(flags.parse([*asked, f"--net={net}"]))
        with pytest.raises(FlagError, match="set --max_memory_gb if this is wrong"):
            memory.refuse_too_large(flags.parse([*asked, "--net=resnet8"]))


def test_small_runs_fit_and_the_limit_is_the_users():
    asked = flags.parse([*DIGITS, "--steps=1", "--max_memory_gb=1"])
    memory.refuse_too_large(asked)
    with pytest.raises(FlagError, match="set --max_memory_gb if this is wrong"):
        memory.refuse_too_large(asked.replace(max_memory_gb=0.0001))


def test_the_paper_s_own_runs_are_not_refused_where_memory_suffices():
    for dataset, net in (("cifar100", "wrn-28-10"), ("market1501", "inception_v1")):
        asked = config.load(dataset=dataset, net=net, cohort=2, max_memory_gb=80)
        memory.refuse_too_large(asked)
        with pytest.raises(FlagError, match="set --max_memory_gb if this is wrong"):
            memory.refuse_too_large(asked.replace(max_memory_gb=0.1))
