"""Figures from records: drawn from what is there, at the values that the tables have."""

import numpy as np
import pandas as pd
import pytest

from dml_tf import experiments, figures, records
from dml_tf.scales import SCALES

MINI = SCALES["mini"]


@pytest.mark.parametrize("item", ["figure2b", "figure3a", "figure3b", "figure6a", "figure6b"])
def test_a_figure_is_drawn_from_two_seeds_and_from_one(item, synthetic_records, tmp_path):
    for seeds in (1, 2):
        synthetic_records(tmp_path, [item], seeds)
        written = figures.write(MINI, tmp_path, [item])
        assert written[0].read_bytes().startswith(b"\x89PNG")
        assert written[0].stat().st_size < 200_000


def test_every_figure_that_is_declared_is_drawn():
    declared = {item for item in experiments.ITEMS if item.startswith("figure")}
    assert declared == set(figures.DRAWINGS)


def test_series_show_the_means_and_the_spread_over_seeds(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure3b"], 2)
    lines = figures.measured(MINI, tmp_path, "figure3b")
    axis = figures.draw(MINI, tmp_path, "figure3b").axes[0]
    labels = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert labels == list(experiments.COHORT_METHODS)
    for series, method in zip(axis.containers, labels, strict=True):
        drawn, _, (bars,) = series
        expected = lines.loc[method]
        np.testing.assert_allclose(drawn.get_ydata(orig=False), expected.measured)
        lengths = [high - low for (_, low), (_, high) in bars.get_segments()]
        np.testing.assert_allclose(lengths, 2 * expected["std"])
        np.testing.assert_allclose(drawn.get_xdata(orig=False), [1, 2, 3, 4, 5], atol=0.2)


def test_a_figure_names_its_data_scale_and_seeds(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6a"], 2)
    axis = figures.draw(MINI, tmp_path, "figure6a").axes[0]
    assert axis.get_title(loc="left") == "shapes100 <made up>; scale mini; seeds: 2"


def test_curves_are_means_over_seeds_at_the_ends_of_epochs(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure2b"], 2)
    curves = figures.curves(MINI, tmp_path, "figure2b")
    curve = curves[(curves.row == "Sequential") & (curves.column == "Average")]
    assert curve.step.tolist() == [10, 20]  # 20 steps in two epochs
    np.testing.assert_allclose(curve.measured, [0.105, 0.205])  # 0.10 and 0.11, 0.20 and 0.21
    np.testing.assert_allclose(curve["std"], 0.01 / np.sqrt(2))
    assert set(curve.images) == {"training"}


def test_curves_prefer_images_that_were_held_out(synthetic_records, tmp_path):
    for run in synthetic_records(tmp_path, ["figure2b"], 1):
        record = records.read(records.path(run))
        record["history"] |= {f"val_peer{k}_supervised_loss": [0.7, 0.8] for k in range(2)}
        records.write(record, records.path(run))
    curves = figures.curves(MINI, tmp_path, "figure2b")
    assert set(curves.images) == {"validation"} and set(curves.measured) == {0.7, 0.8}


def test_written_curves_are_read_back_by_pandas(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure2b"], 2)
    _, file = figures.write(MINI, tmp_path, ["figure2b"])
    assert file.name == "figure2b_curves.csv"
    assert len(pd.read_csv(file)) == 2 * 3 * 2  # ways of updating, columns, epochs


def test_without_records_nothing_is_drawn_and_an_old_picture_goes(tmp_path):
    old = tmp_path / "figure3a.png"
    old.write_bytes(b"old")
    assert figures.write(MINI, tmp_path, ["figure3a", "table2"]) == []
    assert not old.exists()


def test_the_same_records_give_the_same_file(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6b"], 2)
    first, second = (figures.write(MINI, tmp_path, ["figure6b"])[0].read_bytes() for _ in range(2))
    assert first == second


def test_a_description_has_every_measured_number(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6a"], 1)
    words = figures.describe(MINI, tmp_path, "figure6a")
    assert words.count("Independent 5") == 4 and words.count("DML-all 5") == 3
    assert words.startswith("10%: Independent 50.")
