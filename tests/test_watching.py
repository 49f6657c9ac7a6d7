"""What a person sees of a run: a line, TensorBoard's charts, names, and other trackers."""

import io
import re
import sys

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dml_tf import home
from dml_tf.paper import progress as paper_progress
from dml_tf.paper import run_all, workers
from dml_tf.paper.estimate import Estimate
from dml_tf.runs import config, progress, summaries, train, words
from dml_tf.runs.config import Schedule
from dml_tf.runs.files import RunFiles

LOGS = {
    "a_accuracy": 0.5, "b_accuracy": 0.25, "ensemble_accuracy": 0.75, "a_supervised_loss": 9.0,
    "a_mimicry_loss": 0.1, "b_mimicry_loss": 0.3,
}  # fmt: skip


class Model:
    peer_names = ("a", "b")


def shown(
    live,
    monkeypatch,
    epochs=3,
    per_epoch=4,
    seconds=10.0,
    validation=None,
    last=None,
    schedule=None,
):
    """What is printed when each step takes some seconds, and epoch `last` ends the run."""
    clock, out = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stdout", out)
    schedule = schedule or Schedule(epochs * per_epoch, epochs, per_epoch)
    line = progress.Progress(schedule, 16, live)
    line._model = Model()
    line.set_params({"steps": per_epoch})
    for epoch in range(last or epochs):
        line.on_epoch_begin(epoch)
        for step in range(per_epoch):
            clock[0] += seconds
            line.on_train_batch_end(step, LOGS)
        line.on_epoch_end(epoch, LOGS | (validation or {}))
    line.on_train_end()
    monkeypatch.undo()
    return out.getvalue()


def test_a_log_gets_a_line_with_accuracies_mimicry_speed_and_the_time_left(monkeypatch):
    first, second, third = shown(False, monkeypatch).splitlines()
    peers = "a 50.0%  b 25.0%  ensemble 75.0%  mimicry 0.200"
    # 16 images in 10 seconds; the first step, which traces, does not count
    assert first == f"epoch 1/3  {peers}  2 images/s  80 s left"
    assert second == f"epoch 2/3  {peers}  2 images/s  40 s left"
    assert third == f"epoch 3/3  {peers}  2 images/s  110 s in all"


def test_a_log_is_quiet_while_epochs_are_short(monkeypatch):
    lines = shown(False, monkeypatch, epochs=100, seconds=0.25).splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "31/100", "61/100", "91/100", "100/100"]


def test_a_run_that_stops_early_shows_its_last_epoch(monkeypatch):
    *_, log = shown(False, monkeypatch, epochs=100, seconds=0.25, last=5).splitlines()
    assert log.startswith("epoch 5/100") and log.endswith("5 s in all")
    monkeypatch.setenv("COLUMNS", "200")
    *_, terminal = shown(True, monkeypatch, seconds=0.01, last=2).split("\r")
    assert terminal.startswith("epoch 2/3") and terminal.endswith("in all\n")


def test_a_run_shorter_than_an_epoch_shows_speed_and_time(monkeypatch):
    short = Schedule(4, 1, 100)
    (line,) = shown(False, monkeypatch, epochs=1, schedule=short).splitlines()
    assert line.endswith("2 images/s  30 s in all")


def test_held_out_accuracies_stand_beside_those_of_training(monkeypatch):
    *_, last = shown(False, monkeypatch, validation={"val_a_accuracy": 0.4}).splitlines()
    assert "a 50.0% (val 40.0%)  b 25.0%  ensemble" in last


def test_a_terminal_gets_one_line_that_is_written_over_and_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(True, monkeypatch)
    assert text.count("\n") == 1 and text.endswith("\n")
    versions = text.rstrip("\n").split("\r")[1:]
    assert len(versions) > 3 and all(len(version) == 39 for version in versions)


def test_metrics_are_named_by_quantity_and_peer():
    peers = ("net", "net_accuracy")  # the longer name counts
    assert summaries.tag("net_accuracy", ("net", "b")) == "accuracy/net"
    assert summaries.tag("net_accuracy_mimicry_loss", peers) == "mimicry_loss/net_accuracy"
    assert summaries.tag("ensemble_accuracy", peers) == "accuracy/ensemble"
    assert summaries.tag("loss", peers) == "loss"


def test_likeness_is_entropy_divergence_and_agreement_by_hand():
    a, b = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    found = summaries.likeness({"a": a, "b": b, "ensemble": (a + b) / 2})
    first = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert found["kl/a_to_b"] == pytest.approx(first / 2)
    assert found["kl/b_to_a"] == pytest.approx(
        (0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)) / 2
    )
    assert found["agreement/a_and_b"] == 0.5
    ninth = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert found["entropy/a"] == pytest.approx((np.log(2) + ninth) / 2)
    assert set(found) == {
        "entropy/a", "entropy/b", "entropy/ensemble", "kl/a_to_b", "kl/b_to_a", "agreement/a_and_b",
    }  # fmt: skip


def test_a_run_leaves_what_tensorboard_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "_AT_END_S", 0.0)
    asked = config.load(
        dataset="digits", net="resnet8:2", cohort=2, image_size=8, batch_size=16, train_images=64,
        validation_fraction=0.25, steps=8, results_dir=str(tmp_path),
    )  # fmt: skip
    record = train.run(asked, verbose=0)
    folder = RunFiles.of(asked).tensorboard
    parts = {
        part: EventAccumulator(str(folder / part)).Reload() for part in ("train", "validation")
    }
    trained, held_out = (parts[part].Tags()["tensors"] for part in ("train", "validation"))
    peers = ("resnet8_0", "resnet8_1")
    for tag in (f"{q}/{p}" for q in ("accuracy", "mimicry_loss", "learning_rate") for p in peers):
        assert tag in trained
    assert {"custom_scalars__config__", "_hparams_/session_start_info"} <= set(trained)
    likeness = {
        "kl/resnet8_0_to_resnet8_1",
        "agreement/resnet8_0_and_resnet8_1",
        "entropy/ensemble",
    }
    assert likeness | {"accuracy/ensemble", "supervised_loss/resnet8_1"} <= set(held_out)
    events = parts["train"].Tensors("accuracy/resnet8_0")
    values = [keras.ops.convert_to_numpy(e.tensor_proto.float_val or [np.frombuffer(
        e.tensor_proto.tensor_content, np.float32)[0]])[0] for e in events]  # fmt: skip
    np.testing.assert_allclose(values, record["history"]["resnet8_0_accuracy"], rtol=1e-6)


def test_a_short_run_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "_AT_END_S", 1000.0)
    asked = config.load(
        dataset="digits", net="resnet8:2", cohort=2, image_size=8, batch_size=16, train_images=64,
        steps=4, results_dir=str(tmp_path),
    )  # fmt: skip
    train.run(asked, verbose=0)
    events = EventAccumulator(str(RunFiles.of(asked).tensorboard / "train")).Reload()
    tags = events.Tags()["tensors"]
    assert "accuracy/resnet8_0" in tags
    assert not [tag for tag in tags if tag.startswith(("kl/", "entropy/", "agreement/"))]


# All runs


def test_a_run_has_a_name_that_a_person_can_read():
    pair = config.load(dataset="digits", net="resnet8:16", cohort=2, seed=3)
    assert words.title(pair) == "DML, 2 x resnet8:16, digits, seed 3"
    mixed = config.load(
        dataset="digits", net="wrn-10-2,resnet8:16", method="distill", learning_rate=0.2
    )
    assert (
        words.title(mixed)
        == "distillation, wrn-10-2 + resnet8:16, digits, seed 0 (learning_rate=0.2)"
    )


def test_run_all_shows_names_that_a_person_can_read(tmp_path, capsys):
    asked = config.load(dataset="digits", net="resnet8:16", cohort=2, results_dir=str(tmp_path))
    task = run_all._task(asked, Estimate())
    events = [workers.Event("started", task), workers.Event("failed", task, "no data")]
    clock = paper_progress.Clock([task.name], {}, 1)
    assert paper_progress.follow(events, clock) == [(task, "no data")]
    assert "s  DML, 2 x resnet8:16, digits, seed 0\n" in capsys.readouterr().out


# Other trackers


def test_the_lines_for_mlflow_in_the_docs_log_a_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow")
    page = (home.HOME / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(import keras\nimport mlflow.*?)^```", page, re.S | re.M)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    exec(code, names := {})
    (run,) = mlflow.MlflowClient().search_runs(
        [e.experiment_id for e in mlflow.MlflowClient().search_experiments()]
    )
    assert run.data.params["learning_rate"] == str(names["asked"].learning_rate)
    assert 0 <= run.data.metrics["resnet8_0_accuracy"] <= 1


def test_after_the_rest_of_an_interrupted_epoch_the_time_left_is_still_shown(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    clock, out = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stdout", out)
    line = progress.Progress(Schedule(12, 3, 4), 16, live=True)
    line._model = Model()
    for epoch, steps in ((0, 2), (1, 4)):  # two calls of `fit`, as after Ctrl-C in an epoch
        line.set_params({"steps": steps})
        line.on_epoch_begin(epoch)
        for step in range(steps):
            clock[0] += 10
            line.on_train_batch_end(step, LOGS)
        line.on_epoch_end(epoch, LOGS)
        if not epoch:
            line.on_train_end()
    monkeypatch.undo()
    assert out.getvalue().rstrip().endswith("40 s left")
