"""All runs of a scale, in worker processes that may fail or die."""

import functools
import os
import signal
import sys

import pytest

from dml_tf import config, records, report, run_all, state
from dml_tf.workers import Task, run_tasks


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


def test_a_dry_run_lists_commands_and_trains_nothing(tmp_path, capsys):
    status = run_all.main(["--scale=paper", f"--results_dir={tmp_path}", "--seeds=1", "--dry_run"])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[-1] == "22 runs, 22 to do"
    expected = "to do  python train.py --dataset=cifar100 --net=resnet32 --method=independent"
    assert expected in lines
    assert not list(tmp_path.iterdir())


def test_shards_are_a_partition_of_the_runs(tmp_path, capsys):
    parts = []
    for shard in ("0/1", "0/2", "1/2"):
        run_all.main([f"--results_dir={tmp_path}", "--dry_run", f"--shard={shard}"])
        parts.append(set(capsys.readouterr().out.splitlines()[:-1]))
    assert parts[0] == parts[1] | parts[2] and not parts[1] & parts[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scale=huge"], "invalid choice"),
        (["--only=table9"], "no item 'table9'; there are table1, table2"),
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


def test_a_second_one_is_kept_off_the_same_folder(tmp_path, capsys):
    with state.hold(tmp_path / "locks" / "run_all", BlockingIOError()):
        assert run_all.main([f"--results_dir={tmp_path}", "--only=table1"]) == 1
    assert "another one is at work" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "dml_tf.ray_executor", raising=False)
    monkeypatch.delattr("dml_tf.ray_executor", raising=False)
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
    task = run_all._task(tmp_path, distilled)
    assert task.reads[0] == weights / f"{teacher.run_id}.keras"
    assert task.writes == (records.path(distilled), weights / f"{distilled.run_id}.keras")
    assert run_all._task(tmp_path, started).reads[0] == weights / f"{started.pretrained}.keras"
    assert records.needed_weights(teacher.replace(pretrained="imagenet")) == []
    own = tmp_path / "own.keras"
    assert records.needed_weights(teacher.replace(pretrained=str(own))) == [own]


def test_a_scale_goes_through_and_a_second_call_only_writes(tmp_path, capsys, monkeypatch):
    one_table = functools.partial(report.write, items=("table2",))
    monkeypatch.setattr(run_all, "write_report", one_table)
    flags = ["--scale=smoke", f"--results_dir={tmp_path}", "--only=table2", "--shard=0/9"]
    assert run_all.main(flags) == 0
    assert "2 runs: 0 done, 2 to do" in capsys.readouterr().out
    page = tmp_path / "report.html"
    page.unlink()
    monkeypatch.setattr(run_all, "train_one", None)
    assert run_all.main(flags) == 0
    printed = capsys.readouterr().out
    assert "2 runs: 2 done, 0 to do" in printed and printed.endswith(f"on one page: {page}\n")
    assert (tmp_path / "table2.csv").exists() and "2 finished" in page.read_text()


def test_missing_data_is_that_runs_failure_with_its_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_all, "write_report", lambda scale, folder: [folder / "report.html"])
    flags = ["--scale=cpu", f"--results_dir={tmp_path}", "--only=table2", "--shard=0/99"]
    assert run_all.main([*flags, f"--data_dir={tmp_path / 'absent'}"]) == 1
    message = capsys.readouterr().err
    assert "FAILED cifar10-" in message and "absent" in message and "log: " in message
