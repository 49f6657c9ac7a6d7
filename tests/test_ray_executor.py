"""Runs as tasks of a Ray cluster on this machine, whose nodes may die."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dml_tf.paper import page, plan, run_all
from dml_tf.paper.scales import BY_NAME
from dml_tf.paper.workers import Task
from dml_tf.runs import records, train
from dml_tf.runs.files import RunFiles

ray = pytest.importorskip(
    "ray", reason="Ray is not installed: python -m pip install -r requirements-cluster.txt"
)
from ray.cluster_utils import Cluster  # noqa: E402

from dml_tf.paper import ray_executor  # noqa: E402

HEAD = {"num_cpus": 0, "include_dashboard": False}
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes have no tests


@pytest.fixture(scope="module")
def cluster():
    """A head that takes no tasks, and a node that takes one at a time."""
    sockets = tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True)  # a short path
    with pytest.MonkeyPatch.context() as patch, sockets as folder:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # on a busy machine 15 starves them
        patch.setattr(ray_executor, "_POLL_S", 0.1)
        made = Cluster(initialize_head=True, head_node_args={**NODE, **HEAD})
        made.node = made.add_node(**NODE)
        yield made
        made.shutdown()


def succeed(report, source, target):
    report("half")
    print("printed")
    target.parent.mkdir()
    target.write_text(source.read_text() + " and back")


def fail(report):
    raise ValueError("no such thing")


def fail_if_it_exists(report, file):
    assert not file.exists()


def die(report):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_unless_it_exists(report, file, release):
    if file.exists():
        return
    file.touch()
    while not release.exists():
        time.sleep(0.1)


def test_tasks_end_as_local_ones_do_and_files_are_brought(cluster, tmp_path, monkeypatch, capfd):
    # The node's processes run in another folder: relative paths stand for those of another disk.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_executor, "RETRIES", 1)
    source, target = Path("source.txt"), Path("made/target.txt")
    source.write_text("to the node")
    stale = tmp_path / "stale.txt"  # as an earlier run may have left on the node's own disk
    stale.write_text("earlier")
    tasks = [
        Task("dies", die, (), Path("logs/dies.log")),
        Task("fails", fail, (), Path("logs/fails.log")),
        Task("renews", fail_if_it_exists, (stale,), Path("logs/renews.log"), (), (stale,)),
        Task("works", succeed, (source, target), Path("logs/works.log"), (source,), (target,)),
    ]
    with ray_executor.connect(cluster.address) as executor:
        assert executor.slots == 1
        events = list(executor.run(tasks))
    news = {task.name: [e[::2] for e in events if e.task.name == task.name] for task in tasks}
    assert news["works"] == [("started", ""), ("progress", "half"), ("done", "")]
    assert news["renews"] == [("started", ""), ("done", "")]
    assert news["fails"] == [("started", ""), ("failed", "no such thing")]
    again = ("progress", "again, its node or process was lost")
    assert news["dies"][:2] == [("started", ""), again] and len(news["dies"]) == 3
    kind, reason = news["dies"][-1]
    assert kind == "failed" and "died" in reason and "died" in Path("logs/dies.log").read_text()
    assert target.read_text() == "to the node and back"
    assert Path("logs/works.log").read_text() == "printed\n"
    assert "ValueError: no such thing" in Path("logs/fails.log").read_text()


@pytest.mark.slow
def test_a_task_lost_with_its_node_is_done_by_another(cluster, tmp_path, capfd):
    begun, release = tmp_path / "begun", tmp_path / "release"
    task = Task("lost", wait_unless_it_exists, (begun, release), tmp_path / "lost.log")
    kinds = []
    with ray_executor.connect(cluster.address) as executor:
        for event in executor.run([task]):
            kinds.append(event.kind)
            if event.kind == "started":
                while not begun.exists():
                    time.sleep(0.1)
                cluster.remove_node(cluster.node, allow_graceful=False)
                cluster.node = cluster.add_node(**NODE)
    assert kinds == ["started", "progress", "done"]


def test_a_cluster_without_room_has_no_slots(cluster):
    with ray_executor.connect(cluster.address, cpus=2) as executor:
        assert executor.slots == 0


def test_records_are_those_of_a_run_without_a_cluster(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(page, "write", lambda scale, folder, items: [folder / "report.html"])
    planned = plan.runs(BY_NAME["smoke"], ("table4",), results_dir=str(tmp_path / "ray"))
    teacher, _, student, *_ = planned
    assert (teacher.method, student.method) == ("independent", "distill")
    monkeypatch.setattr(plan, "runs", lambda *args, **kwargs: [teacher, student])
    flags = ["--scale=smoke", f"--results_dir={teacher.results_dir}"]
    status = run_all.main([*flags, "--executor=ray", f"--ray_address={cluster.address}"])
    assert status == 0, capfd.readouterr().err
    # The hash is of a file with times in it; the weights are compared by what they measure.
    varying = ("finished", "wall_clock_s", "cpu_s", "images_per_s", "weights_sha256")
    for run in (teacher, student):
        by_ray = records.find(run)
        assert RunFiles.of(run).model.exists()
        alone = train.run(run.replace(results_dir=str(tmp_path / "alone")), verbose=0)
        assert alone.keys() == by_ray.keys()
        for key in alone.keys() - set(varying):
            assert alone[key] == by_ray[key], key


def test_an_address_where_nobody_answers_is_status_1(tmp_path, capsys):
    flags = [f"--results_dir={tmp_path}", "--only=table1", "--executor=ray"]
    assert run_all.main([*flags, "--ray_address=127.0.0.1:9"]) == 1
    message = capsys.readouterr().err
    assert "run_all: --ray_address=127.0.0.1:9: " in message and "ray start --head" in message
