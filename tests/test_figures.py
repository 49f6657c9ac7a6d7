"""Figures from records: they show what has been measured, with the numbers of the tables."""

import numpy as np
import pandas as pd
import pytest

from dml_tf.measures.analysis import SIGMAS
from dml_tf.paper import figures, marks
from dml_tf.paper.drawings import DRAWINGS
from dml_tf.paper.items import ITEMS
from dml_tf.paper.items.figures import COHORT_METHODS
from dml_tf.paper.scales import BY_NAME
from dml_tf.runs import records
from dml_tf.runs.files import RunFiles

MINI = BY_NAME["mini"].with_seeds(2)


@pytest.mark.parametrize("item", DRAWINGS)
def test_a_figure_is_drawn_from_two_seeds_and_from_one(item, synthetic_records, tmp_path):
    for seeds in (1, 2):
        synthetic_records(tmp_path, [item], seeds)
        written = figures.write(MINI, tmp_path, [item])
        assert written[0].read_bytes().startswith(b"\x89PNG")
        assert written[0].stat().st_size < 200_000


def test_every_figure_that_is_declared_is_drawn():
    declared = {item for item in ITEMS if item.startswith("figure")}
    assert declared == set(DRAWINGS)


def test_series_show_the_means_and_the_spread_over_seeds(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure3b"], 2)
    lines = figures.measured(MINI, tmp_path, "figure3b")
    axis = figures.draw(MINI, tmp_path, "figure3b").axes[0]
    labels = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert labels == list(COHORT_METHODS)
    for series, method in zip(axis.containers, labels, strict=True):
        drawn, _, (bars,) = series
        expected = lines.loc[method]
        np.testing.assert_allclose(drawn.get_ydata(orig=False), expected.measured)
        lengths = [high - low for (_, low), (_, high) in bars.get_segments()]
        np.testing.assert_allclose(lengths, 2 * expected["std"])
        np.testing.assert_allclose(drawn.get_xdata(orig=False), [1, 2, 3, 4, 5], atol=0.2)


@pytest.mark.parametrize(("item", "numbers"), [("figure4b", SIGMAS), ("figure4c", range(1, 6))])
def test_noise_and_mass_are_read_at_their_sigma_and_rank(
    item, numbers, synthetic_records, tmp_path
):
    synthetic_records(tmp_path, [item], 2)
    lines = figures.measured(MINI, tmp_path, item)
    axis = figures.draw(MINI, tmp_path, item).axes[0]
    assert axis.get_yscale() == ("log" if item == "figure4c" else "linear")
    for (drawn, *_), strategy in zip(axis.containers, ("Independent", "DML"), strict=True):
        np.testing.assert_allclose(drawn.get_xdata(orig=False), numbers, atol=0.1 * numbers[1])
        np.testing.assert_allclose(drawn.get_ydata(orig=False), lines.loc[strategy].measured)


def test_a_figure_names_its_data_scale_and_seeds(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6a"], 2)
    axis = figures.draw(MINI, tmp_path, "figure6a").axes[0]
    assert axis.get_title(loc="left") == "digits <made up>; scale mini; seeds: 2"


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
        record = records.read(RunFiles.of(run).record)
        record["history"] |= {f"val_peer{k}_supervised_loss": [0.7, 0.8] for k in range(2)}
        records.write(record, RunFiles.of(run).record)
    curves = figures.curves(MINI, tmp_path, "figure2b")
    assert set(curves.images) == {"validation"} and set(curves.measured) == {0.7, 0.8}


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_are_of_images_that_every_seed_has_measured(seed, synthetic_records, tmp_path):
    """Of two seeds one held out images: training images are shown, and named, for both."""
    for run in synthetic_records(tmp_path, ["figure2b"], 2):
        record = records.read(RunFiles.of(run).record)
        if run.seed == seed:
            record["history"] |= {f"val_peer{k}_supervised_loss": [0.7, 0.8] for k in range(2)}
            records.write(record, RunFiles.of(run).record)
    curves = figures.curves(MINI, tmp_path, "figure2b")
    assert set(curves.images) == {"training"}
    np.testing.assert_allclose(curves.measured, [0.105, 0.205] * 6)


def test_curves_of_watched_test_images_are_labelled_as_such(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure2a"], 2)
    curves = figures.curves(MINI, tmp_path, "figure2a")
    assert set(curves.images) == {"test"} and len(curves) == 2 * 2 * 2
    np.testing.assert_allclose(curves.measured, [10.5, 20.5] * 4)  # percent
    axis = figures.draw(MINI, tmp_path, "figure2a").axes[0]
    assert axis.get_ylabel() == "accuracy, %,\ntest images"


def test_figure_4a_has_training_curves_that_end_beside_the_tables_numbers(
    synthetic_records, tmp_path
):
    for run in synthetic_records(tmp_path, ["figure4a"], 1):
        record = records.read(RunFiles.of(run).record)
        record["history"] |= {f"val_{name}": [9, 9] for name in record["history"]}  # to be left
        records.write(record, RunFiles.of(run).record)
    lines = figures.measured(MINI, tmp_path, "figure4a").measured
    axes = figures.draw(MINI, tmp_path, "figure4a").axes
    columns = ("Training cross-entropy", "Training accuracy")
    for axis, column, factor in zip(axes, columns, (1, 100), strict=True):
        points = [container[0] for container in axis.containers]
        lines_drawn = [line for line in axis.lines if len(line.get_xdata()) == 2]
        strategies = ("Independent", "DML")
        for curve, point, strategy in zip(lines_drawn, points, strategies, strict=True):
            np.testing.assert_allclose(curve.get_ydata(), factor * np.array([0.1, 0.2]))
            assert point.get_ydata() == lines[strategy, column]
            assert point.get_xdata() > curve.get_xdata()[-1]


def test_figure_5_shows_both_networks_of_the_first_seed_and_their_same_peers(
    synthetic_records, tmp_path
):
    for run in synthetic_records(tmp_path, ["figure5"], 2):
        if run.seed == 0 and run.method == "dml":
            RunFiles.of(run).record.unlink()
        elif run.method == "dml":
            analysis = records.read(RunFiles.of(run).record)["analysis"]
    _, file = figures.write(MINI, tmp_path, ["figure5"])
    assert file.name == "figure5_points.csv"
    points = pd.read_csv(file)
    assert points.groupby("row", sort=False).seed.unique().explode().to_dict() == {
        "Independent": 0, "DML": 1,
    }  # fmt: skip
    second = points[(points.row == "DML") & (points.network == "Net 2")]
    expected = analysis["tsne"]["points"]["peer1"]
    assert second[["x", "y"]].to_numpy().tolist() == expected
    assert second.label.tolist() == analysis["tsne"]["labels"]
    axis = figures.draw(MINI, tmp_path, "figure5").axes[1]
    assert axis.get_xlabel().endswith(f" {100 * analysis['tsne']['same_peer']:.1f}%")
    clouds = [cloud for cloud in axis.collections if len(cloud.get_offsets()) > 1]
    np.testing.assert_allclose(clouds[1].get_offsets(), expected)
    assert len(clouds[0].get_facecolors()) and not len(clouds[1].get_facecolors())
    assert len(np.unique(clouds[1].get_edgecolors(), axis=0)) == 10  # one a class


def test_written_curves_are_read_back_by_pandas(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure2b"], 2)
    _, file = figures.write(MINI, tmp_path, ["figure2b"])
    assert file.name == "figure2b_curves.csv"
    assert len(pd.read_csv(file)) == 2 * 3 * 2  # ways of updating, columns, epochs


def test_without_records_nothing_is_drawn_and_an_old_picture_goes(tmp_path):
    old = [tmp_path / name for name in ("figure3a.png", "figure5.png", "figure5_points.csv")]
    for file in old:
        file.write_bytes(b"old")
    assert figures.write(MINI, tmp_path, ["figure3a", "figure5", "table2"]) == []
    assert not any(file.exists() for file in old)


def test_the_same_records_give_the_same_file(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6b"], 2)
    first, second = (figures.write(MINI, tmp_path, ["figure6b"])[0].read_bytes() for _ in range(2))
    assert first == second


def test_a_description_has_every_measured_number(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6a"], 1)
    words = figures.describe(MINI, tmp_path, "figure6a")
    assert words.count("Independent 5") == 4 and words.count("DML-all 5") == 3
    assert words.startswith("10%: Independent 50") and ", DML-labelled 52" in words


def test_a_description_does_not_round_small_numbers_to_nothing(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure4b"], 1)
    assert "Independent: sigma 0.0 0.011, " in figures.describe(MINI, tmp_path, "figure4b")


def test_a_method_far_off_does_not_squeeze_the_others(synthetic_records, tmp_path):
    lost = 0.2
    for run in synthetic_records(tmp_path, ["figure3a"], 2):
        if run.peer_reduction == "sum":
            record = records.read(RunFiles.of(run).record)
            for peer in record["test"]["peers"].values():
                peer["accuracy"] -= lost
            records.write(record, RunFiles.of(run).record)
    lines = figures.measured(MINI, tmp_path, "figure3a")
    axis = figures.draw(MINI, tmp_path, "figure3a").axes[0]
    others = lines[lines.of != "std"].drop("DML, sum", level="row").measured
    low, high = axis.get_ylim()
    assert low < others.min() and others.max() < high
    assert others.max() - others.min() > 0.4 * (high - low)
    beyond = lines.loc["DML, sum"].query("of != 'std' and measured < @low")
    assert len(beyond) == 3  # cohorts of three, four and five
    assert [text.get_text() for text in axis.texts] == [f"{v:.1f}" for v in beyond.measured]


def test_methods_that_are_equal_or_alone_keep_the_axis(synthetic_records, tmp_path):
    """Of Fig. 3a's runs Table 2 has an independent pair and a pair with mutual learning."""
    synthetic_records(tmp_path, ["table2"], 2)
    assert not any(axis.texts for axis in figures.draw(MINI, tmp_path, "figure3a").axes)


def test_methods_close_together_keep_the_whole_axis(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure3a"], 2)
    axis = figures.draw(MINI, tmp_path, "figure3a").axes[0]
    lines = figures.measured(MINI, tmp_path, "figure3a").query("of != 'std'").measured
    assert not axis.texts
    assert axis.get_ylim()[0] < lines.min() and lines.max() < axis.get_ylim()[1]


def test_one_seed_is_drawn_as_less_sure_than_two(synthetic_records, tmp_path):
    for run in synthetic_records(tmp_path, ["figure2b"], 2):
        if run.update == "simultaneous" and run.seed:
            RunFiles.of(run).record.unlink()
    above, below = figures.draw(MINI, tmp_path, "figure2b").axes
    two, one = above.lines
    assert one.get_alpha() < 1 and two.get_alpha() is None
    assert one.get_linewidth() < two.get_linewidth()
    two, one = (container[0] for container in below.containers)
    assert one.get_markerfacecolor() == marks.PAGE != two.get_markerfacecolor()
    assert above.get_title(loc="left").endswith("seeds: 1-2; faint or hollow: one")


def test_a_point_of_one_seed_is_hollow_among_points_of_two(synthetic_records, tmp_path):
    for run in synthetic_records(tmp_path, ["figure6a"], 2):
        if run.labelled_fraction == 0.25 and run.seed:
            RunFiles.of(run).record.unlink()
    axis = figures.draw(MINI, tmp_path, "figure6a").axes[0]
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == marks.PAGE]
    lines = figures.measured(MINI, tmp_path, "figure6a")
    assert [list(line.get_ydata()) for line in hollow] == [[v] for v in lines.loc["25%"].measured]
