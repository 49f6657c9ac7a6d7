"""One run in two processes: alike to one process, and what happens when one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from plain import without_batch_norm
from rounding import StartOneRoundingAway, assert_alike, assert_like_histories

from dml_tf import networks
from dml_tf.runs import build, config, records, train
from dml_tf.runs.files import RunFiles

pytestmark = pytest.mark.multi_process

ROOT = Path(__file__).parent.parent
PAIR = {
    "dataset": "digits", "net": ("resnet8:4",), "cohort": 2, "image_size": 8, "batch_size": 16,
    "validation_fraction": 0.2, "dropout": 0.3, "augment": "crop_flip", "optimizer": "adam",
    "momentum": 0.0, "learning_rate": 0.001, "ema": 0.9, "steps": 0, "epochs": 5,
}  # fmt: skip


PLAIN = "tests/plain.py"


def start_two(flags, program="train.py"):
    """The two processes of a run, as two hosts would start them."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
    processes = []
    for index in range(2):
        setting = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, program, *flags],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps(setting), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def finish(processes):
    """What each process printed, all having ended well."""
    printed = []
    for process in processes:
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, out + error
        printed.append(out)
    return printed


def flags_of(options, folder):
    return [*(config.to_flag(k, v) for k, v in options.items()), f"--results_dir={folder}"]


def weights_of(asked):
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    variables = [v for net in cohort.networks for v in net.variables]
    return [v.numpy() for v in (*variables, *(v for o in cohort.optimizers for v in o.variables))]


def train_alone(one, folder):
    """A run in this process and its twin, and the weights that they start from."""
    cohort = build.build_cohort(one, build.load_data(one))
    start = [v.numpy() for net in cohort.networks for v in net.variables]
    train.run(one, verbose=0)
    twin = one.replace(results_dir=str(folder / "twin"))
    train.run(twin, verbose=0, callbacks=[StartOneRoundingAway()])
    return one, twin, start


def assert_learnt_as_one(asked, alone):
    one, twin, start = alone
    assert_alike(*map(weights_of, (asked, one, twin)), start)
    ours, theirs, rounded = map(records.find, (asked, one, twin))
    assert ours.keys() == theirs.keys() | {"placement"}
    assert ours["test"]["peers"].keys() == theirs["test"]["peers"].keys()
    assert_like_histories(ours["history"], theirs["history"], rounded["history"])


PEERS = {**PAIR, "update": "simultaneous", "placement": "peers"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return train_alone(
        config.load(**{**PEERS, "placement": "one"}, results_dir=str(folder / "one")), folder
    )


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_peer_in_each_process_learns_as_in_one_although_one_was_killed(tmp_path, victim, alone):
    flags = flags_of(PEERS, tmp_path / "two")
    processes = start_two(flags)
    while not list(tmp_path.glob(f"two/checkpoints/*.worker{victim}of2/state.npz")):
        assert all(p.poll() is None for p in processes), [p.communicate() for p in processes]
        time.sleep(0.01)
    os.kill(processes[victim].pid, signal.SIGKILL)
    killed, other = processes[victim], processes[1 - victim]
    out, error = other.communicate(timeout=60)
    assert other.returncode == 1, out + error
    assert "train.py: another process of this run has ended" in error
    assert "Traceback" not in error
    killed.communicate()
    asked = config.load(**PEERS, results_dir=str(tmp_path / "two"))
    assert not RunFiles.of(asked).record.exists()

    for index, out in enumerate(finish(start_two(flags))):
        assert "of 5 epochs are done; resuming" in out
        assert f"worker {index} trains resnet8_{index}; each receives 640 bytes a step" in out
        assert "ensemble   test accuracy" in out
    assert_learnt_as_one(asked, alone)
    assert records.find(asked)["placement"]["processes"] == 2
    assert not list((tmp_path / "two" / "checkpoints").iterdir())


def test_a_batch_split_over_two_processes_gives_the_weights_of_a_whole_one(tmp_path, monkeypatch):
    options = {**PAIR, "epochs": 2, "dropout": 0.0, "labelled_fraction": 0.5, "placement": "data"}
    for index, out in enumerate(finish(start_two(flags_of(options, tmp_path / "two"), PLAIN))):
        assert "every peer on 2 devices of 2 process(es)" in out, index
    asked = config.load(**options, results_dir=str(tmp_path / "two"))
    one = config.load(**{**options, "placement": "one"}, results_dir=str(tmp_path / "one"))
    monkeypatch.setattr(networks, "build", without_batch_norm)
    assert_learnt_as_one(asked, train_alone(one, tmp_path))
