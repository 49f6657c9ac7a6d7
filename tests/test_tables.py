"""Tables from records: means, spreads, intervals, and what may be claimed."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from dml_tf import home
from dml_tf.measures.analysis import SIGMAS
from dml_tf.paper import items, over_seeds, plan, readings, statistics, tables
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import BY_NAME, TEACHERS
from dml_tf.runs import records
from dml_tf.runs.files import RunFiles

ROW = "ResNet-32 + ResNet-32"


def write_records(folder, scale, accuracies, dataset="CIFAR-10"):
    """Records of `{method: [accuracies of the peers, one list a seed]}` for Table 2's first row."""
    for cell in items.cells(["table2"]):
        if (cell.dataset, cell.row) != (dataset, ROW) or cell.of:
            continue
        for seed, peers in enumerate(accuracies[cell.method]):
            run = cell.run(BY_NAME[scale], seed, str(folder))
            measured = {f"peer{k}": {"accuracy": value} for k, value in enumerate(peers)}
            train = {name: {"accuracy": 1, "cross_entropy": 0, "entropy": 0} for name in measured}
            record = {"test": {"peers": measured}, "train": {"peers": train}}
            record["config"] = run.comparable()
            records.write(record, RunFiles.of(run).record)


def lines(folder, scale, dataset="CIFAR-10"):
    scale = dataclasses.replace(BY_NAME[scale], is_fixed=False)  # any six seeds are enough
    table = tables.table(scale, folder, "table2")
    return table[(table.dataset == dataset) & (table.row == ROW)].set_index("column")


THREE_SEEDS = {
    "independent": [[0.90, 0.80], [0.91, 0.81], [0.92, 0.82]],
    "dml": [[0.92, 0.93], [0.93, 0.93], [0.95, 0.93]],
}


def test_a_cell_is_the_mean_and_spread_over_seeds_in_percent(tmp_path):
    write_records(tmp_path, "mini", THREE_SEEDS)
    cells = lines(tmp_path, "mini")
    alone, dml = cells.loc["Independent Net 2"], cells.loc["DML Net 1"]
    assert (alone.measured, alone["std"], alone.seeds) == (pytest.approx(81), pytest.approx(1), 3)
    assert dml.measured == pytest.approx((92 + 93 + 95) / 3)
    assert alone.paper == "92.47"
    assert alone.data == "digits"


def test_dml_ind_is_paired_by_seed_with_students_interval(tmp_path):
    write_records(tmp_path, "mini", THREE_SEEDS)
    gain = lines(tmp_path, "mini").loc["DML-Ind Net 1"]  # differences 2, 2 and 3
    assert gain.measured == pytest.approx(7 / 3)
    half = 4.302653 * math.sqrt(1 / 3) / math.sqrt(3)
    assert (gain.low, gain.high) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half))
    assert gain.paper == "0.21" and gain.p == 2 / 8
    assert gain.status == "stand-in: 3 seeds: no verdict"


SIX_SEEDS = {
    "independent": [[0.90, 0.80]] * 6,
    "dml": [[0.92 + 0.001 * k, 0.80 + 0.01 * (-1) ** k] for k in range(6)],
}


def test_of_six_seeds_a_gain_is_clear_or_not(tmp_path):
    write_records(tmp_path, "mini", SIX_SEEDS)
    cells = lines(tmp_path, "mini")
    first, second = (cells.loc[f"DML-Ind Net {k}"] for k in (1, 2))
    assert (first.status, second.status) == ("stand-in: gain", "stand-in: no clear gain")
    assert first.p == 2 / 64 and first.detectable < 0.5 < second.detectable < 2
    # Simultaneous: wider than Student's interval of the same six differences.
    low, high = statistics.student([2 + 0.1 * k for k in range(6)])
    assert first.high - first.low > high - low


def test_two_seeds_are_too_few_for_an_interval(tmp_path):
    write_records(tmp_path, "mini", {k: v[:2] for k, v in THREE_SEEDS.items()})
    gain = lines(tmp_path, "mini").loc["DML-Ind Net 1"]
    assert math.isnan(gain.low) and gain.status == "stand-in: 2 seeds: no verdict"


def test_a_stand_in_is_never_compared_with_the_papers_number(tmp_path):
    write_records(tmp_path, "mini", THREE_SEEDS)
    cells = lines(tmp_path, "mini")
    assert cells.difference.isna().all()
    assert not cells.status.str.contains("reproduced|differs").any()
    said = "no: the paper's is of CIFAR-10, measured is of digits with small networks"
    assert set(cells.compared_with_paper) == {said}


def test_at_paper_scale_reproduced_means_within_two_standard_deviations(tmp_path):
    near = {"independent": [[0.924, 0.9], [0.925, 0.9], [0.926, 0.9]], "dml": [[0.90, 0.928]] * 3}
    write_records(tmp_path, "paper", near)
    cells = lines(tmp_path, "paper")
    status = cells.loc["Independent Net 1"].status
    assert status == "reproduced, gap 0.3 standard deviations"
    assert cells.loc["Independent Net 1"].gap_in_std == pytest.approx(0.3)
    assert cells.loc["Independent Net 1"].difference == pytest.approx(92.5 - 92.47)
    assert cells.loc["DML Net 1"].verdict == "differs"


def test_records_of_another_scale_fill_no_cell(tmp_path):
    write_records(tmp_path, "mini", THREE_SEEDS)
    paper = tables.table(BY_NAME["paper"], tmp_path, "table2")
    assert set(paper.status) == {"not run"} and paper.measured.isna().all()


def test_table_1_compares_sizes_with_the_papers_digits(tmp_path):
    sizes = {"ResNet-32": 470_004, "InceptionV1": 5_702_404}
    records.write(sizes, tmp_path / over_seeds.PARAMETERS)
    status = tables.table(BY_NAME["mini"], tmp_path, "table1").set_index("row").status
    assert status.to_dict() == {
        "ResNet-32": "reproduced", "InceptionV1": "differs",
        "MobileNet": "not run", "WRN-28-10": "not run",
    }  # fmt: skip


def test_table_3_averages_the_cohort_and_reads_both_kinds_of_query(tmp_path):
    scale = BY_NAME["mini"].with_seeds(3)
    runs = plan.runs(scale, ["table3"], results_dir=str(tmp_path))
    for run in (run for run in runs if not run.pretrained):
        peers = {
            f"peer{k}": {
                "mAP": 0.20 + 0.1 * run.seed + (0.02 + 0.04 * k) * (run.method == "dml"),
                "rank1": 0.4,
                "multi_query": {"mAP": 0.5, "rank1": 0.6},
            }
            for k in range(run.cohort)
        }
        record = {"config": run.comparable(), "test": {"peers": peers}}
        records.write(record, RunFiles.of(run).record)
    table = tables.table(scale, tmp_path, "table3").set_index(["row", "column"])
    assert table.loc[("MobileNet", "Multi-Query Rank-1"), "measured"] == pytest.approx(60)
    gain = table.loc[("MobileNet, DML-Ind", "Single-Query mAP")]
    assert (gain.measured, gain["std"]) == (pytest.approx(4), pytest.approx(0))  # (2 + 6) / 2
    assert (gain.paper, gain.status) == ("4.56", "stand-in: 3 seeds: no verdict")
    assert table.loc[("PDC", "Single-Query mAP"), "status"] == "published"
    assert table.loc[("MobileNet, pre-trained", "Single-Query mAP"), "status"] == "not run"


def test_written_tables_are_read_back_by_pandas_with_what_the_paper_claims(tmp_path):
    write_records(tmp_path, "mini", THREE_SEEDS)
    files = tables.write(BY_NAME["mini"], tmp_path, ["table1", "table2"])
    assert [file.name for file in files] == ["table1.csv", "table2.csv", "claims.csv"]
    written = pd.read_csv(files[1])
    smaller = written[written.claim == "The smaller network of a pair gains more"]
    each = "Each network of each pair gains from mutual learning"
    gains = written[written.claim.str.contains(each, na=False)]
    assert (len(smaller), len(gains)) == (4, 6 * 2 * 2)
    assert len(written) == 6 * 2 * (4 + 2) + len(smaller)
    assert gains.paper.notna().all() and smaller.status.eq("stand-in: not run").all()
    ran = written[written.seeds > 0]
    assert set(ran.scale + " " + ran.data) == {"mini digits"}
    assert set(ran.seed_numbers) == {"0 1 2"} and ran.runs.str.contains("seed2").all()
    assert set(ran.networks) == {"resnet8:16+resnet8:16"}
    claims = pd.read_csv(files[2]).set_index("claim")
    # One pair of six: no seed has all runs of the table.
    assert claims.loc[each, "conclusion"] == "0 of 6 seeds: no verdict"


def test_a_study_without_claims_leaves_no_file_of_claims(tmp_path):
    files = tables.write(TEACHERS, tmp_path, ["teachers"])
    assert [file.name for file in files] == ["teachers.csv"]


def test_the_papers_numbers_are_as_printed():
    text = (home.HOME / "results" / "paper.csv").read_text()
    assert "Training images,DML,train.entropy,1.7099\n" in text
    paper = (
        tables.table(BY_NAME["paper"], home.HOME / "absent", "entropy").set_index("column").paper
    )
    assert paper["Independent"] == "0.2602" and paper["DML-Independent"] == "1.4497"


def write_analysed(folder, item, analysis):
    """Records of an item's runs at mini scale, two seeds; `analysis` takes a run's method, seed."""
    scale = BY_NAME["mini"].with_seeds(2)
    for run in plan.runs(scale, [item], results_dir=str(folder)):
        measured = {"analysis": analysis(run.method, run.seed), "config": run.comparable()}
        records.write(measured, RunFiles.of(run).record)
    return tables.table(scale, folder, item).set_index(["row", "column"])


def test_noise_is_a_mean_over_draws_and_peers_in_nats(tmp_path):
    def analysis(method, seed):
        at = {0.0: [0.5], 0.01: [1.0, 2.0, 3.0 + seed]}
        first = [at.get(sigma, [9.0]) for sigma in SIGMAS]
        second = [[draws[0]] * 3 for draws in first]
        return {"weight_noise": {"sigma": list(SIGMAS), "loss": {"a": first, "b": second}}}

    table = write_analysed(tmp_path, "figure4b", analysis)
    alone, dml = table.loc[("Independent", "sigma 0.01")], table.loc[("DML", "sigma 0.01")]
    assert alone.measured == dml.measured == pytest.approx((1 + (2 + 7 / 3) / 2) / 2)
    rise = table.loc[("Rise of Independent - rise of DML", "sigma 0.01")]
    assert rise.measured == pytest.approx(alone.measured - dml.measured)  # both start at 0.5
    assert rise.seeds == 2 and rise.claim == ""


def test_mass_is_read_by_rank_in_percent(tmp_path):
    def analysis(method, seed):
        first = [0.7, 0.2, 0.05, 0.03, 0.02]
        second = first if method == "independent" else [0.6, 0.4, 0, 0, 0]
        return {"ranked_mass": {"a": first, "b": second}}

    table = write_analysed(tmp_path, "figure4c", analysis)
    assert table.loc[("Independent", "Class 3"), "measured"] == pytest.approx(5)
    assert table.loc[("DML", "Class 2"), "measured"] == pytest.approx(30)
    assert table.loc[("DML - Independent", "Class 1"), "measured"] == pytest.approx(-5)
    (claim,) = ITEMS["figure4c"].claims
    total = over_seeds.measure(claim.contrasts[0], BY_NAME["mini"].with_seeds(2), tmp_path)
    assert total["measured"] == pytest.approx(35 - 30)


def test_features_of_their_own_are_claimed_above_half(tmp_path):
    write_analysed(tmp_path, "figure5", lambda method, seed: {"tsne": {"same_peer": 0.9}})
    (claim,) = ITEMS["figure5"].claims
    judged = tables.judge(claim, BY_NAME["mini"].with_seeds(2), tmp_path)
    assert [line.row for line in claim.contrasts] == ["Independent", "DML"]
    assert [place["measured"] for place in judged.places] == [pytest.approx(40)] * 2


def test_noise_is_judged_in_nats_relative_to_the_start_and_by_filter(tmp_path):
    """With mutual learning the loss starts higher: it rises more in nats, and less in times."""

    def analysis(method, seed):
        start, rise = (0.1, 1.0) if method == "independent" else (0.5, 1.5)
        loss = [[start + rise * (sigma / 0.05)] * 3 for sigma in SIGMAS]
        by_filter = [[start + rise * ratio] * 3 for ratio in (0.1, 0.2, 0.4)]
        return {
            "weight_noise": {"sigma": list(SIGMAS), "loss": {"a": loss, "b": loss}},
            "filter_noise": {"ratio": [0.1, 0.2, 0.4], "loss": {"a": by_filter, "b": by_filter}},
        }

    write_analysed(tmp_path, "figure4b", analysis)
    found = [
        tables.judge(claim, BY_NAME["mini"].with_seeds(2), tmp_path).pooled["measured"]
        for claim in ITEMS["figure4b"].claims
    ]
    assert found == [pytest.approx(x) for x in (1.0 - 1.5, 1.1 / 0.1 - 2 / 0.5, 0.2 - 0.3)]


def test_a_spread_over_peers_is_without_the_bias_of_few_peers():
    record = {"test": {"peers": {"a": {"mAP": 0.1}, "b": {"mAP": 0.3}}}}
    (cell,) = (
        cell
        for cell in items.cells(["figure2b"])
        if (cell.row, cell.column) == ("Sequential", "Spread")
    )
    assert readings.read(record, cell) == pytest.approx(math.sqrt(0.02) / math.sqrt(2 / math.pi))


def test_prior_methods_are_beaten_by_their_printed_numbers_at_paper_scale_only(tmp_path):
    claim = ITEMS["table3"].claims[-1]
    (line,) = (x for x in claim.contrasts if x.row.endswith("DLPAR") and x.column.endswith("mAP"))
    scale = BY_NAME["paper"]
    for seed in range(2):
        run = line.first.run(scale, seed, str(tmp_path))
        peer = {"mAP": 0.7 + 0.1 * seed}
        record = {"config": run.comparable(), "test": {"peers": {"a": peer, "b": peer}}}
        records.write(record, RunFiles.of(run).record)
    printed = float(over_seeds.printed()[line.terms[1][0].key])
    found = over_seeds.differences(line, scale, tmp_path)
    assert found == {0: pytest.approx(70 - printed), 1: pytest.approx(80 - printed)}
    assert over_seeds.differences(line, BY_NAME["mini"], tmp_path) == {}


def test_a_trend_over_cohort_sizes_is_a_least_squares_slope(tmp_path):
    line = ITEMS["figure3a"].claims[0].contrasts[0]
    sizes = [len(cell.networks) for cell, _ in line.terms]
    values = [3.0, 5.0, 4.0, 8.0, 9.0]
    slope = sum(w * value for (_, w), value in zip(line.terms, values, strict=True))
    assert sizes == [1, 2, 3, 4, 5] and slope == pytest.approx(np.polyfit(sizes, values, 1)[0])
