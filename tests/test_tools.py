"""What the command does with a finished run: list it, show it pictures, deploy it."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from dml_tf import Cohort, home
from dml_tf.data import eval_batches
from dml_tf.errors import FlagError, RecordMismatch, RunFailed
from dml_tf.runs import build, config, records, results, train
from dml_tf.runs.files import RunFiles, hold, save_state
from dml_tf.tools import card, commands, deploy, formats, list_runs, rank, trained

MEASURES = {"accuracy": 0.5, "cross_entropy": 1.0, "calibration_error": 0.1}


def small(folder, **changes):
    settings = {
        "dataset": "digits", "net": ("resnet8:4",), "cohort": 2, "image_size": 8, "init": "he",
        "epochs": 4, "validation_fraction": 0.2, "results_dir": str(folder),
    }  # fmt: skip
    return config.load(**settings | changes)


def record_of(asked, splits, validation=(0.5, 0.6)):
    names = ("resnet8_0", "resnet8_1")
    peers = {name: MEASURES for name in names}
    chosen = {n: MEASURES | {"accuracy": a} for n, a in zip(names, validation, strict=True)}
    return {
        "run_id": asked.run_id,
        "command": asked.command,
        "config": asked.comparable(),
        "data": splits.name,
        "images": {"train": len(splits.train), "test": len(splits.test)},
        "input": {
            "shape": list(splits.train.images.shape[1:]),
            "mean": splits.mean.tolist(),
            "std": splits.std.tolist(),
        },
        "classes": list(splits.class_names),
        "digest": splits.digests,
        "identity": splits.identity,
        "versions": {"dml_tf": "0"},
        "finished": "2026-01-02T03:04:05+00:00",
        "validation": {"peers": chosen},
        "test": {"peers": peers, "ensemble": MEASURES | {"accuracy": 0.75}},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results folder, data and cohort of a run that is finished, but was not trained."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("results")
    asked = small(folder)
    splits = build.load_data(asked)
    cohort = build.build_cohort(asked, splits)
    records.write(record_of(asked, splits), RunFiles.of(asked).record)
    results.save_model(cohort, RunFiles.of(asked).model)
    return folder, splits, cohort


@pytest.fixture
def pictures(finished, tmp_path):
    _, splits, _ = finished
    for i in range(3):
        Image.fromarray(splits.test.images[i, :, :, 0]).save(tmp_path / f"{i}.png")
    return tmp_path


def call(*words):
    return commands.main([str(word) for word in words])


# predict


def test_predictions_are_the_cohorts_posteriors(finished, pictures, capsys):
    folder, splits, cohort = finished
    out = pictures / "out"
    status = call(
        "predict", "digits-dml", pictures / "0.png", f"{pictures}/[12].png", "--top=2",
        f"--results_dir={folder}", f"--csv={out}.csv", f"--json={out}.json", f"--sheet={out}.png",
    )  # fmt: skip
    assert status == 0
    images, _ = next(iter(eval_batches(splits.test, splits, 3)))
    posteriors = {name: p.numpy() for name, p in cohort(images).items()}
    rows = json.loads((pictures / "out.json").read_text())
    assert len(rows) == 3 * 3 * 2
    for row in rows:
        i = int(row["picture"][-5])
        probabilities = posteriors[row["network"]][i]
        label = np.argsort(-probabilities)[row["rank"] - 1]
        assert row["class"] == splits.class_names[label]
        assert row["probability"] == pytest.approx(probabilities[label], abs=1e-5)
    with open(f"{out}.csv") as file:
        assert [row["class"] for row in csv.DictReader(file)] == [row["class"] for row in rows]
    with Image.open(f"{out}.png") as sheet:
        assert sheet.width > 3 * 100
    text = capsys.readouterr().out
    assert f"{pictures}/0.png\n  resnet8_0  {rows[0]['class']} " in text


def test_all_pictures_that_cannot_be_read_are_named(finished, pictures, capsys):
    for name in ("bad.png", "worse.png"):
        (pictures / name).write_text("no picture")
    assert call("predict", "digits-dml", pictures, f"--results_dir={finished[0]}") == 1
    error = capsys.readouterr().err
    assert "bad.png cannot be read" in error and "worse.png cannot be read" in error


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("cifar", "0.png"), 2, "there is no run cifar in"),
        (("digits", "none.png"), 1, "none.png: there are no pictures of this name"),
        (("digits", "0.png", "--top=0"), 2, "--top=0: give 1 or more"),
        (("digits", "0.png", "--gallery=."), 2, "--gallery is for re-identification"),
    ],
)
def test_what_predict_refuses(finished, pictures, monkeypatch, capsys, words, status, message):
    monkeypatch.chdir(pictures)
    assert call("predict", *words, f"--results_dir={finished[0]}") == status
    assert message in capsys.readouterr().err


def test_a_run_is_found_by_a_part_of_its_name_that_no_other_has(finished, tmp_path):
    folder, splits, _ = finished
    found = trained.find("resnet8w4-seed0", folder)
    assert trained.find(str(found.files.model)).record == found.record
    assert trained.find(str(found.files.record)).files == found.files
    for seed in (0, 10):
        asked = small(tmp_path, seed=seed)
        records.write(record_of(asked, splits), RunFiles.of(asked).record)
    with pytest.raises(FlagError, match="digits is in the names of 2 runs"):
        trained.find("digits", tmp_path)
    exact = trained.find(small(tmp_path).run_id, tmp_path)
    with pytest.raises(RunFailed, match="weights of digits.* are not in .*Train them again"):
        exact.load()
    RunFiles.of(asked).model.parent.mkdir()
    RunFiles.of(asked).model.write_bytes(b"weights")
    assert trained.find("digits", tmp_path).record["config"]["seed"] == 10  # has weights
    with pytest.raises(RecordMismatch, match="was made with other data"):
        found.record["identity"] = {"version": "digits 0"}
        found.load_data()


def test_a_query_is_ranked_by_the_likeness_of_features(tmp_path):
    def colour(name):
        images = keras.Input((4, 2, 3))
        mean = keras.layers.GlobalAveragePooling2D()(images)
        logits = keras.layers.Dense(2)(mean)
        return keras.Model(images, {"logits": logits, "features": mean}, name=name)

    run_id = "pedestrians-dml-colour+colour-seed0"
    record = {
        "run_id": run_id,
        "config": {"dataset": "pedestrians"},
        "input": {"shape": [4, 2, 3], "mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    records.write(record, tmp_path / "runs" / f"{run_id}.json")
    results.save_model(Cohort([colour("a"), colour("b")]), tmp_path / "models" / f"{run_id}.keras")
    people = tmp_path / "people"
    people.mkdir()
    colours = {
        "0001_c1s1_000001_00.jpg": (200, 10, 10), "0001_c2s1_000002_00.jpg": (150, 30, 10),
        "0002_c1s1_000003_00.jpg": (10, 10, 200), "other.png": (150, 120, 10),
    }  # fmt: skip
    for name, pixels in colours.items():
        Image.new("RGB", (2, 4), pixels).save(people / name)
    query = people / "0001_c1s1_000001_00.jpg"
    rows = rank.ranking(trained.find(run_id, tmp_path), [query], sorted(people.iterdir()), top=5)
    assert [row["picture"].rpartition("/")[2] for row in rows] == [
        "0001_c2s1_000002_00.jpg", "other.png", "0002_c1s1_000003_00.jpg",
    ]  # fmt: skip
    assert [row["identity"] for row in rows] == ["same", "", "other"]
    words = ("predict", run_id, query, f"--results_dir={tmp_path}")
    assert call(*words) == 2  # no gallery
    assert call(*words, f"--gallery={people}", f"--sheet={tmp_path}/ranking.png") == 0
    with Image.open(tmp_path / "ranking.png") as sheet:
        assert sheet.width > 4 * 100


# deploy


def test_best_is_the_peer_with_the_best_validation_accuracy(finished, tmp_path):
    _, splits, _ = finished
    asked = small(tmp_path)
    record = record_of(asked, splits, validation=(0.4, 0.7))
    record["test"]["peers"]["resnet8_0"] = MEASURES | {"accuracy": 0.9}
    run = trained.Trained(record, RunFiles.of(asked))
    assert deploy.choose_peer(run, "best") == "resnet8_1"
    assert deploy.choose_peer(run, "resnet8_0") == "resnet8_0"
    with pytest.raises(FlagError, match="give best or one of resnet8_0, resnet8_1, ensemble"):
        deploy.choose_peer(run, "resnet9")
    del record["validation"]
    with pytest.raises(FlagError, match="chosen on validation images, which the run has not"):
        deploy.choose_peer(run, "best")


def test_deployed_files_agree_with_keras_and_need_nothing_of_ours(finished, pictures, capsys):
    folder, splits, cohort = finished
    out = pictures / "out"
    words = ("deploy", "digits-dml", out, f"--results_dir={folder}", "--images=200")
    assert call(*words, "--format=keras,saved_model,litert", "--peer=ensemble") == 0
    shown = capsys.readouterr().out
    for row in ("cohort of 2", "ensemble, Keras", "model.keras", "saved_model", "model.tflite"):
        assert shown[shown.index(row) :].partition("\n")[0].endswith("100.00%")
    assert call(*words, "--format=litert") == 2  # of the best peer
    assert "model.keras is of ensemble of digits-dml" in capsys.readouterr().err
    assert call(*words, "--format=litert", "--quantize=int8", "--peer=ensemble") == 0
    assert "model_int8.tflite: int8 changes the accuracy by " in capsys.readouterr().out
    with zipfile.ZipFile(out / "model.keras") as archive:
        assert b"dml_tf>" not in archive.read("config.json")
    images, _ = next(iter(eval_batches(splits.test, splits, 50)))
    posteriors = {name: p.numpy() for name, p in cohort(images).items()}
    pixels = splits.test.images[:50].astype("float32")
    for name, peer, tolerance in (
        ("model.keras", "ensemble", 1e-4), ("saved_model", "ensemble", 1e-4),
        ("model.tflite", "ensemble", 1e-4), ("model_int8.tflite", "ensemble", 0.2),
    ):  # fmt: skip
        kind = formats.of_file(out / name)
        about = formats.about(kind, out / name)
        assert about["classes"] == [str(digit) for digit in range(10)]
        assert about["peer"] == peer
        found = formats.load(kind, out / name)(pixels)
        np.testing.assert_allclose(found, posteriors[peer], atol=tolerance)
    assert (out / "model_int8.tflite").stat().st_size < (out / "model.tflite").stat().st_size
    assert call("predict", out / "model.tflite", pictures / "0.png", "--top=1") == 0
    label = posteriors["ensemble"][0].argmax()
    assert f"  ensemble  {label} " in capsys.readouterr().out
    assert call("predict", out, pictures / "0.png", "--top=1") == 0  # takes model.keras
    assert f"  ensemble  {label} " in capsys.readouterr().out
    (out / "model.tflite").write_text("damaged")
    assert call("predict", out / "model.tflite", pictures / "0.png") == 1
    assert "model.tflite is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("quantize", formats.NUMBERS)
def test_onnx_files_agree_with_keras(finished, tmp_path, quantize):
    for name in formats.FORMATS["onnx"].needs:
        pytest.importorskip(name)
    words = ("deploy", "digits-dml", tmp_path, f"--results_dir={finished[0]}", "--images=200")
    assert call(*words, "--format=onnx", f"--quantize={quantize}") == 0
    (file,) = tmp_path.glob("*.onnx")
    assert formats.about(formats.FORMATS["onnx"], file)["peer"] == "resnet8_1"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--format=tensorrt", "--format=tensorrt: give some of keras, saved_model, litert, onnx"),
        ("--format=", "--format is empty"),
        ("--peer=third", "--peer=third: give best or one of"),
        ("--images=0", "--images=0: give 1 or more"),
    ],
)
def test_what_deploy_refuses(finished, tmp_path, capsys, flag, message):
    assert call("deploy", "digits", tmp_path / "out", f"--results_dir={finished[0]}", flag) == 2
    assert message in capsys.readouterr().err


def test_averaged_statistics_are_deployed_and_no_part_of_a_failed_file_stays(
    finished, tmp_path, capsys, monkeypatch
):
    asked = small(tmp_path, ema=0.5, ema_statistics=True, steps=2)
    train.run(asked, verbose=0)
    words = ("deploy", asked.run_id, tmp_path / "out", f"--results_dir={tmp_path}", "--images=50")
    assert call(*words, "--format=keras", "--peer=resnet8_0") == 0
    assert "100.00%" in capsys.readouterr().out
    before = (tmp_path / "out" / "model.keras").read_bytes()

    def fails(path, about):
        raise ValueError("no space in the archive")

    broken = formats.FORMATS["keras"]._replace(put_about=fails)
    monkeypatch.setitem(formats.FORMATS, "keras", broken)
    assert call(*words, "--format=keras", "--peer=resnet8_0") == 1
    assert "--format=keras --quantize=none failed" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.keras").read_bytes() == before
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"README.md", "model.keras"}


def test_numbers_of_a_format_that_has_none_are_refused(finished, tmp_path, capsys):
    words = ["--format=keras,saved_model", "--quantize=int8", f"--results_dir={finished[0]}"]
    assert call("deploy", "digits", tmp_path / "out", *words) == 2
    assert "--quantize=int8 is for litert and onnx" in capsys.readouterr().err


def test_the_cards_programs_run_as_they_are(finished, pictures):
    folder, splits, cohort = finished
    out = pictures / "out"
    runtimes = {"litert": ("ai_edge_litert",), "onnx": formats.FORMATS["onnx"].needs}
    chosen = [
        name
        for name in formats.FORMATS
        if all(importlib.util.find_spec(package) for package in runtimes.get(name, ()))
    ]
    words = (f"--results_dir={folder}", "--images=50", f"--format={','.join(chosen)}")
    assert call("deploy", "digits-dml", out, *words) == 0
    (pictures / "0.png").rename(out / "new.jpg")
    begin, *programs = re.findall(
        r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.S
    )
    assert len(programs) == len(chosen)
    images, _ = next(iter(eval_batches(splits.test, splits, 1)))
    label = int(cohort(images)["resnet8_1"].numpy().argmax())
    for program in programs:
        assert "dml_tf" not in program
        ended = subprocess.run(
            [sys.executable, "-c", begin + program], cwd=out, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines()[-1].startswith(f"{label} "), (program, ended.stdout)


def test_a_format_without_its_packages_is_refused(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FlagError, match=r"--format=onnx needs tf2onnx, .*pip install 'dml_tf\["):
        formats.check("onnx")


def test_a_float_file_that_disagrees_is_refused():
    row = deploy.Row("model.tflite", "float16", 1, 1, 0.9, 0.99)
    with pytest.raises(RunFailed, match=r"same class as Keras for 99\.00% .* below 99\.5%"):
        deploy._refuse_different([row])


def test_the_card_has_metadata_and_intervals_from_the_record(finished):
    record = trained.find("digits-dml", finished[0]).record
    rows = [deploy.Row(name, "float32", 1, 1, 0.5, 1) for name in ("cohort", "one", "model.onnx")]
    text = card.text(record, "ensemble", rows, 200)
    _, front, body = text.split("---\n", 2)
    metadata = {k: json.loads(v) for k, v in (line.split(": ", 1) for line in front.splitlines())}
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.75
    assert metadata["pipeline_tag"] == "image-classification"
    low, high = card.interval(0.75, 1000)  # of the 1,000 test images, not of the 200
    z, n = 1.959964, 1000  # Wilson 1927
    middle, half = 750 + z**2 / 2, z * (z**2 / 4 + n * 0.75 * 0.25) ** 0.5
    assert low == pytest.approx((middle - half) / (n + z**2))
    assert high == pytest.approx((middle + half) / (n + z**2))
    assert f"| ensemble | 75.00 | {100 * low:.2f} to {100 * high:.2f} | 1.0000 | 0.1000 |" in body
    command = record["command"].replace("python train.py", "dml_tf train")
    assert command in body and "onnxruntime" in body and "ai_edge" not in body


# runs


def test_runs_are_listed_with_state_accuracy_and_time_left(tmp_path, finished, capsys):
    _, splits, _ = finished
    done, half = small(tmp_path), small(tmp_path, seed=1)
    files = RunFiles.of(half)
    records.write(record_of(done, splits), RunFiles.of(done).record)
    progress = {
        "config": half.comparable(), "epoch": 1, "epochs": 4, "wall_clock_s": 30.0,
        "history": {"resnet8_0_accuracy": [0.9], "val_resnet8_0_accuracy": [0.25]},
    }  # fmt: skip
    save_state(files.checkpoint() / "state.npz", progress, [np.zeros(1)])
    rows = {row.run: row for row in list_runs.rows(tmp_path)}
    assert rows[done.run_id][2:4] == ("done", "test 75.00%")
    assert rows[half.run_id][2:5] == ("interrupted, epoch 1/4", "validation 25.00%", "90 s")
    state = files.checkpoint() / "state.npz"
    state.rename(state.with_name("previous.npz"))  # the next one is being written
    assert {row.run: row for row in list_runs.rows(tmp_path)} == rows
    state.with_name("previous.npz").rename(state)
    with hold(files.lock(), RuntimeError()):
        assert {row.state for row in list_runs.rows(tmp_path)} > {"training, epoch 1/4"}
    (tmp_path / "runs" / "broken.json").write_text("{")
    (files.checkpoint() / "state.npz").write_text("x")
    assert call("runs", f"--results_dir={tmp_path}") == 0
    shown = capsys.readouterr().out
    assert "record is damaged" in shown and "checkpoint is damaged" in shown
    assert call("runs", "nothing", f"--results_dir={tmp_path}") == 2
    assert "none of the 3 runs in" in capsys.readouterr().err


def test_runs_are_found_by_their_folder(tmp_path, finished, monkeypatch, capsys):
    _, splits, _ = finished
    monkeypatch.setattr(home, "HOME", tmp_path)
    for folder in ("flowers", "birds"):
        done = small(tmp_path / "results" / folder)
        records.write(record_of(done, splits), RunFiles.of(done).record)
    assert call("runs", "flow") == 0
    assert capsys.readouterr().out.split()[-1] == "flowers"
    assert call("runs", done.run_id) == 0
    assert {"flowers", "birds"} < set(capsys.readouterr().out.split())
