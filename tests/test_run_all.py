"""All runs of a scale, in worker processes that may fail or die."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dml_tf import home, paper
from dml_tf.paper import __main__ as paper_main
from dml_tf.paper import page, plan, run_all, scales
from dml_tf.paper.estimate import Estimate
from dml_tf.paper.workers import Task, run_tasks
from dml_tf.runs import config, files
from dml_tf.runs.files import RunFiles, needed_weights


def succeed(report, text):
    report(text)
    print("printed", text)


def fail(report):
    raise ValueError("no such thing")


def die(report):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_failing_and_a_dying_task_leave_the_others_alone(tmp_path):
    tasks = [
        Task("dies", die, (), tmp_path / "dies.log"),
        Task("fails", fail, (), tmp_path / "fails.log"),
        Task("first", succeed, ("a",), tmp_path / "first.log"),
        Task("second", succeed, ("b",), tmp_path / "second.log"),
    ]
    events = list(run_tasks(tasks, jobs=1, threads=1))
    ends = {event.task.name: event for event in events if event.kind in ("done", "failed")}
    assert {name: event.kind for name, event in ends.items()} == {
        "dies": "failed", "fails": "failed", "first": "done", "second": "done",
    }  # fmt: skip
    assert ends["fails"].text == "no such thing"
    assert "status -9" in ends["dies"].text
    assert [event.text for event in events if event.kind == "progress"] == ["a", "b"]
    assert "printed a" in (tmp_path / "first.log").read_text()
    assert "ValueError: no such thing" in (tmp_path / "fails.log").read_text()


@pytest.mark.parametrize(
    ("moment", "end"),
    [("started", "failed"), pytest.param("done", "done", marks=pytest.mark.slow)],
)
def test_a_worker_that_dies_outside_a_task_is_replaced(moment, end, tmp_path):
    """While it imports TensorFlow, its task unread; or while it has none."""
    tasks = [Task(f"t{i}", succeed, ("a",), tmp_path / f"t{i}") for i in range(2)]
    events = []
    for event in run_tasks(tasks, jobs=1, threads=1):
        events += [(event.kind, event.task.name)] if event.kind != "progress" else []
        if events == [("started", "t0"), ("done", "t0")][: 1 + (moment == "done")]:
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
    assert events == [("started", "t0"), (end, "t0"), ("started", "t1"), ("done", "t1")]


def note_pid_and_wait(report, file):
    file.write_text(str(os.getpid()))
    time.sleep(60)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Otherwise they would train beside the next call, and keep their runs locked."""
    code = (
        "import pathlib, sys; sys.path.insert(0, 'tests')\n"
        "from test_run_all import note_pid_and_wait\n"
        "from dml_tf.paper.workers import Task, run_tasks\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "task = Task('waits', note_pid_and_wait, (folder / 'pid',), folder / 'log')\n"
        "if __name__ == '__main__': list(run_tasks([task], jobs=1, threads=1))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    root = home.HOME
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    parent = subprocess.Popen([sys.executable, script], env=environment, cwd=root)
    worker = int(wait_for(lambda: (tmp_path / "pid").read_text()))
    os.kill(worker, 0)  # it is alive
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not alive(worker))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=300):
    for _ in range(10 * seconds):
        with contextlib.suppress(FileNotFoundError):
            if found := condition():
                return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def test_a_dry_run_lists_commands_and_trains_nothing(tmp_path, capsys):
    flags = ["--scale=paper", f"--results_dir={tmp_path}", "--seeds=1", "--only=table2"]
    assert run_all.main([*flags, "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "18 runs, 18 to do"
    assert " left with --jobs=" in lines[-1]
    command = "python train.py --dataset=cifar100 --net=resnet32,resnet32 --method=independent"
    (line,) = (line for line in lines if line.endswith(command))
    assert line.startswith("to do ") and " h " in line
    (settings,) = (line for line in lines if line.startswith("--dataset=cifar100 is "))
    assert "--learning_rate=0.1 --momentum=0.9 --batch_size=64 --decay_epochs=60" in settings
    assert not list(tmp_path.iterdir())


def test_shards_are_a_partition_of_the_runs(tmp_path, capsys):
    parts = []
    for shard in ("0/1", "0/2", "1/2"):
        run_all.main([f"--results_dir={tmp_path}", "--dry_run", f"--shard={shard}"])
        lines = capsys.readouterr().out.splitlines()
        parts.append({line for line in lines if line.startswith("to do ")})
    assert len(parts[0]) > 80 and parts[0] == parts[1] | parts[2]
    # Each has a folder of its own, so both train what runs of both start from.
    twice = [line.partition(" --") for line in parts[1] & parts[2]]
    assert len(twice) < 10 and all("distill" not in rest for *_, rest in twice)


def test_a_shard_has_the_teachers_of_its_students(tmp_path):
    runs = plan.runs(scales.BY_NAME["paper"], ["table4"], results_dir=str(tmp_path))
    for shard in range(4):
        own = run_all._shard_of(runs, shard, 4)
        files_left = {RunFiles.of(run).model for run in own}
        assert {file for run in own for file in needed_weights(run)} <= files_left
        assert set(runs[shard::4]) <= set(own)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scale=huge"], "invalid choice"),
        (["--only=table9"], "no item 'table9'; there are section31, table1"),
        (["--shard=2/2"], "is not i/n"),
        (["--jobs=0"], "--jobs must be at least 1"),
        (["--task_cpus=0"], "--task_cpus must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_all.main(flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), ([], 2), (["train"], 2)])
def test_the_command_is_run_or_report(argv, status, capsys):
    assert paper_main.main(argv) == status
    printed = capsys.readouterr()
    assert "`python -m dml_tf.paper run` or `report`" in (printed.err if status else printed.out)


def test_a_second_one_in_the_same_folder_is_refused(tmp_path, capsys):
    with files.hold(tmp_path / "locks" / "run_all", BlockingIOError()):
        assert run_all.main([f"--results_dir={tmp_path}", "--only=table1"]) == 1
    assert "another run_all is at work" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "dml_tf.paper.ray_executor", raising=False)
    monkeypatch.delattr(paper, "ray_executor", raising=False)
    flags = [f"--results_dir={tmp_path}", "--only=table1", "--executor=ray"]
    assert run_all.main(flags) == 1
    assert "pip install -r requirements-cluster.txt" in capsys.readouterr().err


def test_a_task_names_the_weights_that_it_needs_and_leaves(tmp_path):
    teacher, distilled = (
        config.load(dataset="digits", results_dir=str(tmp_path), **flags)
        for flags in (
            {"net": ("resnet8:4",)},
            {"net": ("resnet8:4", "resnet8:2"), "method": "distill"},
        )
    )
    started = teacher.replace(pretrained="digits-independent-mobilenet_shortw0.5-seed0")
    weights = tmp_path / "models"
    task = run_all._task(distilled, Estimate())
    assert task.reads[0] == weights / f"{teacher.run_id}.keras"
    assert task.writes == (RunFiles.of(distilled).record, weights / f"{distilled.run_id}.keras")
    assert run_all._task(started, Estimate()).reads[0] == weights / f"{started.pretrained}.keras"
    assert needed_weights(teacher.replace(pretrained="imagenet")) == []
    own = tmp_path / "own.keras"
    assert needed_weights(teacher.replace(pretrained=str(own))) == [own]


def test_a_teacher_of_which_only_the_record_is_left_is_refused_before_the_work(tmp_path):
    flags = {"dataset": "digits", "results_dir": str(tmp_path)}
    teacher = config.load(net=("resnet8:4",), **flags)
    taught = {"net": ("resnet8:4", "resnet8:2"), "method": "distill", "teacher": teacher.run_id}
    distilled = config.load(**taught, **flags)
    files = RunFiles.of(teacher)
    run_all._refuse_lost_weights([distilled])  # its own message says that there is no such run
    files.record.parent.mkdir()
    files.record.touch()
    run_all._refuse_lost_weights([teacher, distilled])
    with pytest.raises(FileNotFoundError, match=f"{files.model.name}.*another --results_dir"):
        run_all._refuse_lost_weights([distilled])
    default = config.load(net=("resnet8:4", "resnet8:2"), method="distill", **flags)
    run_all._refuse_lost_weights([default])  # trains its teacher itself
    files.model.parent.mkdir()
    RunFiles.of(distilled).model.touch()
    run_all._refuse_lost_weights([distilled])  # which lacks its analysis only
    RunFiles.of(distilled).model.unlink()
    files.model.touch()
    run_all._refuse_lost_weights([distilled])


def test_a_scale_goes_through_and_a_second_call_only_writes(tmp_path, capsys, monkeypatch):
    flags = ["--scale=smoke", f"--results_dir={tmp_path}", "--only=table2", "--shard=0/9"]
    assert run_all.main(flags) == 0
    assert "2 runs: 0 done, 2 to do" in capsys.readouterr().out
    written = tmp_path / "report.html"
    written.unlink()
    monkeypatch.setattr(run_all, "train_one", None)
    assert run_all.main(flags) == 0
    printed = capsys.readouterr().out
    assert "2 runs: 2 done, 0 to do" in printed
    *_, last_but_one, last = printed.splitlines()
    assert last_but_one.endswith(f"on one page: {written}")
    assert last == page.opening(scales.BY_NAME["smoke"], tmp_path)
    assert (tmp_path / "table2.csv").exists()
    assert not (tmp_path / "table3.csv").exists()  # it was not asked for and has no records
    assert "2 finished" in written.read_text()


def test_missing_data_is_that_runs_failure_with_its_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "write", lambda scale, folder, items: [folder / "report.html"])
    flags = ["--scale=cpu", f"--results_dir={tmp_path}", "--only=table2", "--shard=0/99"]
    (tmp_path / "without").mkdir()
    assert run_all.main([*flags, f"--data_dir={tmp_path / 'without'}"]) == 1
    message = capsys.readouterr().err
    assert "FAILED cifar10-" in message and "without" in message and "log: " in message


def test_a_data_folder_that_does_not_exist_is_refused_and_not_made(tmp_path, capsys):
    flags = ["--scale=smoke", f"--results_dir={tmp_path / 'results'}", "--only=table3"]
    assert run_all.main([*flags, f"--data_dir={tmp_path / 'absent'}"]) == 1
    assert f"--data_dir={tmp_path / 'absent'}: there is no such" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
