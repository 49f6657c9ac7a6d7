"""Exports from strangers: what was altered is refused before a program is compiled."""

import copy
import json
import shutil

import numpy as np
import pytest

from dml_tf.export import checked, group, jax_step
from dml_tf.export.__main__ import main
from dml_tf.export.folder import IMAGES, MANIFEST, PROGRAM, STATE, Export, with_digest


@pytest.fixture
def step(exported_pair, tmp_path, monkeypatch):
    """A copy of an exported step, whose programs cannot be compiled."""

    def compiled(*arguments):
        raise AssertionError("An altered export came as far as the compiler.")

    for module in (jax_step, group):
        monkeypatch.setattr(module, "advance_together", compiled)
    return Export.read(shutil.copytree(exported_pair, tmp_path / "step"))


def refused(capsys, folder):
    status = main(["run", str(folder)])
    message = capsys.readouterr().err
    assert status in (1, 2), message
    assert message.startswith("dml_tf.export run: ") and "Traceback" not in message
    return message


def put(manifest, path, value):
    """Sets one entry, `path` names it from the outside in."""
    *outer, last = path
    for key in outer:
        manifest = manifest[key]
    manifest[last] = value


WRONG = {
    "no run id": (["run_id"], None),
    "a path for a run id": (["run_id"], "../../somewhere"),
    "a text for images": (["images"], "many"),
    "no images": (["images", "count"], 0),
    "half an image": (["images", "count"], 99.5),
    "more images than memory": (["images", "count"], 2**50),
    "a flat shape": (["images", "shape"], [8, 8]),
    "a negative shape": (["images", "shape"], [8, -8, 1]),
    "no deviation": (["images", "std"], [0.0]),
    "a mean for each of two channels": (["images", "mean"], [0.0, 0.0]),
    "an infinite mean": (["images", "mean"], [float("inf")]),
    "other steps": (["steps"], 10**9),
    "no variables": (["variables"], []),
    "a list for variables": (["variables", 0], [1, 2]),
    "an unknown type": (["variables", 0, "dtype"], "object"),
    "a shape in words": (["variables", 0, "shape"], ["3"]),
    "a huge shape": (["variables", 0, "shape"], [2**60]),
    "an update in words": (["variables", 0, "updated"], "yes"),
    "a rate of no variable": (["learning_rate", "places"], [10**6]),
    "a rate at a weight": (["learning_rate", "places"], [0]),
    "rates of fewer epochs": (["learning_rate", "by_epoch"], [0.1]),
    "a rate that is no number": (["learning_rate", "by_epoch", 0], float("nan")),
    "a rate in words": (["learning_rate", "by_epoch", 0], "0.1"),
    "metrics in a list": (["metrics"], []),
    "a metric of one place": (["metrics", "ensemble_accuracy"], [1]),
    "a metric at no variable": (["metrics", "ensemble_accuracy"], [-1, 0]),
    "settings in a list": (["config"], []),
    "a network that is none": (["config", "net"], 7),
    "a seed in words": (["config", "seed"], "zero"),
    "a batch larger than memory": (["config", "batch_size"], 10**6),
    "no data folder": (["data_dir"], 3),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_manifest_of_wrong_types_or_sizes_is_refused(case, step, capsys):
    manifest = copy.deepcopy(step.manifest)
    put(manifest, *case)
    (step.folder / MANIFEST).write_text(json.dumps(with_digest(manifest)))
    assert MANIFEST in refused(capsys, step.folder)


def test_a_manifest_that_lacks_a_part_is_refused(step, capsys):
    for name in ("run_id", "images", "variables", "learning_rate", "metrics", "config", "steps"):
        manifest = {key: value for key, value in step.manifest.items() if key != name}
        (step.folder / MANIFEST).write_text(json.dumps(with_digest(manifest)))
        assert MANIFEST in refused(capsys, step.folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b'{"a":' * 100_000, b"3"])
def test_a_manifest_that_is_no_dictionary_is_refused(content, step, capsys):
    (step.folder / MANIFEST).write_bytes(content)
    assert "is damaged" in refused(capsys, step.folder)


@pytest.mark.parametrize("name", [MANIFEST, IMAGES, PROGRAM, STATE])
def test_a_changed_byte_is_noticed_in_every_file(name, step, capsys):
    file = step.folder / name
    whole = file.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2):
        content = bytearray(whole)
        content[place] = ord("7") if content[place] != ord("7") else ord("8")
        file.write_bytes(content)
        assert "damaged" in refused(capsys, step.folder)


def test_a_changed_rate_is_noticed(step, capsys):
    manifest = copy.deepcopy(step.manifest)
    manifest["learning_rate"]["by_epoch"][0] *= 10
    (step.folder / MANIFEST).write_text(json.dumps(manifest))
    assert "has changed since it was written" in refused(capsys, step.folder)


def test_other_pixels_and_other_kinds_of_images_are_refused(step, capsys):
    saved = dict(np.load(step.folder / IMAGES))
    np.savez(step.folder / IMAGES, images=saved["images"] ^ 1, labels=saved["labels"])
    assert "pixels have changed" in refused(capsys, step.folder)
    for wrong in (saved["images"].astype(float), saved["images"][0], np.zeros(0)):
        np.savez(step.folder / IMAGES, images=wrong, labels=saved["labels"])
        assert "holds no images" in refused(capsys, step.folder)
    np.savez(step.folder / IMAGES, images=np.array([{}], object), labels=saved["labels"])
    assert "is damaged" in refused(capsys, step.folder)


@pytest.mark.parametrize("change", [
    {"step": -1}, {"step": 10**9}, {"step": "0"}, {"epoch": 3}, {"history": [1]},
    {"history": {"loss": "x"}}, {"wall_clock_s": None}, {"trained_on": [3]},
])  # fmt: skip
def test_a_state_of_no_such_progress_is_refused(change, step, capsys):
    progress, values = step.read_state()
    step.save_state(progress | change, values)
    assert f"{STATE} is damaged" in refused(capsys, step.folder)


def with_program(step, text):
    manifest = {
        key: v for key, v in step.manifest.items() if key not in ("digest", "program_sha256")
    }
    (step.folder / MANIFEST).write_text(json.dumps(manifest))
    (step.folder / PROGRAM).write_text(text)


RETURN = "    return "
PROGRAMS = {
    "no program": ("", "no function main"),
    "no main": ("func.func private @other() { return }", "no function main"),
    "another signature": (
        "func.func @main(%a: tensor<3xf32>) -> tensor<3xf32> { return %a : tensor<3xf32> }",
        "other arguments",
    ),
}
OPERATIONS = {
    "a call of the process": (
        '%z0 = stablehlo.custom_call @xla_python_cpu_callback() {backend_config = "1"} : '
        "() -> tensor<f32>",
        "custom_call",
    ),
    "a tensor larger than memory": (
        "%z0 = stablehlo.iota dim = 0 : tensor<1099511627776xf32>",
        "larger than the memory",
    ),
    "an endless loop": (
        "%z0 = stablehlo.constant dense<true> : tensor<i1>\n"
        "%z1 = stablehlo.while(%z2 = %z0) : tensor<i1>\n"
        " cond { stablehlo.return %z2 : tensor<i1> } do { stablehlo.return %z2 : tensor<i1> }",
        "while",
    ),
}


@pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_program_of_another_signature_is_refused(case, step, capsys):
    with_program(step, case[0])
    assert case[1] in refused(capsys, step.folder)


@pytest.mark.parametrize("case", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_a_program_with_more_than_arithmetic_is_refused(case, step, capsys):
    text = (step.folder / PROGRAM).read_text()
    start, main_, body = text.partition("@main(")
    head, brace, rest = body.partition("{\n")
    while not head.rstrip().endswith(")") and brace:  # attributes of arguments have braces, too
        more, brace, rest = rest.partition("{\n")
        head += "{\n" + more
    with_program(step, start + main_ + head + brace + case[0] + "\n" + rest)
    assert case[1] in refused(capsys, step.folder)


def test_functions_that_call_each_other_are_refused(step, capsys):
    circle = (
        "func.func private @a() { call @b() : () -> ()\n return }\n"
        "func.func private @b() { call @a() : () -> ()\n return }\n"
    )
    text = (step.folder / PROGRAM).read_text()
    place = text.index("func.func")
    start = text.rindex("\n", 0, place)
    with_program(step, text[:start] + "\n" + circle + text[start:])
    assert "calls itself" in refused(capsys, step.folder)


def test_types_are_those_that_numpy_and_stablehlo_share():
    for name in set(checked.TYPES) - {"bfloat16"}:
        assert np.dtype(name).name == name
