"""Where peers are: what is refused, and what two devices and one give alike."""

import concurrent.futures
import contextlib
import dataclasses
import json
import signal
import socket
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from rounding import FACTOR, assert_alike, one_rounding_away

from dml_tf import Cohort, data, networks
from dml_tf.data.stored import Pictures
from dml_tf.errors import FlagError, ProcessLost, RunFailed
from dml_tf.export import write
from dml_tf.method.peers import RemoteNetwork
from dml_tf.runs import build, config, train
from dml_tf.runs.files import RunFiles
from dml_tf.runs.parallel import cluster, placement

SMALL = {"dataset": "digits", "net": ("resnet8:4",), "image_size": 8, "batch_size": 16, "steps": 3}
TWO = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'


def settings(**changes):
    return config.load(**{**SMALL, **changes})


# Flags


def test_a_split_batch_is_another_run_and_peers_elsewhere_are_not():
    plain, peers, data = (settings(cohort=2, placement=p) for p in ("one", "peers", "data"))
    assert plain.run_id == peers.run_id != data.run_id
    assert plain.command == peers.command
    assert data.command.endswith("--placement=data")
    assert settings(jit_compile="true", steps_per_execution=3).run_id == settings().run_id
    assert settings(precision="mixed_bfloat16").run_id != settings().run_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"placement": "peers", "jit_compile": "true"},
            "jit_compile=true compiles .* one device",
        ),
        ({"placement": "data", "precision": "mixed_float16"}, "use mixed_bfloat16"),
        ({"placement": "everywhere"}, "placement=everywhere"),
        ({"steps_per_execution": -1}, "out of range"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(FlagError, match=message):
        settings(cohort=2, **changes)


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ("", {"placement": "peers"}, r"as many devices as peers: there are 1 .* --cohort=2"),
        ("", {"placement": "data"}, "there is only /device:CPU:0"),
        (TWO, {}, "names 2 processes, and --placement=one uses one"),
        (TWO, {"placement": "peers", "cohort": 3}, "names 2 processes for --cohort=3"),
        (TWO, {"placement": "data", "method": "distill"}, "a --teacher that every process"),
        (TWO, {"placement": "peers", "method": "distill"}, "takes --placement=data"),
        ("{", {"placement": "peers"}, "TF_CONFIG is not of the form"),
        (TWO.replace("1}", "2}"), {"placement": "peers"}, "TF_CONFIG is not of the form"),
        (TWO.replace("worker", "ps"), {"placement": "peers"}, "jobs ps are not all among"),
        (TWO.replace("1}", "-1}"), {"placement": "peers"}, "there is no worker -1"),
        (TWO.replace("b:2", "a:1"), {"placement": "peers"}, "an address is listed twice"),
        (TWO.replace("b:2", "b"), {"placement": "peers"}, "TF_CONFIG is not of the form"),
        (TWO.replace('["a:1", "b:2"]', '"a:1"'), {"placement": "peers"}, "a list of addresses"),
    ],
)
def test_an_impossible_placement_is_refused(environment, changes, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", environment)
    monkeypatch.setattr(placement, "local_devices", lambda: ("/device:CPU:0",))
    with pytest.raises(FlagError, match=message):
        placement.arrange(settings(**{"cohort": 2, **changes}))


def test_a_chief_comes_before_the_workers(monkeypatch):
    chief = '{"cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"]}, "task": %s}'
    ranks = []
    for task in ('{"type": "chief", "index": 0}', '{"type": "worker", "index": 1}'):
        monkeypatch.setenv("TF_CONFIG", chief % task)
        found = cluster.from_environment()
        ranks.append((found.rank, found.size, found.is_chief))
    assert ranks == [(0, 3, True), (2, 3, False)]


def test_a_process_that_waits_for_one_that_never_starts_ends_in_words():
    with socket.create_server(("127.0.0.1", 0)) as answering, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = [answering.getsockname()[1], free.getsockname()[1]]
    with socket.create_server(("127.0.0.1", ports[0])):
        addresses = ["127.0.0.1:0", *(f"127.0.0.1:{port}" for port in ports)]
        with pytest.raises(ProcessLost, match=f"answered at {addresses[2]} within 0.3 s. Start"):
            cluster.Cluster(addresses).connect(0.3)


class Two(cluster.Cluster):
    """The first of two processes, the other of which says something."""

    def __init__(self, other):
        super().__init__(("a:1", "b:2"))
        self.other = other

    def share(self, data):
        return [data, json.dumps(self.other).encode()]


def test_processes_with_different_settings_are_refused():
    asked = settings(cohort=2, placement="peers")
    ours = train._shared_settings(asked)
    theirs = {**ours, "steps_per_execution": 2, "seed": 7, "version of keras": "1"}
    with pytest.raises(FlagError, match=r"settings \(seed, steps_per_execution, version of keras"):
        Two(theirs).refuse_differences("settings", lambda: ours)
    with pytest.raises(FlagError, match="settings .new_flag, version of dml_tf"):
        newer = ours | {"new_flag": 1, "version of dml_tf": "9"}
        Two(ours).refuse_differences("settings", lambda: newer)
    Two(ours).refuse_differences("settings", lambda: ours)


def test_processes_with_different_data_are_refused():
    splits = build.load_data(settings())
    ours = train._shared_data(splits)
    other = splits.train.images.copy()
    other[-1, 0, 0] += 1
    changed = dataclasses.replace(splits, train=data.Split(other, splits.train.labels))
    with pytest.raises(FlagError, match=r"different data \(train\)"):
        Two(train._shared_data(changed)).refuse_differences("data", lambda: ours)
    Two(ours).refuse_differences("data", train._shared_data, splits)


def test_pictures_on_disk_are_told_apart_by_their_names(tmp_path):
    def split(*names, labels=(0, 1)):
        files = [tmp_path / name for name in names]
        return data.Split(Pictures.of_files(files, 8), np.array(labels))

    ours = split("cat/1.jpg", "dog/2.jpg").digest
    assert ours == split("cat/1.jpg", "dog/2.jpg").digest
    assert ours != split("dog/2.jpg", "cat/1.jpg").digest
    assert ours != split("cat/1.jpg", "dog/2.jpg", labels=(1, 0)).digest


def test_the_message_names_the_process_that_has_ended_and_keeps_tensorflows_words():
    words = "{{node X}} /job:worker/replica:0/task:1/device:CPU:0: %s\nsecond line"
    for reason, named in (
        ("Socket closed from remote target /job:worker/replica:0/task:0", "worker 0"),
        ("out of memory", "one"),
    ):
        error = tf.errors.InternalError(None, None, words % reason)
        with pytest.raises(ConnectionError, match=rf"\({named} of a:1, b:2\).*{reason}$"):
            with cluster.Cluster(("a:1", "b:2"), 1).watched():
                raise error


def test_features_of_different_widths_are_refused(tmp_path):
    asked = settings(
        net=("resnet8:4", "resnet8:8"), feature_weight=0.1, results_dir=str(tmp_path), cohort=2
    )
    with pytest.raises(FlagError, match="16 of resnet8:4, 32 of resnet8:8"):
        train.run(asked, verbose=0)


def test_ctrl_c_ends_a_process_that_waits_for_the_others():
    before = signal.getsignal(signal.SIGINT)
    with cluster._interruptible():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_a_taken_port_is_named_before_tensorflow_starts():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(RunFailed, match=f"worker 0 the address {address}, and its port is not"):
            cluster.Cluster((address, "127.0.0.1:1"), 0).connect(1)


# Peers apart


class Apart:
    """One peer here; a gather between threads stands for that between processes."""

    def __init__(self, rank, board, barrier):
        self.rank, self.board, self.barrier = rank, board, barrier

    def on(self, k):
        return contextlib.nullcontext()

    def exchange(self, outputs):
        self.board[self.rank] = outputs[self.rank]
        self.barrier.wait(60)
        gathered = list(self.board)
        self.barrier.wait(60)
        return gathered


def dense(k):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, kernel_initializer=keras.initializers.HeNormal(k)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, kernel_initializer=keras.initializers.HeNormal(9 + k)),
        ],
        name=f"peer{k}",
    )


@pytest.mark.parametrize("update", ["sequential", "simultaneous"])
def test_three_peers_apart_learn_and_report_as_together(update):
    rng = np.random.default_rng(0)
    batches = [(tf.constant(rng.normal(size=(6, 4)), tf.float32), tf.range(6) % 3)] * 2

    def learn(cohort):
        cohort.compile("sgd")
        for batch in batches:
            logs = cohort.train_step(batch)
        return {name: float(value) for name, value in logs.items()}

    together, twin = (Cohort([dense(k) for k in range(3)], update=update) for _ in range(2))
    start = together.get_weights()
    board, barrier = [None] * 3, threading.Barrier(3)
    apart = [
        Cohort(
            [dense(k) if k == rank else RemoteNetwork(f"peer{k}") for k in range(3)],
            update=update,
            placement=Apart(rank, board, barrier),
        )
        for rank in range(3)
    ]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(learn, apart))
    expected = learn(together)
    twin.set_weights([one_rounding_away(value, rng) for value in start])
    rounded = learn(twin)
    ours = [value for k, cohort in enumerate(apart) for value in cohort.networks[k].get_weights()]
    assert_alike(ours, together.get_weights(), twin.get_weights(), start)
    for report in reports:
        assert report.keys() == expected.keys()
        for name, value in expected.items():
            tolerance = FACTOR * max(abs(rounded[name] - value), np.spacing(np.float32(value)))
            assert abs(report[name] - value) <= tolerance


def test_an_exported_step_takes_no_placement(tmp_path):
    with pytest.raises(FlagError, match="--placement=peers: an exported step"):
        write.export(settings(cohort=2, placement="peers"), tmp_path / "step")


# Precision and calls of several steps


@pytest.mark.parametrize(
    "precision", [pytest.param("mixed_float16", marks=pytest.mark.slow), "mixed_bfloat16"]
)
def test_networks_compute_in_the_precision_and_logits_and_weights_are_float32(precision, tmp_path):
    asked = settings(cohort=2, precision=precision, results_dir=str(tmp_path))
    before = keras.config.dtype_policy()
    record = train.run(asked, verbose=0)
    assert keras.config.dtype_policy() == before
    cohort = keras.saving.load_model(RunFiles.of(asked).model)
    half = precision.removeprefix("mixed_")
    for network, optimizer in zip(cohort.networks, cohort.optimizers, strict=True):
        assert {layer.compute_dtype for layer in network.layers if "conv" in layer.name} == {half}
        assert {w.dtype for w in network.weights} == {"float32"}
        assert network.output["logits"].dtype == "float32"
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (precision == "mixed_float16")
        assert int(optimizer.iterations) == 3
    assert record["config"]["precision"] == precision


def test_each_peer_lowers_its_own_loss_scale():
    """One peer's gradients overflow: it skips the step and halves its scale; the other learns."""
    nets = [
        networks.build("resnet8:4", num_classes=3, input_shape=(8, 8, 1), seed=k) for k in range(2)
    ]
    scales = [2.0**120, 2.0**10]
    cohort = Cohort(nets)
    cohort.compile(
        [keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), s) for s in scales]
    )
    nets[0].layers[-1].kernel.assign(np.full(nets[0].layers[-1].kernel.shape, 1e10))
    before = [net.trainable_variables[0].numpy() for net in nets]
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    cohort.fit(images, np.arange(8) % 3, batch_size=8, verbose=0)
    moved = [
        not np.array_equal(net.trainable_variables[0].numpy(), b)
        for net, b in zip(nets, before, strict=True)
    ]
    assert moved == [False, True]
    assert [float(o.dynamic_scale) for o in cohort.optimizers] == [2.0**119, 2.0**10]


def test_steps_in_one_call_give_the_same_weights(tmp_path):
    def trained(name, steps_per_execution=1):
        asked = settings(
            cohort=2,
            steps=8,
            steps_per_execution=steps_per_execution,
            results_dir=str(tmp_path / name),
        )
        assert train.run(asked, verbose=0)["steps"] == 8
        return keras.saving.load_model(RunFiles.of(asked).model).get_weights()

    single, four = trained("single"), trained("four", steps_per_execution=4)
    for one, other in zip(single, four, strict=True):
        np.testing.assert_array_equal(one, other)
