"""A borrowed machine: what is measured and trained in its time, and what comes back."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.accelerator import output, planning, processes, stages
from benchmarks.accelerator.inputs import Inputs, steps_done
from benchmarks.accelerator.output import Out
from benchmarks.accelerator.planning import Plan, Way
from dml_tf.errors import CUT, DONE, FAILED
from dml_tf.export.folder import NOT_FINITE, STATE
from dml_tf.runs import files

LENGTH = 10  # steps of a run here
STATE_BYTES = 3000  # more than a state's, less than two
DML, INDEPENDENT = ([("small", method, k) for k in range(2)] for method in planning.METHODS)


def put_state(inputs, run, step):
    folder = inputs.run(*run)
    folder.mkdir(parents=True, exist_ok=True)
    files.save_state(folder / STATE, {"step": step}, [np.zeros(200)])
    assert STATE_BYTES / 2 < (folder / STATE).stat().st_size < STATE_BYTES


def make_inputs(folder, plan=None, runs=(), step=0):
    folder.mkdir()
    plan = plan or Plan(at_once=2, seeds={"full": 2, "small": 2}, least_s=0)
    (folder / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
    inputs = Inputs(folder)
    inputs.work.mkdir()
    for run in runs:
        put_state(inputs, run, step)
    return inputs


# What comes back


@pytest.fixture
def two_a_pack(monkeypatch):
    monkeypatch.setattr(output, "_MOST_FILE", 2 * (STATE_BYTES + output._HEAD))


def all_runs(count):
    return [("small", "dml", k) for k in range(count)]


def test_out_has_two_states_a_file_and_gives_them_to_another_machine(tmp_path, two_a_pack):
    inputs, out = make_inputs(tmp_path / "inputs", runs=all_runs(5), step=3), Out(tmp_path / "out")
    out.note(("small", "dml", 4), "collected")
    put_state(inputs, ("small", "dml", 1), 0)  # not begun
    assert out.pack(inputs)
    assert [file.name for file in sorted(out.folder.iterdir())] == ["states-0.tar", "states-1.tar"]
    other = make_inputs(tmp_path / "other", runs=all_runs(5))
    put_state(other, ("small", "dml", 3), 7)
    other.unpack(out)
    assert [steps_done(other.run(*run)) for run in all_runs(5)] == [3, 0, 3, 7, 0]


def test_a_full_out_stays_as_it_was(tmp_path, two_a_pack, capsys):
    inputs, out = make_inputs(tmp_path / "inputs", runs=all_runs(8), step=3), Out(tmp_path / "out")
    put_state(inputs, ("small", "dml", 8), 0)
    assert out.has_room(inputs, all_runs(8)) and out.pack(inputs)
    before = {file: file.read_bytes() for file in out.folder.iterdir()}
    assert len(before) == 4
    assert not out.has_room(inputs, [("small", "dml", 8)])
    put_state(inputs, ("small", "dml", 8), 3)
    assert not out.pack(inputs) and "collect first" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in before} == before
    assert not list(out.folder.glob("states-4*"))


def test_the_log_takes_room_from_the_states(tmp_path, monkeypatch):
    inputs, out = make_inputs(tmp_path / "inputs", runs=all_runs(1), step=3), Out(tmp_path / "out")
    monkeypatch.setattr(output, "_MOST", output._GROWS + 10_000)
    assert out.has_room(inputs, [])
    out.log.write_bytes(bytes(9000))
    assert not out.has_room(inputs, [])


# Training


class Trainer:
    """Stands for the process that trains; each call takes the next of the given outcomes.

    Args:
        inputs: Where the runs are.
        outcomes: Status of a call, and what becomes of each run: its step, or None for a loss that
            is no number.
    """

    def __init__(self, inputs, *outcomes):
        self._inputs, self._outcomes = inputs, list(outcomes)
        self.trained = []

    def __call__(self, until, command, log, env, each_minute):
        folders = [word for word in command if word.startswith(str(self._inputs.work))]
        self.trained.append([folder[len(str(self._inputs.work)) + 1 :] for folder in folders])
        status, steps = self._outcomes.pop(0)
        for (name, seed), step in steps.items():
            run = ("small", name, seed)
            if step is None:
                (self._inputs.run(*run) / NOT_FINITE).write_text("nan")
            else:
                put_state(self._inputs, run, step)
        return status


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Function of outcomes that gives a session after a passed check, its OUT and its trainer."""

    def make(*outcomes, **record):
        inputs, out = make_inputs(tmp_path / "inputs", runs=DML + INDEPENDENT), Out(tmp_path / "o")
        known = {"loader": "export", "check_passed": True, "set": "small"}
        out.record |= known | {"batched": {"passed": True}} | record
        trainer = Trainer(inputs, *outcomes)
        monkeypatch.setattr(processes, "run_until", trainer)
        monkeypatch.setattr(stages, "is_finished", lambda run: steps_done(run) == LENGTH)
        return stages.Session(inputs, out, 100, 900), out, trainer

    return make


ALL_DML, ALL_INDEPENDENT = ({(method, k): LENGTH for k in range(2)} for method in planning.METHODS)


def test_a_run_that_is_not_finite_leaves_the_others_open_until_they_end(session):
    work, out, trainer = session(
        (FAILED, {("dml", 0): None, ("dml", 1): 5}),
        (DONE, {("dml", 1): LENGTH}),
        (DONE, ALL_INDEPENDENT),
    )
    assert work.work(["train"]) == DONE
    assert trainer.trained == [
        ["seed0/small-dml", "seed1/small-dml"],
        ["seed1/small-dml"],
        ["seed0/small-independent", "seed1/small-independent"],
    ]
    assert out.record["runs"] == {
        "seed0/small-dml": "not finite",
        "seed1/small-dml": "trained",
        "seed0/small-independent": "trained",
        "seed1/small-independent": "trained",
    }


def test_a_group_that_comes_no_further_ends_the_stage_and_stays_open(session):
    work, out, trainer = session((FAILED, {}))
    assert work.work(["train"]) == FAILED
    assert len(trainer.trained) == 1 and "runs" not in out.record


def test_a_cut_group_stays_open_and_collected_runs_stay_collected(session):
    runs = {"seed0/small-dml": "collected"}
    work, out, trainer = session((CUT, {("dml", 1): 4}), (CUT, {}), runs=dict(runs))
    assert work.work(["train"]) == CUT
    assert trainer.trained[0] == ["seed1/small-dml"] and out.record["runs"] == runs
    assert list(out.folder.glob("states-0.tar"))


def test_a_full_out_is_said_before_anything_is_trained(session, monkeypatch, capsys):
    work, out, trainer = session()
    monkeypatch.setattr(output, "_MOST_PACKS", 0)
    assert work.work(["train"]) == CUT
    assert trainer.trained == [] and "OUT is full: collect first" in capsys.readouterr().out


def test_a_run_is_trained_only_when_its_state_is_in_out(session, monkeypatch):
    work, out, _ = session((DONE, ALL_DML))
    monkeypatch.setattr(Out, "pack", lambda self, inputs: False)
    assert work._do("train", 1.0) == CUT and "runs" not in out.record


def test_a_seed_whose_states_stayed_at_home_waits(session, capsys):
    work, out, trainer = session((DONE, ALL_DML), (DONE, {("independent", 0): LENGTH}))
    (work._inputs.run("small", "independent", 1) / STATE).unlink()
    assert work.work(["train"]) == CUT
    assert trainer.trained[1] == ["seed0/small-independent"]
    assert "not here: seed1.tar.xz" in capsys.readouterr().out


def test_training_does_not_begin_shortly_before_the_end(session):
    work, _, trainer = session()
    work._plan = dataclasses.replace(work._plan, least_s=101)
    assert work.work(["train"]) == CUT and trainer.trained == []


# The check


def printed(status, text):
    return subprocess.CompletedProcess([], status, stdout=text, stderr="")


def test_a_failed_check_keeps_its_numbers_and_lets_steps_be_timed_only(session, monkeypatch):
    work, out, trainer = session()
    for name in ("loader", "check_passed"):
        del out.record[name]
    modules = []

    def run(command, seconds, env=None):
        modules.append(command[2])
        if "check" in command:
            is_export = "--loader=export" in command
            return printed(FAILED, "losses within 3e-4" if is_export else "")
        return printed(DONE, '{"step_s": 1, "images_per_s": 64, "compile_s": 1}')

    monkeypatch.setattr(processes, "run", run)
    assert work.work(["check", "times", "train"]) == FAILED
    assert out.record["loader"] == "export" and not out.record["check_passed"]
    assert out.record["check"] == [{"loader": "export", "printed": ["losses within 3e-4"]}]
    assert "machine" in out.record and "versions" in out.record
    assert modules.count("benchmarks.accelerator.step_time") == len(out.record["times"]) > 10
    assert trainer.trained == []


def test_batched_runs_train_only_after_their_own_check(session, monkeypatch):
    pair = planning.Plan().steps[0]._asdict() | {"together": 2, "compile_s": 1}
    times = [pair | {"way": "batched", "step_s": 1}, pair | {"way": "processes", "step_s": 2}]
    work, out, _ = session(times=times)
    assert work._way() == Way("batched", 1, 1)
    del out.record["batched"]
    checked = []

    def run(command, seconds, env=None):
        checked.append([word for word in command if "small-dml" in word])
        return printed(FAILED, "losses within 1e-2")

    monkeypatch.setattr(processes, "run", run)
    assert work._way() == Way("processes", 2, 1)
    assert len(checked) == 1 and len(checked[0]) == 2
    assert out.record["batched"] == {"passed": False, "printed": ["losses within 1e-2"]}


# Time


def test_a_piece_that_takes_too_long_is_noted_and_the_stage_goes_on(session, monkeypatch):
    work, out, _ = session()
    limits = []

    def run(command, seconds, env=None):
        limits.append(seconds)
        return subprocess.CompletedProcess(command, CUT, stdout="", stderr="")

    monkeypatch.setattr(processes, "run", run)
    assert work.work(["times"]) == DONE
    rows = out.record["times"]
    assert set(limits) == {90} and {row["failed"] for row in rows} == {"out of time"}
    pair = planning.Plan().steps[0]._asdict().items()
    kinds = [(row["way"], row["together"]) for row in rows if pair <= row.items()]
    assert kinds == [("calls", 1), ("batched", 2), ("processes", 2)]  # 16, 8 and 2 calls are larger


def test_a_stage_leaves_the_others_their_time(session, monkeypatch):
    work, out, _ = session()
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work._began, work._until = 0, 1000

    def run(command, seconds, env=None):
        now[0] += 80
        return printed(DONE, '{"step_s": 1, "images_per_s": 64, "compile_s": 1}')

    monkeypatch.setattr(processes, "run", run)
    assert work._do("times", 0.3) == CUT
    assert len(out.record["times"]) == 4 and out.record["used_s"] == 320
    assert work.work(["times"]) == CUT and now[0] == 960  # a second round takes what is left


def test_pieces_go_from_wanted_to_less_wanted():
    plan, rows, speed = Plan(), [], {"batched": 1.0, "calls": 10.0, "processes": 3.0}
    while piece := next(planning.time_pieces(plan, rows), None):
        failed = piece["way"] == "batched" and piece["together"] == 8
        measured = {"step_s": speed[piece["way"]], "compile_s": 0}
        rows.append(piece | ({"failed": "memory"} if failed else measured))
    short = [(row["method"], row["together"], row["way"]) for row in rows]
    assert short[:4] == [("dml", 1, "calls")] + [
        ("dml", 4, way) for way in ("batched", "calls", "processes")
    ]
    assert short[4:6] == [("independent", 1, "calls"), ("independent", 4, "batched")]
    assert short[6:9] == [("dml", number, "batched") for number in (16, 2, 8)]
    assert max(row["together"] for row in rows if row["way"] == "calls") == 4
    assert len(rows) < 30
    assert {row["net"] for row in rows} == set(plan.nets)
    assert [way.name for way in planning.ways(plan, rows)] == [
        "batched", "processes", "calls",
    ]  # fmt: skip


def test_pytorch_is_measured_without_its_compiler_where_that_failed():
    rows = []
    while piece := next(planning.torch_pieces(Plan(), rows), None):
        rows.append(piece | ({"failed": "x"} if piece["net"] == "mobilenet" else {}))
    assert {row["net"] for row in rows if not row["compiled"]} == {"mobilenet"}
    assert len(rows) == 16 and {row["peers"] for row in rows} == {1, 2}


@pytest.mark.parametrize(
    ("seconds", "name"), [(2 * (1000 * 0.1 + 20), "full"), (2 * (1000 * 0.1 + 20) - 1, "small")]
)
def test_the_full_schedule_is_trained_if_all_of_it_can_end_in_time(seconds, name):
    way = Way("batched", step_s=0.1, compile_s=20)
    assert planning.set_in_time(Plan(), way, 1000, seconds) == name
    assert planning.set_in_time(Plan(), Way("batched"), 1000, seconds) == "small"


def test_a_set_that_was_chosen_without_times_is_chosen_anew(session, monkeypatch):
    work, out, _ = session()
    del out.record["set"]
    export = SimpleNamespace(schedule=SimpleNamespace(steps=100))
    monkeypatch.setattr(stages.Export, "read", lambda folder: export)
    assert work._set(Way("batched")) == "small" and "set" not in out.record
    assert work._set(Way("batched", 0.1, 0)) == "full" == out.record["set"]
    assert work._set(Way("batched", 1e9, 0)) == "full"


def test_a_group_has_the_seeds_of_one_method_and_its_pairs_follow():
    groups = list(planning.groups(Plan(), "small"))
    assert [len(group) for group in groups] == [4, 4, 4, 4]
    assert groups[1] == [("small", "independent", seed) for seed in range(4)]


# Processes


def has_ended(number):
    """Whether a process is gone, or a zombie that nobody has waited for."""
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/{number}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    return True


def wait_until(holds):
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_if_one_of_several_processes_dies_the_others_are_killed():
    began = time.monotonic()
    started = [subprocess.Popen(command) for command in (["sleep", "60"], ["false"])]
    assert processes.wait_for_all(started) == [-9, 1]
    assert time.monotonic() - began < 20
    started = [subprocess.Popen(["true"]) for _ in range(2)]
    assert processes.wait_for_all(started) == [0, 0]


def test_the_others_do_not_wait_for_a_process_that_dies_before_they_meet(tmp_path):
    code = (
        "import sys; from pathlib import Path; from benchmarks.accelerator.step_time import meet\n"
        "sys.argv[1] == '0' or sys.exit(1)\n"
        "meet(Path(sys.argv[2]), 2)"
    )
    began = time.monotonic()
    started = [
        subprocess.Popen([sys.executable, "-c", code, number, str(tmp_path)], env=os.environ)
        for number in "01"
    ]
    statuses = processes.wait_for_all(started)
    assert statuses[0] != 0 and statuses[1] == 1 and time.monotonic() - began < 30


def test_a_process_that_is_late_ends_with_all_that_it_started(tmp_path):
    child = tmp_path / "child"
    command = ["sh", "-c", f"sleep 60 & echo $! > {child}.part; mv {child}.part {child}; wait"]
    assert processes.run(command, 3).returncode == CUT
    wait_until(lambda: has_ended(int(child.read_text())))
    ended = processes.run(["sh", "-c", "echo yes; echo no >&2; exit 1"], 20)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "yes\n", "no\n")


def test_training_is_asked_to_save_at_its_end_and_then_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_S", 0.5)
    log, ready = tmp_path / "log", tmp_path / "ready"
    script = f"trap 'echo saved' TERM; echo $$ > {ready}; while true; do sleep 0.1; done"
    late = SimpleNamespace(monotonic=lambda: 100.0 if ready.exists() else 0.0)
    monkeypatch.setattr(processes, "time", late)
    status = processes.run_until(0.1, ["sh", "-c", script], log, None, lambda: None)
    assert status == CUT and log.read_text() == "saved\n"
    assert has_ended(int(ready.read_text()))
    quick = ["sh", "-c", "exit 5"]
    assert processes.run_until(160.0, quick, log, None, lambda: None) == 5


@pytest.mark.slow
def test_a_borrowed_machine_is_rehearsed_to_the_import_of_its_runs():
    command = ["bash", str(Path(__file__).parents[1] / "benchmarks/accelerator.sh"), "--smoke"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    printed = ended.stdout
    assert "check, loaded by export" in printed and "failed" not in printed
    assert printed.count("python -m dml_tf.export import ") == 4
    assert "rehearsed: OUT had" in printed
