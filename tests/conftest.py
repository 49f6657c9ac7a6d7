"""Fixtures for all tests."""

import os
import signal
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from dml_tf.measures.analysis import SIGMAS
from dml_tf.paper import plan
from dml_tf.paper.scales import BY_NAME
from dml_tf.runs import records, session
from dml_tf.runs.files import RunFiles

# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two devices, so that placements can be tested; they must exist before TensorFlow starts. What
# names no device runs on the first, as if it were the only one.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def fixed_seed(monkeypatch):
    """Every test starts from the same global random state, and without a traced cohort."""
    keras.utils.set_random_seed(0)
    monkeypatch.setattr(session, "_last", None)


@pytest.fixture
def synthetic_records():
    """Writes records of some items' runs with invented measures: mutual learning is better."""

    def measures(run, rng):
        value = (0.5 if run.method == "independent" else 0.52) + 0.001 * rng.random()
        if run.dataset not in ("pedestrians", "market1501"):
            return {"accuracy": value, "cross_entropy": 1.0, "entropy": value}
        single = {"mAP": value, "rank1": value + 0.1}
        return single | {"accuracy": value, "entropy": value, "multi_query": dict(single)}

    def analysis(run, rng):
        peers = [f"peer{k}" for k in range(run.cohort)]
        rise, power = (40, 1) if run.method == "independent" else (20, 0.8)
        rise += rng.random()
        masses = np.array([0.9, 0.05, 0.02, 0.01, 0.005]) ** power
        labels = np.repeat(np.arange(10), 4)
        apart = rng.normal(0, 30, (len(peers), 10, 2)).repeat(4, axis=1)
        points = (apart + rng.normal(0, 2, apart.shape)).round(1)
        found = {
            "weight_noise": {
                "sigma": list(SIGMAS),
                "loss": {
                    peer: [[0.01 + rise * s + 0.001 * draw for draw in range(3)] for s in SIGMAS]
                    for peer in peers
                },
            },
            "ranked_mass": {peer: (masses + 1e-4 * rng.random()).tolist() for peer in peers},
        }
        if len(peers) > 1:
            places = dict(zip(peers, points.tolist(), strict=True))
            same = 0.9 + 0.1 * rng.random()
            found["tsne"] = {"labels": labels.tolist(), "points": places, "same_peer": same}
        return found

    def record(run):
        rng = np.random.default_rng(zlib.crc32(run.run_id.encode()))
        peers = {f"peer{k}": measures(run, rng) for k in range(run.cohort)}
        curves = {
            f"{part}{peer}_{metric}": [0.1 + 0.01 * run.seed, 0.2 + 0.01 * run.seed]
            for part in (("", "val_") if run.watch_test else ("",))
            for peer in peers
            for metric in ("accuracy", "supervised_loss")
        }
        analysed = {"analysis": analysis(run, rng)} if run.analyse else {}
        return {
            "run_id": run.run_id,
            "config": run.comparable(),
            "data": f"{run.dataset} <made up>",
            "versions": {"dml_tf": "0", "keras": "3"},
            "machine": "a machine & its cores",
            "finished": "2026-01-02T03:04:05+00:00",
            "steps": 20,
            "cpu_s": 1.5,
            "train": {"peers": peers},
            "test": {"peers": peers, "ensemble": measures(run, rng)},
            "history": curves,
            **analysed,
        }

    def write(folder, items, seeds, scale="mini"):
        runs = plan.runs(BY_NAME[scale], items, results_dir=str(folder), seeds=seeds)
        for run in runs:
            records.write(record(run), RunFiles.of(run).record)
        return runs

    return write


@pytest.fixture(scope="session")
def exported_pair(tmp_path_factory):
    """Folder of an exported pair, whose programs are compiled once for all tests of a process."""
    import jax

    from dml_tf.export.__main__ import main

    root = tmp_path_factory.mktemp("pair")
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in a third of the time
    jax.config.update("jax_compilation_cache_dir", str(root / "cache"))
    flags = (
        "--dataset=digits --net=resnet8:4 --cohort=2 --image_size=8 --batch_size=16 "
        "--train_images=100 --augment=crop_flip --epochs=4 --decay_epochs=2"
    ).split()
    assert main(["write", *flags, f"--results_dir={root}/results", str(root / "step")]) == 0
    return root / "step"
