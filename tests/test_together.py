"""Several exported runs on one device: each ends as it does alone."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from rounding import largest_difference, tolerance, twins_of

from dml_tf.errors import CUT, DONE, FAILED
from dml_tf.export import check, group, jax_step, load, run, side_by_side
from dml_tf.export.__main__ import main
from dml_tf.export.folder import MANIFEST, NOT_FINITE, Export, with_digest
from dml_tf.runs.files import RunFiles


def copy_of(exported_pair, folder, seed, move=0.0):
    """A run of the pair's step with another seed, thus order, and other initial kernels."""
    export = Export.read(shutil.copytree(exported_pair, folder))
    config = export.manifest["config"] | {"seed": seed}
    manifest = with_digest(export.manifest | {"config": config, "run_id": f"seed{seed}"})
    (folder / MANIFEST).write_text(json.dumps(manifest))
    progress, values = export.read_state()
    values = [v * (1 + move) if v.dtype.kind == "f" and v.ndim > 1 else v for v in values]
    export = Export.read(folder)
    export.save_state(progress | {"config": config}, values)
    return export


@pytest.fixture
def two(exported_pair, tmp_path):
    """Two runs of one step that differ in seed, order and initial weights."""
    return [copy_of(exported_pair, tmp_path / f"run{k}", k, 0.1 * k) for k in range(2)]


def trained_alone(export, folder, values=None):
    """State at the end of a run that trains by itself, perhaps from other values."""
    alone = Export.read(shutil.copytree(export.folder, folder))
    if values is not None:
        alone.save_state(alone.read_state()[0], values)
    assert main(["run", str(alone.folder)]) == DONE
    return alone.read_state()


@pytest.fixture
def by_turns(monkeypatch):
    """The runs of a group advance one after the other, with the program of one that is compiled."""
    together = jax_step.advance_together
    monkeypatch.setattr(
        group,
        "advance_together",
        lambda runs, steps: tuple(together([each], steps)[0] for each in runs),
    )


def folders(exports):
    return [str(export.folder) for export in exports]


def weights(export, values):
    """The float variables but for the metrics, which count whole images."""
    metrics = {i for pair in export.manifest["metrics"].values() for i in pair}
    return [v for i, v in enumerate(values) if i not in metrics and v.dtype.kind == "f"]


def trainers(exports, **settings):
    """Trainers of runs that train together."""
    images, device = exports[0].training_set(), jax.devices("cpu")[0]
    first = jax_step.Trainer(exports[0], images, device, **settings)
    return [first, *(jax_step.Trainer(e, images, device, beside=first) for e in exports[1:])]


@pytest.mark.parametrize("form", ["batched", pytest.param("calls", marks=pytest.mark.slow)])
def test_20_steps_together_equal_those_of_each_run_alone_within_rounding(form, two):
    """An activation near 0 is on the other side now and then, which moves some weights a little."""
    single, many = trainers(two), trainers(two, form=jax_step.FORMS[form])
    starts = [export.read_state()[1] for export in two]
    states, free, allowed, far = starts, starts, [0, 0], 0
    for epoch, i in [divmod(step, two[0].schedule.steps_per_epoch) for step in range(20)]:

        def advance(trainers, states, epoch=epoch, i=i):
            places = [(t, state, epoch, i) for t, state in zip(trainers, states, strict=True)]
            return jax.device_get(jax_step.advance_together(places, 1))

        def alone(k, state, advance=advance):
            return advance([single[k]], [state])[0]

        found, free = advance(many, states), advance(many, free)
        for k, before in enumerate(states):
            after = alone(k, before)
            if i == 0:
                twin = alone(k, next(twins_of(before)))
                most = tolerance(weights(two[k], after), [weights(two[k], twin)])
                allowed[k] = max(allowed[k], most)
            difference = largest_difference(weights(two[k], after), weights(two[k], found[k]))
            moved = largest_difference(weights(two[k], after), weights(two[k], before))
            far += difference > allowed[k]
            assert difference < 0.05 * moved and allowed[k] < 1e-3 * moved
            states = [*states[:k], after, *states[k + 1 :]]
    assert far <= 2
    for export, *ends in zip(two, starts, states, free, strict=True):
        begin, apart, together = (
            np.concatenate([v.ravel() for v in weights(export, values)]) for values in ends
        )
        assert np.linalg.norm(together - apart) < 0.05 * np.linalg.norm(apart - begin)


def test_batched_runs_are_compared_with_each_runs_own_program(two, monkeypatch, capsys):
    def swapped(*arguments):
        return jax_step.calls(*arguments)[::-1]

    assert main(["check", *folders(two)]) == DONE
    assert "of each run's own in the first 5 steps" in capsys.readouterr().out
    monkeypatch.setitem(jax_step.FORMS, "batched", swapped)
    assert main(["check", *folders(two)]) == FAILED


def test_a_check_judges_the_first_steps_and_refuses_what_is_no_number():
    differences = np.zeros((20, 2))
    differences[check.JUDGED :, 0] = differences[:, 1] = 1
    assert check.passes(differences)
    differences[check.JUDGED - 1, 0] = 2 * check.LOSS_TOLERANCE
    assert not check.passes(differences)
    differences[check.JUDGED - 1, 0] = np.nan
    assert not check.passes(differences)


def test_a_run_is_resumed_alone_and_with_others(two, by_turns, tmp_path):
    expected = [trained_alone(export, tmp_path / f"alone{k}") for k, export in enumerate(two)]
    piece = run.Group(two[:1], run.Manner(dispatch_s=0))
    for _ in range(4):
        piece.dispatch()
    piece.save()
    piece = run.Group(two, run.Manner(dispatch_s=0))
    for _ in range(7):
        piece.dispatch()
    piece.save()
    assert [export.read_state()[0]["step"] for export in two] == [11, 7]
    assert main(["run", folders(two)[0]]) == DONE
    assert main(["run", *folders(two), "--together"]) == DONE
    for export, (progress, values) in zip(two, expected, strict=True):
        assert export.read_state()[0]["history"] == progress["history"]
        for ours, other in zip(export.read_state()[1], values, strict=True):
            np.testing.assert_array_equal(ours, other)


def test_a_run_that_fails_leaves_the_others_alone(two, by_turns, tmp_path, capsys):
    progress, values = two[0].read_state()
    two[0].save_state(progress, [v * np.nan if v.dtype.kind == "f" else v for v in values])
    failed, expected = two[0].read_state()[0], trained_alone(two[1], tmp_path / "alone")[1]
    assert main(["run", *folders(two), "--together"]) == FAILED
    message = capsys.readouterr().err
    assert "loss of peer" in message and folders(two)[0] in message
    assert folders(two)[1] not in message
    assert two[0].read_state()[0] == failed
    assert "loss of peer" in (two[0].folder / NOT_FINITE).read_text()
    assert not (two[1].folder / NOT_FINITE).exists()
    for ours, other in zip(two[1].read_state()[1], expected, strict=True):
        np.testing.assert_array_equal(ours, other)


def error_of(capsys, *arguments):
    assert main(["run", *arguments]) == 2
    return capsys.readouterr().err


def test_runs_that_cannot_be_one_program_are_refused_in_words(two, capsys):
    first, second = folders(two)
    assert "add --together" in error_of(capsys, first, second)
    assert "named twice" in error_of(capsys, first, first, "--together")
    assert "give 1 to 2" in error_of(capsys, first, second, "--together", "--processes=3")
    assert "choose from calls" in error_of(capsys, first, second, "--together", "--program=x")
    assert "choose from export" in error_of(capsys, first, "--loader=x")
    program = two[1].folder / "step.mlir"
    manifest = {k: v for k, v in two[1].manifest.items() if k not in ("digest", "program_sha256")}
    (two[1].folder / MANIFEST).write_text(json.dumps(manifest))
    program.write_text(program.read_text().replace("stablehlo.add", "stablehlo.subtract", 1))
    assert f"{first} and {second} have different steps" in error_of(
        capsys, first, second, "--together"
    )


def test_processes_share_runs_and_memory(two, monkeypatch):
    started, statuses = [], []

    class Process:
        def __init__(self, command, env):
            started.append((command[4:], env["XLA_PYTHON_CLIENT_MEM_FRACTION"]))

        def wait(self):
            return statuses.pop()

    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setattr(subprocess, "Popen", Process)
    flags = ["--together", "--processes", "2", "--dispatch=5"]
    asked = [f"{folder}/" for folder in folders(two)]  # as a shell completes them
    for ends, expected in (((0, 0), DONE), ((0, 3), CUT), ((1, 3), FAILED), ((-9, 0), FAILED)):
        statuses += ends
        assert main(["run", *asked, *flags]) == expected
    passed = ["--together", "--max_seconds=inf", "--precision=default", "--dispatch=5.0"]
    expected = [([folder, *passed], "0.450") for folder in folders(two)]
    assert started == 4 * expected


@pytest.mark.slow
def test_runs_in_two_processes_end_as_in_one_process_each(two, tmp_path):
    alone = [
        Export.read(shutil.copytree(e.folder, tmp_path / f"alone{e.folder.name}")) for e in two
    ]
    for export in alone:
        assert side_by_side.train([export.folder], 1, []) == DONE
    assert side_by_side.train([export.folder for export in two], 2, []) == DONE
    for export, other in zip(two, alone, strict=True):
        assert export.read_state()[0]["step"] == other.read_state()[0]["step"] == 24
        assert largest_difference(export.read_state()[1], other.read_state()[1]) < 1e-3


# Loading


def test_the_second_loader_stands_in_for_the_first(two, monkeypatch):
    def broken(*arguments):
        raise AttributeError("this JAX has no such part")

    monkeypatch.setitem(load.LOADERS, "export", broken)
    step = load.load_step(two[0])
    state = two[0].read_state()[1]
    images, labels = np.zeros((16, 8, 8, 1), np.float32), np.zeros(16, np.int64)
    shapes = jax.eval_shape(step, tuple(state), images, labels)
    assert [(s.shape, s.dtype) for s in shapes] == [(v.shape, v.dtype) for v in state]
    monkeypatch.setitem(load.LOADERS, "operations", broken)
    with pytest.raises(ValueError, match="by export: this JAX.*by operations: this JAX"):
        load.load_step(two[0])


@pytest.mark.slow
def test_seeds_that_are_written_at_once_have_one_program_and_the_seeds_own_weights(tmp_path):
    flags = (
        "--dataset=digits --net=resnet8:4 --cohort=2 --image_size=8 --batch_size=16 "
        f"--train_images=100 --epochs=4 --results_dir={tmp_path}/results"
    ).split()
    assert main(["write", *flags, "--seeds=0,1,2", str(tmp_path / "all")]) == 0
    assert main(["write", *flags, "--seed=2", str(tmp_path / "single")]) == 0
    exports = [Export.read(tmp_path / "all" / f"seed{k}") for k in range(3)]
    single = Export.read(tmp_path / "single")
    run.refuse_others([*exports, single])
    for ours, other in zip(exports[2].read_state()[1], single.read_state()[1], strict=True):
        np.testing.assert_array_equal(ours, other)
    assert len({RunFiles.of(export.config).run_id for export in exports}) == 3
