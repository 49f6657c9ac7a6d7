"""One run from flags to record: interrupted, repeated, refused."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import train as command
from dml_tf import Cohort, data
from dml_tf.errors import FlagError, RecordMismatch, RunFailed
from dml_tf.measures import evaluate
from dml_tf.runs import build, checkpoint, config, records, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.files import RunFiles, load_state
from dml_tf.runs.parallel.placement import Placement

ROOT = Path(__file__).parent.parent
SMALL = {"dataset": "digits", "net": ("resnet8:4",), "image_size": 8, "batch_size": 16}


def settings(tmp_path, **changes):
    return config.load(**{**SMALL, "steps": 3, "results_dir": str(tmp_path), **changes})


def command_line(*flags):
    """A finished `python train.py` process."""
    program = [sys.executable, "train.py", *flags]
    users = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(program, cwd=ROOT, env=users, capture_output=True, text=True, check=False)


def weights(file):
    cohort = keras.saving.load_model(file)
    return [w.numpy() for net in cohort.networks for w in net.weights]


def assert_same_weights(first, second):
    for ours, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_leaves_the_record_that_tables_need(tmp_path):
    asked = settings(tmp_path, cohort=2, validation_fraction=0.2, steps=0, epochs=2)
    record = train.run(asked, verbose=0)
    assert records.read(RunFiles.of(asked).record) == record
    assert record["run_id"] == asked.run_id
    assert record["config"] == asked.comparable()
    assert record["data"] == "Handwritten digits (scikit-learn)"
    assert record["steps"] == 2 * (200 // 16)
    assert set(record["parameters"]) == {"resnet8_0", "resnet8_1"}
    for part in ("train", "validation", "test"):
        for measured in (*record[part]["peers"].values(), record[part]["ensemble"]):
            assert 0 <= measured["accuracy"] <= 1
    assert len(record["history"]["val_resnet8_1_accuracy"]) == 2
    assert record["warnings"] == []
    assert record["repeatable"]["same_bits"] is True
    assert min(record["repeatable"]["threads"].values()) >= 1
    assert record["wall_clock_s"] > 0 and record["cpu_s"] > 0 and record["images_per_s"] > 0


def test_test_images_are_watched_without_a_trace_in_the_weights(tmp_path):
    plain, watched = (settings(tmp_path, steps=15, watch_test=watch) for watch in (False, True))
    records_of = [train.run(asked, verbose=0) for asked in (plain, watched)]
    seen = [record["history"].get("val_resnet8_accuracy") for record in records_of]
    assert seen[0] is None and len(seen[1]) == 2
    assert seen[1][-1] == pytest.approx(records_of[1]["test"]["peers"]["resnet8"]["accuracy"])
    assert_same_weights(*(RunFiles.of(asked).model for asked in (plain, watched)))


def test_the_saved_cohort_measures_what_the_record_says(tmp_path):
    asked = settings(tmp_path, cohort=2)
    record = train.run(asked, verbose=0)
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    splits = build.load_data(asked)
    measured = evaluate.measure(cohort, splits.test, splits, list_correct=True)
    assert measured["peers"] == record["test"]["peers"]


def test_peers_of_one_seed_start_alike_in_every_method(tmp_path):
    splits = build.load_data(settings(tmp_path))
    alone = build.build_cohort(settings(tmp_path), splits)
    pair = build.build_cohort(settings(tmp_path, cohort=2), splits)
    other = build.build_cohort(settings(tmp_path, seed=1), splits)
    first, second = (net.get_weights() for net in pair.networks)
    for ours, theirs in zip(alone.networks[0].get_weights(), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for different in (second, other.networks[0].get_weights()):
        assert not np.array_equal(first[0], different[0])


def test_the_flags_reach_the_cohort(tmp_path):
    splits = build.load_data(settings(tmp_path))
    options = {"temperature": 2.0, "peer_reduction": "sum", "mimicry_weight": 0.5}
    cohort = build.build_cohort(settings(tmp_path, cohort=3, mimicry="js", **options), splits)
    assert {name: getattr(cohort, name) for name in options} == options
    assert (cohort.mimicry, cohort.update) == ("js", "sequential")
    ensemble = build.build_cohort(settings(tmp_path, cohort=2, method="dml_e"), splits)
    alone = build.build_cohort(settings(tmp_path, cohort=2, method="independent"), splits)
    assert (ensemble.mimicry, alone.mimicry) == ("ensemble", "none")


def test_a_finished_run_is_not_trained_again_unless_told(tmp_path):
    asked = settings(tmp_path)
    first = train.run(asked, verbose=0)
    assert train.run(asked, verbose=0) == first
    again = train.run(asked.replace(overwrite=True), verbose=0)
    assert again["finished"] >= first["finished"] and again["cpu_s"] != first["cpu_s"]
    assert again["test"] == first["test"]


@pytest.mark.parametrize(("seconds", "stays"), [(-10, False), (10, True)])
def test_the_checkpoint_of_a_finished_run_goes_unless_it_is_trained_again(tmp_path, seconds, stays):
    asked = settings(tmp_path)
    train.run(asked, verbose=0)
    files = RunFiles.of(asked)
    state = files.checkpoint() / "state.npz"
    state.parent.mkdir(parents=True)
    state.touch()
    moment = files.record.stat().st_mtime + seconds
    os.utime(state, (moment, moment))
    train.run(asked, verbose=0)
    assert state.parent.exists() == stays


def test_a_record_made_with_other_settings_is_refused(tmp_path):
    asked = settings(tmp_path)
    record = train.run(asked, verbose=0)
    record["config"]["learning_rate"] = 0.3
    records.write(record, RunFiles.of(asked).record)
    with pytest.raises(RecordMismatch, match="learning_rate: 0.3 in the file, 0.1 now"):
        train.run(asked, verbose=0)
    assert records.read(RunFiles.of(asked).record) == record


def test_a_record_from_before_a_setting_existed_still_counts(tmp_path):
    asked = settings(tmp_path)
    record = train.run(asked, verbose=0)
    del record["config"]["temperature"]
    records.write(record, RunFiles.of(asked).record)
    assert records.find(asked) == record


def test_a_damaged_record_is_refused_and_named(tmp_path):
    asked = settings(tmp_path)
    RunFiles.of(asked).record.parent.mkdir(parents=True)
    RunFiles.of(asked).record.write_text("{")
    with pytest.raises(RecordMismatch, match="is not a run's record"):
        train.run(asked, verbose=0)


def test_steps_end_a_run_in_the_middle_of_an_epoch(tmp_path):
    record = train.run(settings(tmp_path, steps=17), verbose=0)
    assert record["steps"] == 17
    assert len(record["history"]["resnet8_accuracy"]) == 2


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_peer_and_step(tmp_path):
    asked = settings(tmp_path, cohort=2, learning_rate=1e30, steps=30)
    with pytest.raises(RunFailed, match=r"loss of peer resnet8_[01] is \w+ at step \d+"):
        train.run(asked, verbose=0)
    assert not RunFiles.of(asked).record.exists()


def test_two_processes_do_not_train_the_same_run(tmp_path):
    asked = settings(tmp_path)
    with (
        Placement().locked(RunFiles.of(asked)),
        pytest.raises(RunFailed, match="Another process is training"),
    ):
        train.run(asked, verbose=0)


def test_an_unknown_network_is_refused_before_data_are_looked_for(tmp_path):
    asked = settings(tmp_path, net=("resnet9",), dataset="cifar10", data_dir="absent")
    with pytest.raises(FlagError, match="--net: .*6n\\+2"):
        train.run(asked, verbose=0)


def test_two_networks_of_one_run_teach_a_third(tmp_path):
    asked = settings(tmp_path, cohort=3, method="distill")
    record = train.run(asked, verbose=0)
    teachers = keras.saving.load_model(RunFiles.of(asked.default_teacher).model)
    assert len(teachers.networks) == 2
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    for trained, frozen in zip(teachers.networks, cohort.networks[:2], strict=True):
        for ours, theirs in zip(trained.get_weights(), frozen.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(record["test"]["peers"]) == 3
    single = settings(tmp_path, cohort=1)
    train.run(single, verbose=0)
    short = settings(tmp_path, cohort=3, method="distill", teacher=single.run_id)
    with pytest.raises(FlagError, match="names 2 teachers before the student"):
        train.run(short, verbose=0)


def test_distillation_trains_its_teacher_first_and_leaves_it_as_it_is(tmp_path):
    asked = settings(tmp_path, net=("resnet8:8", "resnet8:4"), method="distill", seed=2)
    record = train.run(asked, verbose=0)
    teacher = settings(tmp_path, net=("resnet8:8",), seed=2)
    taught = records.find(teacher)
    first = list(record["test"]["peers"].values())[0]
    assert first == taught["test"]["peers"]["resnet8"]


def test_a_teacher_that_does_not_fit_or_is_not_there_is_refused(tmp_path):
    small = settings(tmp_path, image_size=16)
    train.run(small, verbose=0)
    pair = settings(tmp_path, cohort=2, method="distill", teacher=small.run_id)
    with pytest.raises(FlagError, match=r"images of shape \(16, 16, 1\)"):
        train.run(pair, verbose=0)
    with pytest.raises(FileNotFoundError, match="there is no .*absent.keras"):
        train.run(settings(tmp_path, cohort=2, method="distill", teacher="absent"), verbose=0)


class States(keras.callbacks.Callback):
    """Keeps the first peer's trainable and other variables after every step."""

    def __init__(self):
        super().__init__()
        self.trainable, self.others = [], []

    def on_train_batch_end(self, batch, logs=None):
        network = self.model.networks[0]
        self.trainable.append([v.numpy() for v in network.trainable_variables])
        self.others.append([v.numpy() for v in network.non_trainable_variables])


def averages(steps, start):
    """The average with decay 1/2 of each variable over the steps."""
    for values in steps:
        start = [(old + new) / 2 for old, new in zip(start, values, strict=True)]
    return start


def test_averages_of_weights_and_statistics_are_what_is_saved_and_measured(tmp_path):
    states, asked = States(), settings(tmp_path, ema=0.5, ema_statistics=True)
    averaged = train.run(asked, verbose=0, callbacks=[states])
    plain = train.run(settings(tmp_path), verbose=0)
    assert averaged["history"] == plain["history"]
    assert averaged["test"] != plain["test"]
    network = keras.saving.load_model(RunFiles.of(asked).model).networks[0]
    first, *later = states.trainable  # Keras starts from the weights of the first step
    expected = averages(later, first)
    for variable, value in zip(network.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    # Of each BatchNorm: mean, variance and their averages.
    of_steps = [[step[i] for i in range(len(step)) if i % 4 < 2] for step in states.others]
    expected = averages(of_steps, [np.float32(i % 2) for i in range(len(of_steps[0]))])
    saved = [v.numpy() for i, v in enumerate(network.non_trainable_variables) if i % 4 < 2]
    for variable, value in zip(saved, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)


def test_statistics_settle_at_averaged_weights_unless_they_are_averaged(tmp_path):
    states, asked = States(), settings(tmp_path, ema=0.5)
    train.run(asked, verbose=0, callbacks=[states])
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    network = cohort.networks[0]
    settled = [v.numpy() for v in network.non_trainable_variables]
    for variable, last in zip(network.non_trainable_variables, states.others[-1], strict=True):
        variable.assign(last)
    later = data.train_batches(build.load_data(asked), asked, initial_epoch=1)
    train.settle_statistics(cohort, later)
    for variable, value in zip(network.non_trainable_variables, settled, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    assert not np.allclose(settled[0], states.others[-1][0], rtol=1e-3)


def test_entropy_sgd_is_measured_at_its_weights_and_batch_norm_settles_there(tmp_path):
    """A Langevin loop that is under way at the end leaves no trace."""
    asked = settings(tmp_path, optimizer="entropy_sgd", langevin_steps=4, steps=5)
    seen = {}

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            network = self.model.networks[0]
            seen[batch] = [
                [v.numpy() for v in variables]
                for variables in (network.trainable_variables, network.non_trainable_variables)
            ]

    train.run(asked, verbose=0, callbacks=[Look()])
    network = keras.saving.load_model(RunFiles.of(asked).model).networks[0]
    (moved, _), (sample, averages) = seen[3], seen[4]
    for variable, ours, theirs in zip(network.trainable_variables, moved, sample, strict=True):
        np.testing.assert_array_equal(variable.numpy(), ours)
        assert not np.array_equal(ours, theirs)
    for variable, average in zip(network.non_trainable_variables, averages, strict=True):
        assert not np.array_equal(variable.numpy(), average)


@pytest.mark.parametrize("momentum", [0.9, 0.9997])
def test_batch_norm_settles_at_the_statistics_of_the_batches(momentum):
    networks = [
        keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(momentum=momentum)])
        for _ in range(2)
    ]
    cohort = Cohort(networks, names=["teacher", "student"], frozen=(0,))
    batch = np.array([[0.0, 1.0], [2.0, 5.0]], "float32"), np.zeros(2, "int64")
    train.settle_statistics(cohort, tf.data.Dataset.from_tensors(batch).repeat(), count=50)
    left = 0.9**50
    gamma, beta, mean, variance = networks[1].get_weights()
    np.testing.assert_allclose(mean, (1 - left) * np.array([1, 3]), rtol=1e-5)
    np.testing.assert_allclose(variance, (1 - left) * np.array([1, 4]) + left, rtol=1e-5)
    assert gamma.tolist() == [1, 1] and beta.tolist() == [0, 0]
    assert networks[0].get_weights()[2].tolist() == [0, 0]
    assert networks[1].layers[0].momentum == momentum


def test_a_record_says_how_to_prepare_a_new_picture(tmp_path):
    asked = settings(tmp_path)
    record = train.run(asked, verbose=0)
    test = build.load_data(asked).test
    assert list(test.images.shape[1:]) == record["input"]["shape"]
    images = (test.images / 255 - record["input"]["mean"]) / record["input"]["std"]
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    for name, posteriors in cohort.predict(images.astype("float32"), verbose=0).items():
        if name in record["test"]["peers"]:
            right = np.mean(posteriors.argmax(1) == test.labels)
            assert right == pytest.approx(record["test"]["peers"][name]["accuracy"], abs=2e-3)
    assert record["classes"] == list("0123456789")


def test_a_run_starts_from_the_weights_of_another_whose_name_has_a_dot(tmp_path):
    first = settings(tmp_path, net=("mobilenet_short:0.25",), cohort=1)
    train.run(first, verbose=0)
    second = first.replace(pretrained=first.run_id, seed=1)
    assert "w0.25" in first.run_id
    (start,) = build.build_cohort(second, build.load_data(second)).networks
    trained = keras.saving.load_model(RunFiles.of(first).model).networks[0]
    same = [
        np.array_equal(a, b)
        for a, b in zip(start.get_weights(), trained.get_weights(), strict=True)
    ]
    assert same[:-2] == [True] * (len(same) - 2) and not same[-2]  # the classifier is new


# Interruption

RESUMED = {"cohort": 2, "net": ("resnet8:4",), "dropout": 0.3, "augment": "crop_flip",
           "decay_epochs": 2, "validation_fraction": 0.2, "optimizer": "adam",
           "learning_rate": 0.01, "momentum": 0.0, "ema": 0.9}  # fmt: skip


ENTROPY = {"optimizer": "entropy_sgd", "learning_rate": 1.0, "langevin_steps": 7, "momentum": 0.9,
           "langevin_noise": 0.01, "ema": 0.0}  # fmt: skip


class Interrupt(keras.callbacks.Callback):
    """Raises an error after a step."""

    def __init__(self, step, error):
        super().__init__()
        self._step, self._error = step, error

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizers[0].iterations) == self._step:
            raise self._error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({}, ZeroDivisionError, id="adam, killed"),
        pytest.param(
            ENTROPY, KeyboardInterrupt, id="entropy_sgd, by Ctrl-C", marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_stopped_within_an_epoch_ends_as_if_it_had_never_stopped(
    tmp_path, changes, error, monkeypatch, capsys
):
    """It is saved at every step, or when Ctrl-C comes, and resumed there."""
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)
    options = {**RESUMED, "train_images": 100, "steps": 16, **changes}
    whole, stopped = (settings(tmp_path / name, **options) for name in ("whole", "stopped"))
    if error is not KeyboardInterrupt:
        stopped = stopped.replace(save_minutes=0.0)
    uninterrupted = train.run(whole, verbose=0)
    with pytest.raises(error):
        train.run(stopped, verbose=0, callbacks=[Interrupt(9, error())])
    files = RunFiles.of(stopped)
    progress, _ = load_state(files.checkpoint() / "state.npz")
    assert (progress["epoch"], progress["step"]) == (1, 3) and not files.record.exists()
    record = train.run(stopped, verbose=2)
    assert "1 of 3 epochs, and 3 steps of the next, are done; resuming" in capsys.readouterr().out
    assert_same_weights(RunFiles.of(whole).model, files.model)
    assert record["history"] == uninterrupted["history"]
    assert not list((tmp_path / "stopped" / "checkpoints").iterdir())


def test_a_checkpoint_made_with_other_settings_is_refused(tmp_path):
    asked = settings(tmp_path)
    cohort = build.build_cohort(asked, build.load_data(asked))
    saver = Checkpoint(tmp_path / "state", asked)
    saver.set_model(cohort)
    saver.on_train_begin()
    saver.on_epoch_end(0, {"resnet8_accuracy": 0.5})
    saver.on_train_end()
    with pytest.raises(RecordMismatch, match="learning_rate"):
        Checkpoint(tmp_path / "state", asked.replace(learning_rate=0.2)).restore(cohort)
    assert Checkpoint(tmp_path / "state", asked).restore(cohort) == 1
    file = next((tmp_path / "state").iterdir())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RecordMismatch, match=f"{file} is damaged"):
        Checkpoint(tmp_path / "state", asked).restore(cohort)


KILLED = {**SMALL, **RESUMED, "epochs": 12, "save_minutes": 0}


def command_for(folder):
    flags = [config.to_flag(name, value) for name, value in KILLED.items()]
    return [*flags, f"--results_dir={folder}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results of the run that nobody kills."""
    folder = tmp_path_factory.mktemp("whole")
    finished = command_line(*command_for(folder))
    assert finished.returncode == 0, finished.stderr
    assert "resuming" not in finished.stdout
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_ends_with_the_same_weights(tmp_path, whole, number):
    kill_after_first_checkpoint(command_for(tmp_path), tmp_path / "checkpoints", number)
    killed, uninterrupted = (
        RunFiles.of(config.load(**KILLED, results_dir=str(folder))) for folder in (tmp_path, whole)
    )
    assert not killed.record.exists()
    finished = command_line(*command_for(tmp_path))
    assert finished.returncode == 0, finished.stderr
    assert "are done; resuming" in finished.stdout
    assert_same_weights(killed.model, uninterrupted.model)


def kill_after_first_checkpoint(flags, folder, number):
    process = subprocess.Popen(
        [sys.executable, "train.py", *flags], cwd=ROOT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not list(folder.glob("*/state.npz")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, message = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signal.SIGTERM
        assert "train.py: stopped by SIGTERM; what had finished is kept. To resume" in message
        assert "Traceback" not in message


# The command line


def test_the_command_line_reports_each_peer_and_exits_with_0(tmp_path):
    finished = command_line(
        "--dataset=digits", "--net=resnet8:4,mobilenet_short:0.25", "--steps=2",
        "--image_size=8", f"--results_dir={tmp_path}",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()[-4:]
    assert [line.split()[0] for line in lines] == [
        "resnet8", "mobilenet_short", "ensemble", "record:",
    ]  # fmt: skip
    assert "test accuracy" in lines[0]
    assert finished.stderr == ""


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (("--dataset=digits",), 2, "train.py: --net is missing"),
        (("--dataset=digits", "--net=resnet9"), 2, "depth must be 6n+2"),
        (("--dataset=cifar10", "--net=resnet8", "--data_dir=absent"), 1, "absent"),
    ],
)
def test_a_users_mistake_gives_a_message_and_a_status(
    flags, status, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # the command sets it
    assert command.main([*flags, f"--results_dir={tmp_path}"]) == status
    assert message in capsys.readouterr().err


def test_a_process_that_ends_by_a_mistake_shows_no_traceback(tmp_path):
    flags = "--dataset=digits", "--net=resnet8", "--batch_size=5000", f"--results_dir={tmp_path}"
    finished = command_line(*flags)
    assert finished.returncode == 1
    assert "--batch_size=5000" in finished.stderr and "Traceback" not in finished.stderr


def test_saved_cohorts_load_where_only_the_cohort_is_imported(tmp_path):
    files = []
    for optimizer in ("sgd", "rmsprop", "entropy_sgd"):
        asked = settings(tmp_path, optimizer=optimizer, steps=1, epochs=1)
        build.build_cohort(asked, build.load_data(asked)).save(tmp_path / f"{optimizer}.keras")
        files.append(str(tmp_path / f"{optimizer}.keras"))
    program = (
        "import sys, keras; from dml_tf import Cohort; "
        "print([type(keras.saving.load_model(file)) is Cohort for file in sys.argv[1:]])"
    )
    command = [sys.executable, "-c", program, *files]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.stdout == "[True, True, True]\n", finished.stderr


def test_strict_looks_at_the_data_of_a_finished_run_too(tmp_path, monkeypatch):
    asked = config.load(dataset="digits", net=("resnet8:2",), results_dir=str(tmp_path))
    monkeypatch.setattr(train.records, "reusable", lambda run: {"run_id": run.run_id})

    def refuse(run):
        raise RunFailed("--strict refuses these data")

    monkeypatch.setattr(train.build, "load_data", refuse)
    assert train.run(asked, verbose=0) == {"run_id": asked.run_id}
    with pytest.raises(RunFailed, match="--strict refuses"):
        train.run(asked.replace(strict=True), verbose=0)
