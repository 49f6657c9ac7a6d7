"""`python -m dml_tf.export`: a run stops, resumes and becomes a record; mistakes are named."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import keras
import numpy as np
import pytest
from rounding import largest_difference, tolerance, twins_of

from dml_tf import data, errors
from dml_tf.export import group, read_back, run
from dml_tf.export.__main__ import COMMANDS, main
from dml_tf.export.folder import FORMAT, IMAGES, MANIFEST, PROGRAM, STATE, Export
from dml_tf.runs import build, checkpoint, records, train
from dml_tf.runs.files import RunFiles

STEPS = 24


@pytest.fixture(scope="module")
def finished(exported_pair):
    """An exported pair that is trained to its end without a stop."""
    folder = shutil.copytree(exported_pair, exported_pair.with_name("finished"))
    assert main(["run", str(folder)]) == 0
    return Export.read(folder)


@pytest.fixture
def fresh(exported_pair, tmp_path):
    return Export.read(shutil.copytree(exported_pair, tmp_path / "step"))


# Stopping, resuming, becoming a record


ONE_STEP_A_DISPATCH = run.Manner(dispatch_s=0)


@pytest.mark.parametrize(
    "stops", [(1,), (6,), (2, 7), (18, 23)], ids=lambda stops: "+".join(map(str, stops))
)
def test_a_run_in_pieces_ends_as_one_without_a_stop(stops, fresh, finished):
    """The sixth step is an epoch's last; some stops are in an epoch, some at its end."""
    for stop in stops:
        piece = run.Group([fresh], ONE_STEP_A_DISPATCH)
        while piece.training[0].step < stop:
            piece.dispatch()
        piece.save()
    assert main(["run", str(fresh.folder)]) == 0
    (progress, values), (expected_progress, expected) = fresh.read_state(), finished.read_state()
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert progress["history"] == expected_progress["history"]
    assert (progress["step"], progress["epoch"]) == (STEPS, 4)


def test_what_was_done_after_the_last_save_is_done_again(fresh, finished):
    killed = run.Group([fresh], ONE_STEP_A_DISPATCH)
    for step in range(1, 10):
        killed.dispatch()
        if step == 4:
            killed.save()
    assert fresh.read_state()[0]["step"] == 4
    assert main(["run", str(fresh.folder)]) == 0
    for value, other in zip(fresh.read_state()[1], finished.read_state()[1], strict=True):
        np.testing.assert_array_equal(value, other)


def test_a_signal_ends_a_run_after_its_dispatch_and_what_is_done_is_saved(fresh, monkeypatch):
    real, steps = run.Group.dispatch, []

    def stopped_in_the_fifth(self):
        ended = real(self)
        steps.append(self.training[0].step)
        if steps[-1] == 5:
            signal.raise_signal(signal.SIGTERM)
            steps.append("to its end")
        return ended

    monkeypatch.setattr(run.Group, "dispatch", stopped_in_the_fifth)
    assert main(["run", str(fresh.folder), "--dispatch=0"]) == errors.STOPPED + signal.SIGTERM
    assert fresh.read_state()[0]["step"] == 5 and steps == [1, 2, 3, 4, 5, "to its end"]


def test_a_run_that_max_seconds_cuts_ends_with_status_3(fresh):
    for step in (1, 2):
        assert main(["run", str(fresh.folder), "--max_seconds=0"]) == errors.CUT == 3
        assert fresh.read_state()[0]["step"] == step


def test_a_finished_run_becomes_an_ordinary_record(finished, tmp_path, capsys):
    command = ["import", str(finished.folder), f"--results_dir={tmp_path}"]
    assert main(command) == 0
    settings = finished.config.replace(results_dir=str(tmp_path))
    record = records.read(RunFiles.of(settings).record)
    assert train.run(settings, verbose=0) == record  # the record is found: nothing is trained
    assert main(command) == 1
    assert "exists: use another" in capsys.readouterr().err
    assert [entry["jax"] for entry in record["trained_on"]] == [jax.__version__]
    cohort = keras.saving.load_model(RunFiles.of(settings).model)
    _, trained = finished.read_state()
    for variable, value in zip(checkpoint.variables(cohort), trained, strict=False):
        np.testing.assert_array_equal(variable.numpy(), value)


def trained_twins(exported_pair, folder):
    """The final states of runs that differ by rounding only from that of the pair."""
    progress, start = Export.read(exported_pair).read_state()
    for k, values in enumerate(twins_of(start)):
        twin = Export.read(shutil.copytree(exported_pair, folder / f"twin{k}"))
        twin.save_state(progress, values)
        assert main(["run", str(twin.folder)]) == 0
        yield twin.read_state()


def losses_of(history):
    return [np.array(history[name]) for name in sorted(history) if name.endswith("_loss")]


def logits_of(cohort, batches):
    """Test logits of each peer, shape `(images, classes)`."""
    return [
        np.concatenate([net(images)["logits"] for images, _ in batches]) for net in cohort.networks
    ]


def undecided(logits, allowed):
    """Share of the images whose two best logits are so close that rounding may swap them."""
    ordered = np.sort(logits, axis=-1)
    return np.mean(ordered[:, -1] - ordered[:, -2] <= 2 * allowed)


def test_the_record_agrees_with_that_of_keras_own_run(finished, exported_pair, tmp_path):
    settings = finished.config.replace(results_dir=f"{tmp_path}/jax")
    keras_settings = finished.config.replace(results_dir=f"{tmp_path}/keras")
    record = read_back.import_run(finished, settings)
    own = train.run(keras_settings, verbose=0)
    assert set(record) == set(own) | {"measured_on", "trained_on"}
    assert record["config"] == own["config"] and record["steps"] == own["steps"] == STEPS
    twins = list(trained_twins(exported_pair, tmp_path))

    losses, own_losses = losses_of(record["history"]), losses_of(own["history"])
    allowed = tolerance(losses, [losses_of(progress["history"]) for progress, _ in twins])
    assert largest_difference(losses, own_losses) <= allowed
    assert allowed < 1e-3 * np.ptp(losses)  # which a mistake would exceed
    assert set(record["history"]) == set(own["history"])
    one_image = 1 / (finished.schedule.steps_per_epoch * finished.config.batch_size)
    for name in [name for name in own["history"] if name.endswith("_accuracy")]:
        found, expected = record["history"][name], own["history"][name]
        np.testing.assert_allclose(found, expected, atol=1.01 * one_image)  # one tie at most

    splits = build.load_data(settings)
    batches = data.eval_batches(splits.test, splits, 256)
    own_logits = logits_of(keras.saving.load_model(RunFiles.of(keras_settings).model), batches)
    cohort = keras.saving.load_model(RunFiles.of(settings).model)
    logits, twin_logits = logits_of(cohort, batches), []
    for _, values in twins:
        for variable, value in zip(checkpoint.variables(cohort), values, strict=False):
            variable.assign(value)
        twin_logits.append(logits_of(cohort, batches))
    allowed = tolerance(logits, twin_logits)
    assert largest_difference(logits, own_logits) <= allowed < 1e-3 * np.ptp(logits)
    for k, (peer, expected) in enumerate(own["test"]["peers"].items()):
        difference = record["test"]["peers"][peer]["accuracy"] - expected["accuracy"]
        assert abs(difference) <= undecided(logits[k], allowed) + 1e-9


def test_an_exported_distillation_trains_its_teacher_first(tmp_path):
    flags = (
        "--dataset=digits --net=resnet8:4,resnet8:4 --method=distill --image_size=8 "
        f"--batch_size=16 --train_images=32 --steps=1 --results_dir={tmp_path}/results"
    ).split()
    assert main(["write", *flags, str(tmp_path / "step")]) == 0
    export = Export.read(tmp_path / "step")
    assert RunFiles.of(export.config.default_teacher).record.exists()
    teacher = keras.saving.load_model(RunFiles.of(export.config.default_teacher).model)
    _, values = export.read_state()
    for variable, value in zip(teacher.networks[0].weights, values, strict=False):
        np.testing.assert_array_equal(variable.numpy(), value)


# Without TensorFlow


def without_tensorflow(exported_pair, *arguments):
    """The command where only NumPy, JAX and Pillow are; its result, with what it printed."""
    code = """
import sys
for name in "tensorflow keras absl sklearn pandas matplotlib jinja2 tensorflow_datasets".split():
    sys.modules[name] = None
from dml_tf.export.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    jax_settings = {
        "JAX_COMPILATION_CACHE_DIR": str(exported_pair.with_name("cache")),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | jax_settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_running_needs_no_tensorflow(exported_pair, fresh, finished):
    ended = without_tensorflow(exported_pair, "run", fresh.folder)
    assert ended.returncode == 0, ended.stderr
    assert f"{STEPS} of {STEPS} steps are done." in ended.stdout
    for value, other in zip(fresh.read_state()[1], finished.read_state()[1], strict=True):
        np.testing.assert_array_equal(value, other)


def test_checking_needs_no_tensorflow(exported_pair):
    ended = without_tensorflow(exported_pair, "check", exported_pair)
    assert ended.returncode == 0, ended.stderr
    assert "highest precision: losses within" in ended.stdout


@pytest.mark.parametrize("name", ["check", "run", "import"])
def test_help_needs_no_tensorflow_and_shows_an_example(name, exported_pair):
    ended = without_tensorflow(exported_pair, name, "--help")
    assert ended.returncode == 0, ended.stderr
    assert f"example:\n  python -m dml_tf.export {name} " in ended.stdout


def test_a_missing_package_is_named_with_the_requirements(exported_pair):
    ended = without_tensorflow(exported_pair, "import", exported_pair)
    assert ended.returncode == 1
    assert "is not installed" in ended.stderr and "requirements.txt" in ended.stderr


# The command line


def test_without_a_command_the_commands_are_listed(capsys):
    for arguments, status in (([], 2), (["train"], 2), (["--help"], 0)):
        assert main(arguments) == status
        printed = capsys.readouterr()
        listed = printed.err if status else printed.out
        assert all(f"\n  {name} " in listed for name in COMMANDS)


def test_the_help_of_write_shows_an_example_and_the_flags(capsys):
    assert main(["write", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "example:\n  python -m dml_tf.export write " in printed and "--batch_size" in printed


def error_of(capsys, status, *arguments):
    assert main([*map(str, arguments)]) == status
    return capsys.readouterr().err


def test_bad_flags_and_unfinished_work_end_with_what_to_do(fresh, tmp_path, capsys):
    def error(*what):
        return error_of(capsys, *what)

    digits = ("--dataset=digits", "--net=resnet8")
    assert "of 24 steps. Finish it" in error(1, "import", fresh.folder)
    assert "OUT_DIR is missing" in error(2, "write", "--dataset=digits")
    assert "--overwrite" in error(2, "write", *digits, fresh.folder)
    assert "No network" in error(2, "write", "--dataset=digits", "--net=lenet", tmp_path)
    with fresh.hold():
        assert "Another process uses" in error(1, "run", fresh.folder)


def test_a_folder_that_is_no_step_is_named_and_left_alone(tmp_path, capsys):
    for command in ("run", "check", "import"):
        assert "dml_tf.export write" in error_of(capsys, 1, command, tmp_path / "nowhere")
    (tmp_path / MANIFEST).write_text('{"name": "somebody else\'s"}')
    assert "of another format than" in error_of(capsys, 1, "run", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [MANIFEST]


def test_a_manifest_of_another_format_is_refused(fresh, capsys):
    newer = fresh.manifest["config"] | {"new_setting": 1}
    for manifest in (fresh.manifest | {"config": newer}, fresh.manifest | {"format": FORMAT + 1}):
        (fresh.folder / MANIFEST).write_text(json.dumps(manifest))
        assert "of another format than" in error_of(capsys, 1, "run", fresh.folder)


def test_a_manifest_of_version_0_2_is_read(fresh):
    """It has no number, and explains the same format in other words."""
    newer = ("format", "digest", "program_sha256")
    manifest = {key: value for key, value in fresh.manifest.items() if key not in newer}
    (fresh.folder / MANIFEST).write_text(json.dumps(manifest | {"conventions": {}}))
    assert Export.read(fresh.folder).config == fresh.config


def test_a_wrong_setting_in_a_manifest_is_named(fresh, capsys):
    manifest = fresh.manifest | {"config": fresh.manifest["config"] | {"batch_size": 0}}
    (fresh.folder / MANIFEST).write_text(json.dumps(manifest))
    assert "--batch_size=0 is out of range" in error_of(capsys, 2, "run", fresh.folder)


@pytest.mark.parametrize("name", [STATE, IMAGES, PROGRAM])
def test_a_missing_or_half_file_is_named(name, fresh, capsys):
    file = fresh.folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert f"{file} is damaged" in error_of(capsys, 1, "run", fresh.folder)
    file.unlink()
    assert str(file) in error_of(capsys, 1, "run", fresh.folder)


def test_the_state_of_another_step_is_refused(fresh, capsys):
    progress, values = fresh.read_state()
    fresh.save_state(progress, values[::-1])
    assert "belong to different steps" in error_of(capsys, 1, "run", fresh.folder)
    progress["config"]["seed"] = 9
    fresh.save_state(progress, values)
    assert "belong to different steps" in error_of(capsys, 1, "check", fresh.folder)


def test_data_that_take_a_missing_package_ask_for_the_exported_array(fresh, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = error_of(capsys, 1, "run", fresh.folder, f"--data_dir={fresh.folder}")
    assert "takes sklearn" in message and IMAGES in message


def test_images_of_another_shape_are_refused(fresh, capsys):
    images, labels = np.zeros((100, 9, 9, 1), np.uint8), np.zeros(100, np.int64)
    np.savez(fresh.folder / IMAGES, images=images, labels=labels)
    message = error_of(capsys, 1, "run", fresh.folder)
    assert "100 of shape [9, 9, 1] where the run has 100 of shape [8, 8, 1]" in message


# What fails during a run


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_peer(fresh, capsys):
    progress, values = fresh.read_state()
    names = [v["name"] for v in fresh.manifest["variables"]]
    last_kernel = max(i for i, name in enumerate(names) if name == "logits/kernel")
    values[last_kernel] = np.full_like(values[last_kernel], np.nan)
    fresh.save_state(progress, values)
    before = (fresh.folder / STATE).read_bytes()
    assert "loss of peer resnet8" in error_of(capsys, 1, "run", fresh.folder)
    assert (fresh.folder / STATE).read_bytes() == before


def test_a_failed_save_keeps_the_state_before(fresh, monkeypatch, capsys):
    before = (fresh.folder / STATE).read_bytes()

    def full(stream, **arrays):
        stream.write(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    message = error_of(capsys, 1, "run", fresh.folder, "--max_seconds=0")
    assert "No space left" in message and "keeps an earlier state" in message
    assert (fresh.folder / STATE).read_bytes() == before
    assert not list(fresh.folder.glob(".part*"))


def test_a_failing_device_ends_the_run_with_its_reason(fresh, monkeypatch, capsys):
    def out_of_memory(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(group, "advance_together", out_of_memory)
    assert "RESOURCE_EXHAUSTED" in error_of(capsys, 1, "run", fresh.folder)


def test_a_platform_without_a_device_is_named(fresh, monkeypatch, capsys):
    def no_backend(platform=None):
        raise RuntimeError("Unable to initialize backend 'tpu'")

    monkeypatch.setattr(jax, "devices", no_backend)
    assert "JAX finds no device" in error_of(capsys, 1, "run", fresh.folder)
