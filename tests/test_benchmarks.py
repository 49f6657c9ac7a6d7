"""The benchmarks run on tiny settings; the measured times are not checked."""

import importlib.util
import json

import numpy as np
import pytest
from rounding import largest_difference, one_rounding_away, tolerance

from benchmarks import (
    data_memory,
    decoding,
    harness,
    input_pipeline,
    memory,
    placement,
    pytorch_step,
    reid,
    run_time,
    step,
    throughput,
)
from dml_tf import Cohort, networks
from dml_tf.data.sources.market1501 import load_market1501
from dml_tf.measures import evaluate
from dml_tf.runs import build, config, quiet

TINY = ["--batch_size=4", "--image_size=8", "--repeats=2"]
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: python -m pip install -r requirements-benchmarks.txt",
)


@pytest.fixture(autouse=True)
def unchanged_tensorflow(monkeypatch):
    monkeypatch.setattr(quiet, "import_tensorflow", lambda threads: None)


def run(benchmark, flags, tmp_path):
    out = tmp_path / "record.json"
    assert not benchmark.main([*flags, f"--out={out}"])
    record = json.loads(out.read_text())
    assert record["command"].startswith("python -m benchmarks.") and record["machine"]
    return record


def test_another_contender_starts_in_each_repeat():
    order = []

    def contender(name, seconds):
        def measure():
            order.append(name)
            return seconds, 2 * seconds

        return measure

    cpu, wall = harness.in_turns({"a": contender("a", 1.0), "b": contender("b", 3.0)}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert cpu == {"a": [1, 1], "b": [3, 3]} and wall == {"a": [2, 2], "b": [6, 6]}
    assert harness.ratios(cpu, "b", "a").tolist() == [3, 3]


@pytest.mark.slow
def test_the_step_benchmark_has_a_row_for_each_kind(tmp_path, capsys):
    flags = [*TINY, "--net=resnet8:4", "--cohorts=2", "--breakdown"]
    record = run(step, flags, tmp_path)
    assert [row["contender"] for row in record["rows"]] == list(step.CONTENDERS)
    assert [row["bound"] for row in record["rows"]] == [1, 1, 1, 7 / 6, 8 / 6]
    assert record["rows"][0]["cpu_ratio"] == 1
    assert "| 2 | sequential (Algorithm 1) |" in capsys.readouterr().out


def test_throughput_compares_a_pair_with_two_alone(tmp_path, capsys):
    (row,) = run(throughput, [*TINY, "--nets=resnet8:4"], tmp_path)["rows"]
    assert row["net"] == "resnet8:4" and row["parameters"] == 6_536
    assert row["independent_images_per_s"] > 0 and row["pair_images_per_s"] > 0
    assert row["cpu_ratio_over_bound"] == pytest.approx(row["cpu_ratio"] * 6 / 7)


@pytest.mark.slow
def test_memory_is_measured_in_a_new_process(tmp_path, capsys):
    flags = ["--batch_size=4", "--image_size=8", "--repeats=1", "--steps=1", "--net=resnet8:4"]
    record = run(memory, [*flags, "--cohorts=1", "--kinds=sequential"], tmp_path)
    (row,) = record["rows"]
    assert row["growth_bytes"] > 2 * 4 * 6_536  # at least weights and momenta
    assert row["parameter_bytes"] == 4 * 6_536 and row["growth_over_bound"] == 1


def test_the_memory_of_k_peers_is_compared_with_k_times_one_peer():
    samples = [
        {"peers": k, "contender": "literal", "parameter_bytes": k, "growth_bytes": sizes}
        for k, sizes in ((1, [90, 100, 130]), (3, [240, 250, 200]))
    ]
    one, three = memory.compare(samples)
    assert (one["growth_bytes"], one["growth_over_bound"]) == (100, 1)
    assert three["growth_bytes_range"] == [200, 250] and three["growth_over_bound"] == 0.8


def test_memory_without_a_single_peer_is_refused(capsys):
    with pytest.raises(SystemExit):
        memory.main(["--cohorts=2"])
    assert "--cohorts must contain 1" in capsys.readouterr().err


def test_training_batches_are_compared_with_a_step(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(input_pipeline, "IMAGES", 128)
    record = run(input_pipeline, [*TINY, "--net=resnet8:4", "--batches=3"], tmp_path)
    *ways, step_of_net = record["rows"]
    assert ways[-1]["contender"] == "crop_flip, image by image"
    assert step_of_net["cpu_ratio_to_step"] == 1
    seconds = record["samples"]["cpu_s"]["none"]
    assert ways[0]["cpu_s"] == pytest.approx(np.median(seconds) / 3)


def test_the_record_has_the_printed_text(tmp_path, capsys):
    record = run(throughput, [*TINY, "--nets=resnet8:4"], tmp_path)
    assert capsys.readouterr().out == "\n".join(record["printed"]) + "\n"
    assert record["printed"][-1] == f"    {record['command']}"


@pytest.mark.slow
def test_two_processes_are_compared_with_one(tmp_path, capfd):
    record = run(placement, [*TINY, "--net=resnet8:4"], tmp_path)
    assert [row["contender"] for row in record["rows"]] == list(placement.CONTENDERS)
    assert record["bytes_per_step"] == 4 * 100 * 4  # the other peer's posteriors of 4 images
    assert record["rows"][0]["wall_ratio"] == record["rows"][2]["wall_ratio_to_bound"] == 1


def test_an_odd_number_of_threads_is_refused_for_two_processes(capsys):
    with pytest.raises(SystemExit):
        placement.main(["--threads=3"])
    assert "--threads=3 is odd" in capsys.readouterr().err


def test_the_protocol_benchmark_has_a_row_for_each_method(monkeypatch, tmp_path, capsys):
    sizes = {"QUERIES": 20, "IDENTITIES": 10, "LABELLED": 240, "DISTRACTORS": 30, "JUNK": 30}
    sizes |= {"MORE_DISTRACTORS": 50}
    for name, size in {**sizes, "DIMENSIONS": (64,)}.items():
        monkeypatch.setattr(reid, name, size)
    rows = run(reid, ["--repeats=1"], tmp_path)["rows"]
    assert [row["gallery"] for row in rows] == 6 * [300] + 4 * [350]
    assert [row["features"] for row in rows[:6]] == 3 * ["good"] + 3 * ["poor"]


def test_a_missing_pytorch_is_an_error_that_names_the_requirements(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert pytorch_step.main([]) == 1
    assert "-r requirements-benchmarks.txt" in capsys.readouterr().err


def test_networks_without_a_pytorch_form_are_refused(capsys):
    with pytest.raises(SystemExit):
        pytorch_step.main(["--nets=resnet8,wrn-10-1"])
    assert "'wrn-10-1' is neither resnet<6n+2>" in capsys.readouterr().err


@needs_torch
def test_both_libraries_have_a_row_for_each_kind(tmp_path, capfd):
    record = run(pytorch_step, [*TINY, "--nets=resnet8:4"], tmp_path)
    assert [row["contender"] for row in record["rows"]] == list(pytorch_step.CONTENDERS)
    ours = {row["contender"]: row["ours_cpu_ratio"] for row in record["rows"]}
    assert ours["tf_independent"] == ours["tf_sequential"] == 1 and record["versions"]["torch"]


@needs_torch
def test_mobilenet_has_the_same_parameters_in_pytorch():
    from benchmarks import pytorch_cohort

    ours = networks.build("mobilenet:0.25", num_classes=100, input_shape=(32, 32, 3))
    theirs = pytorch_cohort.build("mobilenet:0.25", 100)
    assert sum(p.numel() for p in theirs.parameters()) == networks.count_parameters(ours)


# Two correct programs round differently. The tolerance is ten times the difference to a twin: the
# same program from weights that are one rounding away. A mistake would exceed it a thousandfold.


@needs_torch
def test_a_step_of_mutual_learning_is_the_same_in_pytorch():
    import torch

    from benchmarks import pytorch_cohort

    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(6, 8, 8, 3)).astype("float32"), rng.integers(5, size=6)
    start, ours = step_in_keras(images, labels)
    _, twin = step_in_keras(images, labels, change=lambda value: one_rounding_away(value, rng))
    theirs = [pytorch_cohort.build("resnet8:4", 5) for _ in range(2)]
    parameters = [p for network in theirs for p in network.parameters()]
    with torch.no_grad():
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(torch.from_numpy(value))
    peers = [(network, pytorch_cohort.sgd(network)) for network in theirs]
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(labels)
    pytorch_cohort.cheap(peers, *batch)
    allowed = tolerance(ours, [twin])
    assert largest_difference(ours, [p.detach().numpy() for p in parameters]) <= allowed
    assert allowed < 1e-3 * largest_difference(ours, start)


def test_the_tolerance_of_a_step_is_far_below_the_step():
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(6, 8, 8, 3)).astype("float32"), rng.integers(5, size=6)
    start, ours = step_in_keras(images, labels)
    _, twin = step_in_keras(images, labels, change=lambda value: one_rounding_away(value, rng))
    assert 0 < tolerance(ours, [twin]) < 1e-3 * largest_difference(ours, start)


def test_the_memory_of_market_1501_is_that_of_files_like_the_real_ones(tmp_path):
    counts = {"bounding_box_train": 16, "query": 9, "bounding_box_test": 12, "gt_bbox": 10}
    data_memory.write_market1501(tmp_path, counts)
    loaded = load_market1501(
        tmp_path, image_size=(224, 224), stored_size=(160, 64), published=counts
    )
    assert loaded.train.images.shape == (16, 224, 224, 3)
    assert loaded.train.pixels.nbytes == 16 * 160 * 64 * 3
    assert [len(getattr(loaded, part)) for part in evaluate.PARTS] == [9, 12, 9]
    args = data_memory.parse(
        ["--dataset=market1501", "--net=resnet8:4", "--cohort=1", "--steps=1", "--batches=1"]
    )
    rows = data_memory.measure_market1501(args, str(tmp_path))
    peaks = [row["peak_gb"] for row in rows]
    assert len(peaks) == 5 and peaks == sorted(peaks) and peaks[0] > 0.05


def test_pictures_on_disk_are_timed_beside_the_bare_decode(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "FILES", 4)
    monkeypatch.setattr(input_pipeline, "_AT_REST_S", 0.1)
    flags = ["--batch_size=2", "--batches=1", "--repeats=1", "--flat=1000"]
    record = run(decoding, flags, tmp_path)
    kinds = [(row["pictures"], row["contender"]) for row in record["rows"]]
    assert len(set(kinds)) == len(kinds) == 7
    bare = [row for row in record["rows"] if row["contender"] == decoding.BARE]
    assert [row["cpu_ratio_to_bare"] for row in bare] == [1, 1]
    assert 20_000 < record["bytes"]["imagenet"] < 200_000


def test_the_memory_of_an_image_folder_is_that_of_a_whole_run(tmp_path):
    data_memory.write_folder(tmp_path, {"train": 80, "test": 20})
    args = data_memory.parse(["--net=resnet8:2", "--cohort=1", "--steps=1"])
    rows = data_memory.measure_folder(args, str(tmp_path))
    peaks = [row["peak_gb"] for row in rows]
    assert len(peaks) == 4 and peaks == sorted(peaks) and peaks[0] > 0.05
    (record,) = (tmp_path / "results" / "runs").glob("*.json")
    assert json.loads(record.read_text())["images"] == {"train": 80, "test": 20}


@needs_torch
def test_the_two_forms_of_the_pytorch_step_end_with_the_same_weights():
    import torch

    from benchmarks import pytorch_cohort

    rng = np.random.default_rng(0)
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(5, (6,))

    def end_of(step, change=lambda value: value):
        torch.manual_seed(0)
        nets = [pytorch_cohort.build("resnet8:4", 5) for _ in range(3)]
        parameters = [p for net in nets for p in net.parameters()]
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(torch.from_numpy(change(parameter.detach().numpy())))
        step([(net, pytorch_cohort.sgd(net)) for net in nets], images, labels)
        return [p.detach().numpy() for p in parameters]

    cheap, plain = end_of(pytorch_cohort.cheap), end_of(pytorch_cohort.plain)
    twin = end_of(pytorch_cohort.cheap, lambda value: one_rounding_away(value, rng))
    assert largest_difference(cheap, plain) <= tolerance(cheap, [twin])


def step_in_keras(images, labels, change=lambda value: value):
    """The weights of two peers before and after one step, in the order of PyTorch's axes."""
    settings = config.load(dataset="cifar100", net=("resnet8:4",))
    nets = [
        networks.build(
            "resnet8:4", num_classes=5, input_shape=(8, 8, 3),
            weight_decay=settings.weight_decay, seed=k,
        )
        for k in range(2)
    ]  # fmt: skip
    weights = [weight for net in nets for weight in net.trainable_weights]
    for weight in weights:
        weight.assign(change(weight.numpy()))
    start = [in_torch_order(weight) for weight in weights]
    cohort = Cohort(nets)
    cohort.compile(build.optimizer(settings, 100))
    cohort.fit(images, labels, batch_size=6, shuffle=False, verbose=0)
    return start, [in_torch_order(weight) for weight in weights]


def in_torch_order(weight):
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(weight.shape)]
    return np.ascontiguousarray(weight.numpy().transpose(axes))


def test_a_part_within_a_part_counts_for_itself_only(monkeypatch):
    times = iter([(0, 0), (1, 2), (2, 4), (4, 8), (7, 14)])
    monkeypatch.setattr(run_time, "_now", lambda: next(times))
    watch = run_time.Stopwatch()
    with watch.part("rest"), watch.part("steps"):
        pass
    assert watch.cpu == {"rest": 1 + 3, "steps": 2} and watch.wall == {"rest": 8, "steps": 4}


def test_the_parts_of_a_run_add_up(tmp_path, capsys, monkeypatch):
    small = {"scale": "mini", "net": ("resnet8:2",), "image_size": 8, "train_images": 64}
    monkeypatch.setitem(run_time.RUNS, "digits", small)
    (row,) = run(run_time, ["--datasets=digits", "--steps=4", "--repeats=1"], tmp_path)["rows"]
    assert set(row["cpu_s"]) == set(run_time.PARTS)
    assert min(row["wall_s"][part] for part in (*run_time.WANTED, "building", "results")) > 0
    wanted = sum(row["cpu_s"][part] for part in run_time.WANTED)
    assert row["wanted"] == pytest.approx(wanted / sum(row["cpu_s"].values()))
    assert "| digits, mini: resnet8:2 + resnet8:2 | 4 |" in capsys.readouterr().out


def test_a_sweep_counts_the_second_seed_for_all_that_take_over_its_trace(tmp_path, monkeypatch):
    def runs(scale, results_dir, data_dir):
        small = {"net": ("resnet8:2",), "train_images": 64, "steps": 4, "epochs": 0}
        flags = small | {"results_dir": results_dir, "cohort": 2}
        return [config.load(dataset="digits", seed=seed, **flags) for seed in range(4)]

    monkeypatch.setattr(run_time.plan, "runs", runs)
    trained = []
    whole = run_time.train.run
    monkeypatch.setattr(
        run_time.train,
        "run",
        lambda run, **given: (trained.append(run.seed), whole(run, **given))[1],
    )
    (row,) = run(run_time, ["--sweep=mini"], tmp_path)["rows"]
    assert trained == [0, 1] and row["steps"] == 4 * 4
    assert row["run"] == "all 4 runs of the scale mini"
    seconds = row["cpu_s"]
    assert seconds["building"] > seconds["checkpoints"] > 0
    assert seconds["tracing"] > 0 and seconds["steps"] > 0
