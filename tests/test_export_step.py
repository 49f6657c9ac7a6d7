"""The exported training step: in JAX it does what Keras does, stops, goes on, and comes home."""

import errno
import json
import random
import shutil
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import jax
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dml_tf import Cohort, data
from dml_tf.data import Split, Splits
from dml_tf.data.load import pixel_statistics
from dml_tf.data.sources import jpeg_copy
from dml_tf.export import check as check_step
from dml_tf.export import folder as exported
from dml_tf.export import jax_step as portable
from dml_tf.export import read_back as import_weights
from dml_tf.export import run as run_step
from dml_tf.export import write as export_step
from dml_tf.runs import build, checkpoint, config, files, train
from dml_tf.runs.files import RunFiles

jax.config.update("jax_disable_most_optimizations", True)  # compiles in a third of the time

FLAGS = (
    "--dataset=digits --net=resnet8:4 --cohort=2 --image_size=8 --batch_size=16 "
    "--train_images=100 --augment=crop_flip --epochs=4 --decay_epochs=2"
).split()
STEPS, PER_EPOCH = 24, 6
CPU = jax.devices("cpu")[0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An exported pair, whose programs are compiled once for all tests of a process."""
    root = tmp_path_factory.mktemp("pair")
    jax.config.update("jax_compilation_cache_dir", str(root / "cache"))
    assert export_step.main([*FLAGS, f"--results_dir={root}/results", str(root / "step")]) == 0
    return root / "step"


@pytest.fixture(scope="module")
def finished(pair):
    """The same, trained to its end without a stop."""
    folder = pair.with_name("finished")
    shutil.copytree(pair, folder)
    assert run_step.main([str(folder)]) == 0
    return folder


@pytest.fixture
def fresh(pair, tmp_path):
    return shutil.copytree(pair, tmp_path / "step")


def settings_of(folder, **changes):
    places = {"data_dir": None, "results_dir": None, "overwrite": False}
    return import_weights.config_of(exported.read_manifest(folder), places | changes)


# The same training as Keras's


def test_20_steps_agree_with_keras(pair):
    settings, manifest = settings_of(pair), exported.read_manifest(pair)
    splits = build.load_data(settings)
    cohort = build.build_cohort(settings, splits)
    step = tf.function(cohort.train_step)
    variables = checkpoint.variables(cohort)
    _, start = files.load_state(pair / exported.STATE)

    def in_keras(start):
        for variable, value in zip(variables, start, strict=False):
            variable.assign(value)
        losses = []
        for batch in data.train_batches(splits, settings).take(20):
            cohort.reset_metrics()
            logs = step(batch)
            losses.append([float(logs[n]) for n in sorted(logs) if n.endswith("_loss")])
        return np.array(losses), [v.numpy() for v in variables]

    def in_jax(now):
        trainer = portable.Trainer(pair, manifest, splits.train.images, splits.train.labels, CPU)
        losses = []
        for epoch, i in [divmod(i, PER_EPOCH) for i in range(20)]:
            now = trainer.advance(portable.reset_metrics(now, manifest), epoch, i, i + 1)
            logs = portable.metrics(now, manifest)
            losses.append([logs[n] for n in sorted(logs) if n.endswith("_loss")])
        return np.array(losses), jax.device_get(now)[: len(variables)]

    losses, ours = in_keras(start)
    their_losses, theirs = in_jax(start)
    np.testing.assert_allclose(their_losses, losses, atol=1e-4, rtol=0)
    # Two right programs round differently, and training amplifies that. By how much is measured:
    # Keras's own run from weights that are one rounding away, up or down, each. A rounding of a
    # later step has fewer steps to grow in, so each step's adds at most about that much again; of
    # random signs, those of 20 steps add to sqrt(20) = 4.5 times it, and an update is a sum of
    # more than one rounding: ten times it is allowed. Seen: 1.5 times, 4e-6 of weights near 1.
    rng = np.random.default_rng(0)
    _, twin = in_keras([one_rounding_away(value, rng) for value in start])
    tolerance = 10 * largest_difference(ours, twin)
    assert largest_difference(ours, theirs) <= tolerance
    assert tolerance < 1e-3 * largest_difference(ours, start)  # which a mistake would exceed


def one_rounding_away(value, rng):
    if value.dtype != np.float32:
        return value
    return np.nextafter(value, rng.choice([-np.inf, np.inf], value.shape).astype(np.float32))


def largest_difference(first, second):
    pairs = zip(first, second, strict=False)
    return max(np.max(np.abs(a - b)) for a, b in pairs if a.dtype == np.float32)


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_batches_equal_those_of_tf_data_bit_for_bit(augment):
    images = np.random.default_rng(0).integers(0, 256, (10, 12, 12, 3), np.uint8)
    labels = np.arange(10) % 4 - 1
    mean, std = pixel_statistics(images)
    train_split = Split(images, labels)
    splits = Splits("random", train_split, None, train_split, 3, ("a", "b", "c"), mean, std)
    settings = {"batch_size": 4, "augment": augment, "seed": 3}
    described = exported.describe(images, labels) | {"mean": mean.tolist(), "std": std.tolist()}
    manifest = {"config": settings, "images": described}
    batches = data.train_batches(splits, SimpleNamespace(**settings)).take(4)
    on_device, batch = portable.to_device(images, labels, manifest, CPU), jax.jit(portable.batch)
    for (epoch, i), expected in zip([(0, 0), (0, 1), (1, 0), (1, 1)], batches, strict=True):
        draws = exported.epoch_draws(manifest, epoch)
        found = batch(on_device, data.EpochDraws(*(array[i] for array in draws)))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_many_steps_in_one_dispatch_equal_single_ones(pair, capsys):
    manifest = exported.read_manifest(pair)
    images, (_, start) = (
        exported.training_set(pair, manifest),
        files.load_state(pair / exported.STATE),
    )
    single, loop = (
        jax.device_get(
            portable.Trainer(pair, manifest, *images, CPU, "highest", d).advance(start, 1, 0, 4)
        )
        for d in (portable.one_by_one, portable.in_one_dispatch)
    )
    assert largest_difference(single, loop) < 1e-5
    assert largest_difference(single, start) > 1e-2
    assert check_step.main([str(pair)]) == 0
    assert "highest precision: losses within" in capsys.readouterr().out


def test_the_program_returns_what_it_updates_and_no_frozen_peer():
    def peer(name):
        x = keras.Input((2, 2, 1))
        hidden = keras.layers.BatchNormalization()(keras.layers.Flatten()(x))
        return keras.Model(x, keras.layers.Dense(3)(hidden), name=name)

    cohort = Cohort([peer("teacher"), peer("student")], frozen=(0,))
    cohort.compile("sgd")
    metrics = [v for metric in cohort.metrics for v in metric.variables]
    variables = [*checkpoint.variables(cohort), *metrics]
    text, updated = export_step.lower(cohort, variables, (5, 2, 2, 1))
    read_only = {id(v) for v in (*cohort.networks[0].variables, cohort.optimizers[0].learning_rate)}
    assert updated == [i for i, v in enumerate(variables) if id(v) not in read_only]
    assert "mhlo" not in text and "custom_call" not in text
    with pytest.raises(RuntimeError, match="variables"):
        export_step.lower(cohort, variables[:-1], (5, 2, 2, 1))


def test_learning_rates_are_inputs_that_follow_keras_schedule(pair):
    settings, manifest = settings_of(pair), exported.read_manifest(pair)
    schedule = build.learning_rate(settings, PER_EPOCH)
    expected = [float(schedule(epoch * PER_EPOCH)) for epoch in range(4)]
    assert manifest["learning_rate"]["by_epoch"] == expected
    assert expected[1] == pytest.approx(10 * expected[2])
    places = manifest["learning_rate"]["places"]
    assert [manifest["variables"][i]["name"] for i in places] == ["learning_rate"] * 2

    images, (_, start) = (
        exported.training_set(pair, manifest),
        files.load_state(pair / exported.STATE),
    )
    kernels = [i for i, v in enumerate(manifest["variables"]) if v["name"] == "logits/kernel"]
    for rate, moves in ((0.1, True), (0.0, False)):
        manifest["learning_rate"]["by_epoch"][0] = rate
        trainer = portable.Trainer(pair, manifest, *images, CPU)
        after = jax.device_get(trainer.advance(start, 0, 0, 1))
        assert [bool(np.any(after[i] != start[i])) for i in kernels] == [moves] * 2


def test_a_constant_learning_rate_is_the_optimizers_own_variable():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    cohort = Cohort([network])
    cohort.compile(keras.optimizers.SGD(0.3))
    (rate,) = export_step.learning_rates(cohort)
    assert any(rate is variable for variable in checkpoint.variables(cohort))
    assert float(rate) == pytest.approx(0.3)


# Stopping, going on, coming home


def test_a_run_in_pieces_ends_as_one_without_a_stop(fresh, finished):
    for step in (1, 2):
        assert run_step.main([str(fresh), "--max_seconds=0"]) == run_step.CUT
        assert files.load_state(fresh / exported.STATE)[0]["step"] == step
    assert run_step.main([str(fresh)]) == 0
    (ours, values), (theirs, expected) = (
        files.load_state(folder / exported.STATE) for folder in (fresh, finished)
    )
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert ours["history"] == theirs["history"]
    assert (ours["step"], ours["epoch"]) == (STEPS, 4)


def test_a_finished_run_becomes_an_ordinary_record_like_keras_own(finished, tmp_path, capsys):
    assert import_weights.main([str(finished), f"--results_dir={tmp_path}/there"]) == 0
    there = settings_of(finished, results_dir=f"{tmp_path}/there")
    record = json.loads(RunFiles.of(there).record.read_text())
    assert train.run(there, verbose=0) == record  # which nobody trains again
    assert import_weights.main([str(finished), f"--results_dir={tmp_path}/there"]) == 1
    assert "exists: use another" in capsys.readouterr().err

    own = train.run(settings_of(finished, results_dir=f"{tmp_path}/own"), verbose=0)
    assert set(record) == set(own) | {"measured_on", "trained_on"}
    assert record["config"] == own["config"] and record["steps"] == own["steps"] == STEPS
    assert [entry["jax"] for entry in record["trained_on"]] == [jax.__version__]
    assert set(record["history"]) == set(own["history"])
    for name, values in own["history"].items():
        np.testing.assert_allclose(record["history"][name], values, atol=1e-3)
    for peer, measured in own["test"]["peers"].items():
        assert record["test"]["peers"][peer]["accuracy"] == pytest.approx(
            measured["accuracy"], abs=0.005
        )

    cohort = keras.saving.load_model(RunFiles.of(there).model)
    _, trained = files.load_state(finished / exported.STATE)
    for variable, value in zip(checkpoint.variables(cohort), trained, strict=False):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_running_needs_no_tensorflow(pair):
    code = f"""
import sys
for name in "tensorflow keras absl sklearn pandas matplotlib".split():
    sys.modules[name] = None
from pathlib import Path
from dml_tf.export import check, folder as exported, run
folder = Path({str(pair)!r})
exported.training_set(folder, exported.read_manifest(folder))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# The photographs


def make_jpeg_copy(root):
    colours = np.arange(6, dtype=np.uint8) * 40
    for i, colour in enumerate(colours):
        file = root / "train" / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), colour)).save(file, quality=95)
    with tarfile.open(root / "copy.tar.xz", "w:xz") as archive:
        archive.add(root / "train", "train")
    return colours


def test_the_jpeg_copy_is_read_in_the_order_of_the_official_layout(tmp_path):
    colours = make_jpeg_copy(tmp_path)
    order = [0, 2, 4, 1, 3, 5]  # by class, then by name
    random.Random(0).shuffle(order)
    for place in (tmp_path, tmp_path / "copy.tar.xz"):
        assert jpeg_copy.is_jpeg_copy(place)
        source = jpeg_copy.load_jpeg_copy(place)
        assert source.train.labels.tolist() == [i % 2 for i in order]
        assert source.train.images.shape == (6, 32, 32, 3)
        found = source.train.images.astype(int)[:, 0, 0, 0]
        np.testing.assert_allclose(found, colours[order].astype(int), atol=2)
    assert not jpeg_copy.is_jpeg_copy(tmp_path / "train")


def test_other_images_than_the_exported_are_refused(tmp_path):
    make_jpeg_copy(tmp_path)
    settings = config.load(dataset="cifar10", net=("resnet8",)).comparable()
    train_split = jpeg_copy.load_jpeg_copy(tmp_path).train
    expected = exported.describe(train_split.images, train_split.labels)
    manifest = {"config": settings, "images": expected | {"pixels_sha256": "of another decoder"}}
    images, _ = exported.training_set(tmp_path, manifest, tmp_path / "copy.tar.xz")
    np.testing.assert_array_equal(images, train_split.images)
    manifest["images"]["labels_sha256"] = "of another order"
    with pytest.raises(ValueError, match="labels differ"):
        exported.training_set(tmp_path, manifest, tmp_path)


def test_a_damaged_photograph_is_named(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="train/a/0.jpg cannot be read"):
        jpeg_copy.load_jpeg_copy(tmp_path)


# What goes wrong ends with what to do


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_peer(fresh, capsys):
    progress, values = files.load_state(fresh / exported.STATE)
    names = [v["name"] for v in exported.read_manifest(fresh)["variables"]]
    last_kernel = max(i for i, name in enumerate(names) if name == "logits/kernel")
    values[last_kernel] = np.full_like(values[last_kernel], np.nan)
    files.save_state(fresh / exported.STATE, progress, values)
    before = (fresh / exported.STATE).read_bytes()
    assert run_step.main([str(fresh)]) == 1
    assert "loss of peer resnet8" in capsys.readouterr().err
    assert (fresh / exported.STATE).read_bytes() == before


def error_of(capsys, status, program, *arguments):
    assert program.main([*map(str, arguments)]) == status
    return capsys.readouterr().err


def test_bad_flags_and_unfinished_work_end_with_what_to_do(fresh, tmp_path, capsys):
    def error(*what):
        return error_of(capsys, *what)

    assert "of 24 steps: let" in error(1, import_weights, fresh)
    assert "OUT_DIR is missing" in error(2, export_step, "--dataset=digits")
    assert "--overwrite" in error(2, export_step, *FLAGS, fresh)
    assert "No network" in error(2, export_step, "--dataset=digits", "--net=lenet", tmp_path)
    with exported.hold(fresh):
        assert "Another process is at" in error(1, run_step, fresh)


def test_a_folder_that_is_no_step_is_named_and_left_alone(tmp_path, capsys):
    for program in (run_step, check_step, import_weights):
        assert "export_step" in error_of(capsys, 1, program, tmp_path / "nowhere")
    (tmp_path / exported.MANIFEST).write_text('{"name": "somebody else\'s"}')
    assert "was not written by this version" in error_of(capsys, 1, run_step, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [exported.MANIFEST]


@pytest.mark.parametrize("name", [exported.STATE, exported.IMAGES, exported.PROGRAM])
def test_a_missing_or_half_file_is_named(name, fresh, capsys):
    file = fresh / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert f"{file} is damaged" in error_of(capsys, 1, run_step, fresh)
    file.unlink()
    assert str(file) in error_of(capsys, 1, run_step, fresh)


def test_the_state_of_another_step_is_refused(fresh, capsys):
    progress, values = files.load_state(fresh / exported.STATE)
    files.save_state(fresh / exported.STATE, progress, values[::-1])
    assert "belongs to another step" in error_of(capsys, 1, run_step, fresh)
    progress["config"]["seed"] = 9
    files.save_state(fresh / exported.STATE, progress, values)
    assert "belongs to another step" in error_of(capsys, 1, check_step, fresh)


def test_data_that_take_a_missing_package_ask_for_the_exported_array(fresh, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = error_of(capsys, 1, run_step, fresh, f"--data_dir={fresh}")
    assert "takes sklearn" in message and exported.IMAGES in message


def test_images_of_another_shape_are_refused(fresh, capsys):
    images, labels = np.zeros((100, 9, 9, 1), np.uint8), np.zeros(100, np.int64)
    np.savez(fresh / exported.IMAGES, images=images, labels=labels)
    message = error_of(capsys, 1, run_step, fresh)
    assert "100 of shape [9, 9, 1] where the run has 100 of shape [8, 8, 1]" in message


def test_a_failed_save_keeps_the_state_before(fresh, monkeypatch, capsys):
    before = (fresh / exported.STATE).read_bytes()

    def full(stream, **arrays):
        stream.write(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    message = error_of(capsys, 1, run_step, fresh, "--max_seconds=0")
    assert "No space left" in message and "keeps an earlier state" in message
    assert (fresh / exported.STATE).read_bytes() == before
    assert not list(fresh.glob(".part*"))
