"""`--precision=auto`, and what the networks compute in."""

import json

import keras
import pytest

from dml_tf import networks
from dml_tf.errors import FlagError
from dml_tf.method.cohort import Cohort
from dml_tf.networks import trusted
from dml_tf.runs import build, config, precision, train
from dml_tf.runs.files import RunFiles


def settings(tmp_path, **changes):
    asked = {
        "dataset": "digits", "net": ("resnet8:4",), "cohort": 2, "train_images": 64, "steps": 3,
        "image_size": 8, "batch_size": 16, "precision": "auto", "results_dir": str(tmp_path),
    }  # fmt: skip
    return config.load(**asked | changes)


def timed_as(monkeypatch, *, plain: float, half: float):
    """Makes a step in float32, and one in bfloat16, take so many seconds."""
    took = iter([plain, half] * precision._REPEATS)
    monkeypatch.setattr(precision, "_timed", lambda step, batch: next(took))


@pytest.mark.parametrize("half", [0.0098, 0.02])
def test_auto_stays_with_float32_where_bfloat16_is_not_clearly_faster(tmp_path, monkeypatch, half):
    timed_as(monkeypatch, plain=0.01, half=half)
    monkeypatch.setattr(precision, "_step", lambda *_: (None, None))
    asked = settings(tmp_path)
    assert precision.choose(asked, build.load_data(asked))["chosen"] == "float32"


@pytest.mark.parametrize(
    ("half", "chosen"),
    [
        (0.005, "mixed_bfloat16"),
        pytest.param(0.0098, "float32", marks=pytest.mark.slow),
    ],
)
def test_a_run_under_auto_is_made_in_the_chosen_precision(
    tmp_path, monkeypatch, capsys, half, chosen
):
    timed_as(monkeypatch, plain=0.01, half=half)
    asked = settings(tmp_path)
    record = train.run(asked, verbose=0)
    assert record["config"]["precision"] == "auto"
    step_ms = pytest.approx({"float32": 10, "mixed_bfloat16": 1000 * half})
    assert record["precision"] == {"chosen": chosen, "step_ms": step_ms}
    assert f"{chosen} is used" in capsys.readouterr().out
    cohort = trusted.load_model(RunFiles.of(asked).model)
    computed = {layer.compute_dtype for layer in cohort.networks[0].layers if "conv" in layer.name}
    assert computed == {chosen.removeprefix("mixed_")}
    assert {weight.dtype for weight in cohort.networks[0].weights} == {"float32"}


def test_a_real_measurement_times_both(tmp_path):
    asked = settings(tmp_path)
    choice = precision.choose(asked, build.load_data(asked))
    assert choice["chosen"] in precision.CANDIDATES
    assert set(choice["step_ms"]) == set(precision.CANDIDATES)
    assert min(choice["step_ms"].values()) > 0


def test_an_interrupted_run_keeps_its_precision(tmp_path, monkeypatch):
    asked = settings(tmp_path)
    splits, folder = build.load_data(asked), RunFiles.of(asked).checkpoint()
    timed_as(monkeypatch, plain=0.01, half=0.005)
    first = precision.of_run(asked, splits, folder)
    timed_as(monkeypatch, plain=0.01, half=0.05)
    assert precision.of_run(asked, splits, folder) == first
    assert json.loads((folder / "precision.json").read_text())["chosen"] == "mixed_bfloat16"


def test_a_named_precision_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "choose", None)
    asked = settings(tmp_path, precision="mixed_bfloat16")
    assert precision.of_run(asked, None, tmp_path) == {"chosen": "mixed_bfloat16"}


def test_auto_is_for_one_device(tmp_path):
    with pytest.raises(FlagError, match="--precision=auto measures all peers on one device"):
        settings(tmp_path, placement="peers")


def test_a_distillation_finds_its_teacher_under_auto(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "choose", lambda *_: {"chosen": "mixed_bfloat16"})
    record = train.run(settings(tmp_path, method="distill"), verbose=0)
    assert record["precision"]["chosen"] == "mixed_bfloat16"


def test_depthwise_kernels_stay_float32_on_a_cpu_and_the_cohort_does_too():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = networks.build("mobilenet_short:0.25", num_classes=3, input_shape=(8, 8, 3))
    finally:
        keras.config.set_dtype_policy(before)
    kinds = {keras.layers.DepthwiseConv2D: "float32", keras.layers.Conv2D: "bfloat16"}
    for layer in network.layers:
        if type(layer) in kinds:
            assert layer.compute_dtype == kinds[type(layer)]
    assert Cohort([network]).compute_dtype == "float32"
