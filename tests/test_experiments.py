"""The declaration of the tables: complete, like paper.csv, and at the paper's settings."""

import pandas as pd
import pytest

from dml_tf import experiments, scales, tables

KEYS = ["item", "dataset", "row", "column", "metric"]


def test_cells_and_paper_csv_match_both_ways():
    declared = {
        tuple(getattr(cell, key) for key in KEYS) for cell in experiments.cells() if cell.printed
    }
    printed = set(pd.read_csv(tables.PAPER)[KEYS].itertuples(index=False, name=None))
    assert declared == printed


def test_no_cell_is_declared_twice():
    cells = experiments.cells()
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    ("item", "count"),
    [
        ("section31", 2 * 2),  # data sets, losses
        ("table2", 6 * 2 * 4),  # pairs, data sets, columns
        ("table3", (2 * 4 + 3 * 2) + 4 * 4),  # competitors; rows of ours, columns
        ("table4", 4 * 5),
        ("table5", 5 * 2),
        ("figure2a", 2 * 2),
        ("figure3a", 4 * 5 + 4 * 4),  # methods, sizes; the spread only in cohorts
        ("figure4b", 2 * 6),  # strategies, sigmas
        ("figure4c", 2 * 5),
        ("figure6a", 4 * 2 + 3),  # nothing is without labels in the last row
    ],
)
def test_an_item_has_as_many_cells_as_the_paper_shows(item, count):
    assert len(experiments.cells([item])) == count


def test_the_papers_gains_in_table_2_are_the_differences_of_its_accuracies():
    """Three of the printed DML-Ind columns, which paper.csv leaves out."""
    paper = pd.read_csv(tables.PAPER).set_index(["dataset", "row", "column"])["value"]
    for dataset, row, peer, gain in [
        ("CIFAR-10", "ResNet-32 + ResNet-32", 2, 0.33),
        ("CIFAR-100", "WRN-28-10 + MobileNet", 2, 3.74),
        ("CIFAR-100", "WRN-28-10 + WRN-28-10", 1, 1.59),
    ]:
        dml, alone = (paper[dataset, row, f"{m} Net {peer}"] for m in ("DML", "Independent"))
        assert dml - alone == pytest.approx(gain, abs=0.0051)


def test_a_run_that_several_rows_need_is_listed_once(tmp_path):
    items = ["table2", "table3", "figure4a"]  # Fig. 4a takes two of Table 2
    runs = experiments.runs(scales.SCALES["paper"], items, results_dir=str(tmp_path), seeds=1)
    ids = [run.run_id for run in runs]
    assert len(set(ids)) == len(ids) == 2 * (3 + 6) + 4
    assert "cifar100-independent-resnet32-seed0" in ids
    assert "cifar100-dml-wrn-28-10+mobilenet-seed0" in ids


def test_the_papers_scale_has_the_settings_of_section_4_1(tmp_path):
    paper = scales.SCALES["paper"]
    for run in experiments.runs(paper, ["table2"], results_dir=str(tmp_path), seeds=1):
        assert (run.learning_rate, run.momentum, run.batch_size) == (0.1, 0.9, 64)
        assert (run.epochs, run.decay_epochs, run.decay_rate) == (200, 60, 0.1)
        assert (run.train_images, run.image_size, run.augment) == (0, 0, "crop_flip")
    reid = experiments.runs(paper, ["table3"], results_dir=str(tmp_path), seeds=1)
    assert [run.pretrained for run in reid] == ["", "", "imagenet", "imagenet"]
    for run in reid:
        assert (run.optimizer, run.learning_rate, run.beta_1, run.beta_2) == (
            "adam", 0.0002, 0.5, 0.999,
        )  # fmt: skip
        assert (run.batch_size, set(run.net)) == (16, {"mobilenet"})


@pytest.mark.parametrize("scale", ["smoke", "mini"])
def test_small_scales_need_no_download(scale, tmp_path):
    runs = experiments.runs(scales.SCALES[scale], results_dir=str(tmp_path))
    assert {run.dataset for run in runs} == {
        "digits", "shapes100", "pedestrians", "imagenet_mini",
    }  # fmt: skip


def test_first_seeds_come_first(tmp_path):
    seeds = [r.seed for r in experiments.runs(scales.SCALES["cpu"], results_dir=str(tmp_path))]
    assert seeds == sorted(seeds)
