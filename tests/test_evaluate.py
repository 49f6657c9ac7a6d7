"""Measures of trained cohorts, and whole re-identification runs."""

import keras
import numpy as np
import pytest

from dml_tf import Cohort, data, reid
from dml_tf.data.generated import pedestrians
from dml_tf.measures import evaluate, rankings
from dml_tf.runs import config, train

KINDS = ("features", "pids", "camids")
SIZES = pedestrians.Sizes(
    train_identities=4, test_identities=4, queries=2, distractors=3, junk=3
)  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A small data set with Market-1501's folders and file names."""
    folder = tmp_path_factory.mktemp("data") / "Market-1501-v15.09.15"
    pedestrians.write(folder, SIZES)
    return folder.parent


# The tree has fewer pictures than the published one.
pytestmark = pytest.mark.filterwarnings("ignore::dml_tf.errors.DataWarning")


def settings(tree, results_dir, **changes):
    base = {
        "dataset": "market1501", "data_dir": str(tree), "net": ("resnet8:4",),
        "image_size": (32, 16), "steps": 2, "batch_size": 8, "results_dir": str(results_dir),
    }  # fmt: skip
    return config.load(**base | changes)


@pytest.mark.parametrize("cohort", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_cohort_is_measured_by_the_protocol_of_market_1501(cohort, tree, tmp_path):
    record = train.run(settings(tree, tmp_path, cohort=cohort), verbose=0)
    test = record["test"]
    assert len(test["peers"]) == cohort
    assert ("ensemble" in test) == ("average" in test) == (cohort > 1)
    for measures in [*test["peers"].values(), *([test["ensemble"]] if cohort > 1 else [])]:
        for row in (measures, measures["multi_query"]):
            assert 0 < row["mAP"] <= 1 and 0 <= row["rank1"] <= row["rank20"] <= 1
    if cohort > 1:
        peers = [peer["multi_query"]["mAP"] for peer in test["peers"].values()]
        assert test["average"]["multi_query"]["mAP"] == pytest.approx(np.mean(peers))


@pytest.mark.parametrize(
    "changes",
    [
        {"labelled_identities": 2},
        pytest.param({"labelled_identities": 2, "unlabelled": "drop"}, marks=pytest.mark.slow),
        pytest.param({"feature_weight": 0.1}, marks=pytest.mark.slow),
        pytest.param({"label_smoothing": 0.1, "ema": 0.9, "dropout": 0.1}, marks=pytest.mark.slow),
        pytest.param({"update": "simultaneous"}, marks=pytest.mark.slow),
    ],
)
def test_every_variant_of_section_4_runs_on_identities(changes, tree, tmp_path):
    record = train.run(settings(tree, tmp_path, cohort=2, **changes), verbose=0)
    assert record["steps"] == 2 and 0 < record["test"]["average"]["mAP"] <= 1


def test_the_features_file_gives_the_recorded_ensemble_measures_and_a_picture(tree, tmp_path):
    file = tmp_path / "new folder" / "features.npz"
    run = settings(tree, tmp_path, cohort=2, features_out=str(file))
    record = train.run(run, verbose=0)
    assert list(file.parent.iterdir()) == [file]  # no half-written file is left
    arrays = np.load(file)
    parts = [arrays[f"{side}_{kind}"] for side in ("query", "gallery") for kind in KINDS]
    multi = {f"multi_query_{kind}": arrays[f"multi_query_{kind}"] for kind in KINDS}
    again = reid.evaluate(*parts, **multi)
    assert again["mAP"] == pytest.approx(record["test"]["ensemble"]["mAP"])
    assert again["multi_query"]["rank1"] == record["test"]["ensemble"]["multi_query"]["rank1"]
    file.unlink()
    assert train.run(run, verbose=0) == record  # finished; its features are written again
    np.testing.assert_array_equal(np.load(file)["query_features"], arrays["query_features"])
    picture = tmp_path / "rankings.png"
    flags = [f"--features={file}", f"--data_dir={tree}", f"--out={picture}", "--queries=0,7"]
    assert rankings.main(flags) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_longer_features_of_a_peer_do_not_change_the_ensemble(tree, tmp_path):
    splits = data.load(settings(tree, tmp_path))
    rng = np.random.default_rng(0)
    members = {
        name: {
            part: rng.normal(size=(len(getattr(splits.reid, part)), 4)) for part in evaluate.PARTS
        }
        for name in "ab"
    }
    longer = members | {"b": {part: 1000 * values for part, values in members["b"].items()}}
    first, second = (evaluate.measure_reid(m, splits)["ensemble"] for m in (members, longer))
    assert first == second


def test_a_network_without_features_is_refused(tree, tmp_path):
    splits = data.load(settings(tree, tmp_path))
    inputs = keras.Input((32, 16, 3))
    plain = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(inputs)), name="plain")
    with pytest.raises(ValueError, match="Peer plain has no features"):
        evaluate.extract_features(Cohort([plain]), splits)
