"""GPUs are found without TensorFlow, and runs share them."""

import os

import pytest

from dml_tf.errors import ExecutorError
from dml_tf.paper import machine, run_all
from dml_tf.paper.estimate import CPU
from dml_tf.paper.workers import NO_GPU, Task, run_tasks

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-1)
GPU 1: Tesla V100-PCIE-16GB (UUID: GPU-bbbb-2)
  MIG 1g.5gb      Device  0: (UUID: MIG-cccc-3)
"""
A100, V100 = "NVIDIA A100-SXM4-40GB", "Tesla V100-PCIE-16GB"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, {"GPU-aaaa-1": A100, "GPU-bbbb-2": V100}),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, {"1": V100, "0": A100}),
        ({"CUDA_VISIBLE_DEVICES": " GPU-bbbb"}, {"GPU-bbbb": V100}),
        ({"CUDA_VISIBLE_DEVICES": "MIG-cccc-3"}, {"MIG-cccc-3": "MIG 1g.5gb"}),
        ({"CUDA_VISIBLE_DEVICES": "0,7,1"}, {"0": A100}),  # as CUDA does
        ({"CUDA_VISIBLE_DEVICES": "-1"}, {}),
        ({"CUDA_VISIBLE_DEVICES": ""}, {}),
    ],
)
def test_the_environment_decides_which_gpus_are_visible(environment, found):
    assert machine.visible(LISTING, environment) == found


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A driver's listing program, as a machine with GPUs has it."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat <<END\n{LISTING}END\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


def test_the_driver_is_asked(driver, monkeypatch):
    assert machine.find() == {"GPU-aaaa-1": A100, "GPU-bbbb-2": V100}
    driver.write_text("#!/bin/sh\nexit 9\n")  # as without a kernel module
    assert machine.find() == {}
    monkeypatch.setenv("PATH", "")
    assert machine.find() == {}


@pytest.mark.parametrize(
    ("jobs", "gpu_jobs", "shared"),
    [
        (None, 1, (A100, ("a", "b"), 2, 4)),
        (None, 3, (A100, ("a", "b"), 6, 1)),
        (1, 1, (A100, ("a", "b"), 1, 8)),
        (None, 0, (CPU, (NO_GPU,), 8, 1)),
    ],
)
def test_each_gpu_has_one_run_and_its_part_of_the_cores(jobs, gpu_jobs, shared):
    assert machine.share({"a": A100, "b": V100}, 8, jobs=jobs, gpu_jobs=gpu_jobs) == shared


def test_without_gpus_each_core_has_one_run():
    assert machine.share({}, 8, jobs=None, gpu_jobs=1) == (CPU, (None,), 8, 1)
    assert machine.share({}, 8, jobs=3, gpu_jobs=2).jobs == 3


def tell_environment(report):
    report(os.environ["CUDA_VISIBLE_DEVICES"])
    report(os.environ["TF_FORCE_GPU_ALLOW_GROWTH"])
    report(str(os.getpid()))


def test_a_worker_is_pinned_and_leaves_memory_to_others(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    tasks = [Task(name, tell_environment, (), tmp_path / name) for name in ("one", "two")]
    events = list(run_tasks(tasks, jobs=1, threads=1, gpus=(NO_GPU,), one_task_each=True))
    news = [event.text for event in events if event.kind == "progress"]
    assert [*news[:2], *news[3:5]] == [NO_GPU, "true"] * 2
    assert news[2] != news[5]  # each task has had a process of its own
    assert [event.kind for event in events if event.kind in ("done", "failed")] == ["done"] * 2


def test_a_gpu_that_tensorflow_does_not_see_stops_all(driver, tmp_path, capsys):
    tasks = [Task("one", tell_environment, (), tmp_path / "one")]
    with pytest.raises(ExecutorError, match="does not see GPU 9"):
        list(run_tasks(tasks, jobs=1, threads=1, gpus=("9",)))
    flags = ["--scale=smoke", f"--results_dir={tmp_path / 'results'}", "--only=section31"]
    assert run_all.main([*flags, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "left with --jobs=2" in printed and f"No run was measured on {A100} yet" in printed
    assert run_all.main([*flags, "--shard=0/99"]) == 1
    message = capsys.readouterr().err
    assert "tensorflow[and-cuda]" in message and "--gpu_jobs=0" in message
