"""The items are complete, agree with paper.csv, and have the paper's settings; their runs."""

import shlex

import pandas as pd
import pytest

from dml_tf import home
from dml_tf.paper import items, over_seeds, plan, scales
from dml_tf.paper.cells import KEYS, Contrast, gain
from dml_tf.runs import flags, records, settings
from dml_tf.runs.files import RunFiles


def test_cells_and_paper_csv_match_both_ways():
    declared = {cell.key for cell in items.cells() if cell.printed}
    printed = set(pd.read_csv(over_seeds.PAPER)[list(KEYS)].itertuples(index=False, name=None))
    assert declared == printed


def test_no_cell_is_declared_twice():
    cells = items.cells()
    assert len(set(cells)) == len(cells)
    counts = {
        name: len(item.cells) for name, item in items.ITEMS.items() if name not in scales.STUDIES
    }
    assert counts == {
        "section31": 2 * 2, "table1": 4, "table2": 6 * 2 * 4, "table3": 2 * 4 + 3 * 2 + 4 * 4,
        "table4": 4 * 5, "table5": 5 * 2, "entropy": 2 * 2, "figure2a": 2 * 2, "figure2b": 2 * 4,
        "figure3a": 4 * 5 + 4 * 4, "figure3b": 4 * 5, "figure4a": 2 * 2, "figure4b": 2 * 8,
        "figure4c": 2 * 5, "figure5": 2, "figure6a": 2 + 3 * 3, "figure6b": 2 + 3 * 3,
    }  # fmt: skip


def test_the_papers_gains_in_table_2_are_the_differences_of_its_accuracies():
    """Three of the printed DML-Ind columns, which paper.csv leaves out."""
    paper = pd.read_csv(over_seeds.PAPER).set_index(["dataset", "row", "column"])["value"]
    for dataset, row, peer, expected in [
        ("CIFAR-10", "ResNet-32 + ResNet-32", 2, 0.33),
        ("CIFAR-100", "WRN-28-10 + MobileNet", 2, 3.74),
        ("CIFAR-100", "WRN-28-10 + WRN-28-10", 1, 1.59),
    ]:
        dml, alone = (paper[dataset, row, f"{m} Net {peer}"] for m in ("DML", "Independent"))
        assert dml - alone == pytest.approx(expected, abs=0.0051)


def test_a_run_that_several_rows_need_is_listed_once(tmp_path):
    paper, some = scales.BY_NAME["paper"], ["table2", "table3", "figure4a"]  # 4a is of Table 2
    runs = plan.runs(paper, some, results_dir=str(tmp_path), seeds=1)
    ids = [run.run_id for run in runs]
    assert len(set(ids)) == len(ids) == 2 * (3 + 6) + 4
    everything = plan.runs(paper, results_dir=str(tmp_path), seeds=1)
    assert len({run.run_id for run in everything}) == len(everything) > len(ids)
    assert "cifar100-independent-resnet32+resnet32-seed0" in ids
    assert "cifar100-dml-wrn-28-10+mobilenet-seed0" in ids


def test_the_papers_scale_has_the_settings_of_section_4_1(tmp_path):
    paper = scales.BY_NAME["paper"]
    for run in plan.runs(paper, ["table2"], results_dir=str(tmp_path), seeds=1):
        assert (run.learning_rate, run.momentum, run.batch_size) == (0.1, 0.9, 64)
        assert (run.epochs, run.decay_epochs, run.decay_rate) == (200, 60, 0.1)
        assert (run.train_images, run.image_size, run.augment) == (0, 0, "crop_flip")
    reid = plan.runs(paper, ["table3"], results_dir=str(tmp_path), seeds=1)
    assert [run.pretrained for run in reid] == ["", "", "imagenet", "imagenet"]
    for run in reid:
        assert (run.optimizer, run.learning_rate, run.beta_1, run.beta_2) == (
            "adam", 0.0002, 0.5, 0.999,
        )  # fmt: skip
        assert (run.batch_size, set(run.net)) == (16, {"mobilenet"})


def test_the_papers_commands_parse_to_the_runs_they_name(tmp_path):
    """What `--scale=paper --dry_run` prints has Sec. 4.1's numbers for each data set."""
    section_4_1 = {
        "cifar10": dict(optimizer="sgd", learning_rate=0.1, momentum=0.9, batch_size=64,
                        epochs=200, decay_epochs=60, decay_rate=0.1, augment="crop_flip"),
        "market1501": dict(optimizer="adam", learning_rate=0.0002, beta_1=0.5, beta_2=0.999,
                           batch_size=16),
        "imagenet": dict(optimizer="rmsprop", rho=0.9, learning_rate=0.1, batch_size=64,
                         decay_epochs=20, decay_rate=0.16),
    }  # fmt: skip
    section_4_1["cifar100"] = section_4_1["cifar10"]
    seen = set()
    for run in plan.runs(scales.BY_NAME["paper"], results_dir=str(tmp_path), seeds=1):
        parsed = flags.parse([*shlex.split(run.command)[2:], f"--results_dir={tmp_path}"])
        assert parsed.replace(analyse=run.analyse) == run
        if run.optimizer != "entropy_sgd":
            expected = dict(section_4_1[run.dataset])
            if run.unlabelled == "drop" and run.dataset == "cifar100":
                del expected["decay_epochs"]  # counted in shorter epochs
            assert {name: getattr(parsed, name) for name in expected} == expected
            seen.add(run.dataset)
    assert seen == set(section_4_1)


@pytest.mark.parametrize(("scale", "images"), [("paper", 50_000), ("mini", 200)])
def test_runs_without_the_unlabelled_images_take_as_many_steps_and_drop_the_rate_with_them(
    scale, images, tmp_path
):
    runs = plan.runs(scales.BY_NAME[scale], ["figure6a"], results_dir=str(tmp_path), seeds=1)
    whole = next(run for run in runs if run.labelled_fraction == 1)
    expected = whole.schedule(images)
    for run in runs:
        dropped = run.unlabelled == "drop"
        schedule = run.schedule(round(images * run.labelled_fraction) if dropped else images)
        assert schedule.steps == expected.steps
        drop = run.decay_epochs * schedule.steps_per_epoch
        assert drop == pytest.approx(
            whole.decay_epochs * expected.steps_per_epoch, abs=schedule.steps_per_epoch / 2
        )


def test_each_network_of_an_independent_pair_has_the_start_of_its_place(tmp_path):
    """Net 2 of the paper's MobileNet + MobileNet is another network than Net 1."""
    for item in ("table2", "table4"):
        first, second = (
            cell
            for cell in items.cells([item])
            if cell.row == "MobileNet + MobileNet"
            and cell.column.startswith("Independent")
            and cell.dataset != "CIFAR-10"
        )
        assert (first.of, second.of) == (0, 1)
        runs = [cell.run(scales.BY_NAME["paper"], 0, str(tmp_path)) for cell in (first, second)]
        assert runs[0] == runs[1] and runs[0].cohort == 2


def test_a_distillation_learns_from_the_network_in_the_independent_column(tmp_path):
    for run in plan.runs(scales.BY_NAME["paper"], ["table4"], results_dir=str(tmp_path), seeds=1):
        if run.method == "distill":
            teacher = "+".join(run.net[:1] * 2)
            assert run.teacher == f"{run.dataset}-independent-{teacher}-seed0"


def test_a_scale_reads_no_record_of_a_seed_outside_its_range(tmp_path):
    cpu = scales.BY_NAME["cpu"]
    cell = next(cell for cell in items.cells(["start"]))
    for seed in (0, 9, 10, 49, 50, 100):
        run = cell.run(cpu, seed, str(tmp_path))
        measured = {"peer0": {"accuracy": 0.5}, "peer1": {"accuracy": 0.7}}
        record = {"config": run.comparable(), "test": {"peers": measured}}
        records.write(record, RunFiles.of(run).record)
    assert sorted(over_seeds.found(cell, cpu, tmp_path)) == [10]


def test_more_seeds_can_be_asked_for_and_are_then_all_used(tmp_path):
    mini = scales.BY_NAME["mini"].with_seeds(9)
    runs = plan.runs(mini, ["figure3b"], results_dir=str(tmp_path))
    assert {run.seed for run in runs} == set(range(9))
    assert mini.used("figure3b", "Market-1501") == range(9)
    assert scales.BY_NAME["mini"].used("figure3b", "Market-1501") == range(1)


def test_the_confirmatory_records_have_the_seeds_of_the_protocol():
    runs = home.HOME / "results" / "cpu" / "runs"
    seeds = {records.read(file)["config"]["seed"] for file in runs.glob("*.json")}
    assert seeds and seeds <= set(range(10, 50))


def test_a_baseline_of_three_is_the_mean_of_three_networks(tmp_path):
    cpu = scales.BY_NAME["cpu"]
    first, second = (
        cell
        for cell in items.cells(["table2"])
        if (cell.dataset, cell.row) == ("CIFAR-10", "ResNet-32 + ResNet-32")
        and cell.column.startswith("Independent")
    )
    run = first.run(cpu, 10, str(tmp_path))
    assert run == second.run(cpu, 10, str(tmp_path)) and run.net == ("resnet8:16",) * 3
    measured = {f"peer{k}": {"accuracy": 0.5 + 0.1 * k} for k in range(3)}
    record = {"config": run.comparable(), "test": {"peers": measured}}
    records.write(record, RunFiles.of(run).record)
    assert over_seeds.measure(first, cpu, tmp_path)["measured"] == pytest.approx(60)


def test_studies_run_at_cpu_scale_only(tmp_path):
    for name, scale in scales.BY_NAME.items():
        runs = plan.runs(scale, scales.STUDIES, results_dir=str(tmp_path))
        assert bool(runs) == (name == "cpu")


def test_what_others_start_from_is_trained_first(tmp_path):
    runs = plan.runs(scales.BY_NAME["mini"], results_dir=str(tmp_path), seeds=1)
    first, second = plan.waves(runs)
    done = {run.run_id for run in first}
    for run in second:
        assert (run.pretrained or run.teacher or run.default_teacher.run_id) in done
    assert len(first) + len(second) == len(runs)


def test_a_run_is_analysed_if_any_of_its_items_asks_for_it(tmp_path):
    runs = plan.runs(scales.BY_NAME["mini"], results_dir=str(tmp_path), seeds=1)
    analysed = {run.run_id for run in runs if run.analyse}
    pair = "independent-mobilenet_shortw0.5+mobilenet_shortw0.5-seed0"
    assert any(run_id.startswith(f"digits-{pair}") for run_id in analysed)  # Table 2 asks first
    assert not any(run_id.startswith("imagenet_mini") for run_id in analysed)


@pytest.mark.parametrize("scale", ["smoke", "mini"])
def test_small_scales_need_no_download(scale, tmp_path):
    runs = plan.runs(scales.BY_NAME[scale], results_dir=str(tmp_path))
    needed = {"digits", "shapes100", "pedestrians", "imagenet_mini"}
    assert {run.dataset for run in runs} == needed - ({"shapes100"} if scale == "mini" else set())


def test_the_scales_are_those_of_the_flag():
    assert tuple(scales.BY_NAME) == settings.SCALES


def test_claims_stand_in_the_order_of_the_papers_sections():
    found = [claim.section for _, claim in items.claims()]
    assert len(found) == 35 + 13 and found[0] == "3.1" and found.index("4.9") < found.index("4.10")
    assert [claim.section for _, claim in items.claims(["table5"])] == ["4.8", "4.9"]


def test_a_gain_of_gains_is_their_difference():
    cell = items.cells(["table2"])[0]
    above = Contrast("row", "column", ((cell, 1.0),), -2.0)
    assert gain("a", "b", above, cell) == Contrast("a", "b", ((cell, 1.0), (cell, -1.0)), -2.0)


def test_a_scale_leaves_out_an_optional_data_set_that_cannot_be_had(tmp_path):
    results, data = tmp_path / "results", tmp_path / "data"
    data.mkdir()

    def place(item):
        found = scales.BY_NAME["cpu"].available(results, str(data)).place(item, "CIFAR-100")
        return found and found.dataset

    assert (place("table2"), place("table4"), place("figure6a")) == (None, "cifar10", "cifar10")
    (data / "cifar-100-binary.tar.gz").touch()
    assert (place("table2"), place("table4"), place("figure6a")) == ("cifar100",) * 3
    (data / "cifar-100-binary.tar.gz").unlink()
    (results / "runs").mkdir(parents=True)
    (results / "runs" / "cifar100-independent-resnet8w16-seed0.json").touch()
    assert place("table4") == "cifar100"


def test_first_seeds_come_first(tmp_path):
    seeds = [r.seed for r in plan.runs(scales.BY_NAME["cpu"], results_dir=str(tmp_path))]
    assert seeds == sorted(seeds)


def test_generated_data_sets_are_kept_apart_from_the_users_data():
    runs = plan.runs(
        scales.BY_NAME["cpu"], ["table2", "table3"], results_dir="r", data_dir="photographs"
    )
    places = {run.dataset: run.data_dir for run in runs}
    assert places["cifar10"] == "photographs" and places["pedestrians"] == ""
