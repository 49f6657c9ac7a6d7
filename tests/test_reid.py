"""The protocol against numbers by hand, a slow oracle, and the common mistakes."""

import tracemalloc
from fractions import Fraction as F

import numpy as np
import pytest

from dml_tf import reid
from dml_tf.reid import gallery as reid_gallery
from dml_tf.reid import protocol

GOOD, WRONG = 1, 2  # pids in galleries made by hand; the query has pid 1 and camera 1


def ranking(*pids, camids=None, **options):
    """The measures of one query whose gallery ranks in this order."""
    features = np.arange(1.0, len(pids) + 1)[:, None]
    camids = np.full(len(pids), 2) if camids is None else np.array(camids)
    return reid.evaluate(
        np.zeros((1, 1)), [1], [1], features, np.array(pids), camids, normalize=False, **options
    )


def gallery_with_good_at(ranks):
    return [GOOD if rank in ranks else WRONG for rank in range(1, 11)]


@pytest.mark.parametrize(
    ("ranks", "trapezoid", "step"),
    [
        ({1}, F(1), F(1)),
        ({2}, F(1, 4), F(1, 2)),
        ({4}, F(1, 8), F(1, 4)),
        ({1, 2, 3}, F(1), F(1)),
        ({1, 3}, F(19, 24), F(5, 6)),
        ({2, 3}, F(5, 12), F(7, 12)),
        ({2, 3, 7}, F(17, 42), F(67, 126)),
        ({10}, F(1, 20), F(1, 10)),
    ],
)
def test_average_precision_equals_the_fraction_by_hand(ranks, trapezoid, step):
    gallery = gallery_with_good_at(ranks)
    default = ranking(*gallery)
    assert default["average_precision"][0] == pytest.approx(float(trapezoid), abs=1e-15)
    assert default["mAP"] == default["average_precision"][0]
    by_step = ranking(*gallery, average_precision="step")
    assert by_step["mAP"] == pytest.approx(float(step), abs=1e-15)
    assert default["first_hit"][0] == min(ranks)


def test_cmc_counts_queries_whose_first_good_image_is_within_the_rank():
    queries = np.array([[0.0], [10.0], [20.0], [30.0]])
    gallery = np.array([[0.1], [10.2], [10.1], [20.1], [20.2], [20.3], [30.1]])
    pids, camids = np.array([1, 2, 9, 9, 9, 3, 9]), np.full(7, 2)
    options = {"normalize": False, "ranks": (1, 2, 3)}
    result = reid.evaluate(
        queries, np.array([1, 2, 3, 4]), np.ones(4, int), gallery, pids, camids, **options
    )
    assert result["first_hit"].tolist() == [1, 2, 3, 0]
    assert result["left_out"] == 1
    assert np.isnan(result["average_precision"]).tolist() == [False, False, False, True]
    assert [result[f"rank{k}"] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert result["mAP"] == pytest.approx(np.mean(result["average_precision"][:3]))


# One gallery in which every common mistake gives another number.
PIDS, CAMIDS = [GOOD, reid.JUNK, reid.DISTRACTOR, GOOD, WRONG], [1, 2, 2, 2, 2]


def test_junk_is_removed_and_distractors_stay():
    assert ranking(*PIDS, camids=CAMIDS)["mAP"] == float(F(1, 4))  # the good image comes second
    assert ranking(*PIDS, camids=CAMIDS)["rank1"] == 0


@pytest.mark.parametrize(
    ("mistake", "pids", "camids", "wrong"),
    [
        ("junk kept", [GOOD, 8, 0, GOOD, WRONG], [1, 2, 2, 2, 2], F(1, 6)),
        ("distractors dropped", [GOOD, -1, -1, GOOD, WRONG], [1, 2, 2, 2, 2], F(1)),
        ("same camera counted as good", PIDS, [3, 2, 2, 2, 2], F(19, 24)),
        ("same camera counted as wrong", [8, *PIDS[1:]], [1, 2, 2, 2, 2], F(1, 6)),
    ],
)
def test_each_common_mistake_changes_the_number(mistake, pids, camids, wrong):
    assert ranking(*pids, camids=camids)["mAP"] == pytest.approx(float(wrong)), mistake
    assert wrong != F(1, 4)


def oracle_of_one(distances, pid, camid, g_pids, g_camids, form):
    """The protocol, slow and plain: `(average precision, rank of the first good image)`."""
    order = sorted(range(len(distances)), key=lambda j: (distances[j], j))
    ranked = [
        j for j in order if g_pids[j] != -1 and not (g_pids[j] == pid and g_camids[j] == camid)
    ]
    good = [rank for rank, j in enumerate(ranked) if g_pids[j] == pid and pid > 0]
    if not good:
        return None
    total = F(0)
    for i, rank in enumerate(good):
        precision = F(i + 1, rank + 1)
        before = F(i, rank) if rank else F(1)
        total += precision if form == "step" else (precision + before) / 2
    return float(total / len(good)), good[0] + 1


def compare_with_oracle(result, distances, labels, form):
    q_pids, q_camids, g_pids, g_camids = labels
    expected = [
        oracle_of_one(row.tolist(), pid, camid, g_pids, g_camids, form)
        for row, pid, camid in zip(distances, q_pids, q_camids, strict=True)
    ]
    kept = [e for e in expected if e is not None]
    assert result["left_out"] == expected.count(None)
    assert result["first_hit"].tolist() == [e[1] if e else 0 for e in expected]
    np.testing.assert_allclose(
        result["average_precision"], [e[0] if e else np.nan for e in expected], rtol=1e-13
    )
    assert result["mAP"] == pytest.approx(np.mean([e[0] for e in kept]), rel=1e-13)
    for k in (1, 5, 10, 20):
        assert result[f"rank{k}"] == pytest.approx(np.mean([e[1] <= k for e in kept]))


def random_labels(rng, queries, gallery):
    return (
        rng.integers(-1, 9, queries),
        rng.integers(1, 4, queries),
        rng.integers(-1, 9, gallery),
        rng.integers(1, 4, gallery),
    )


# Ranks by counting, by the choice of both, and by sorting; blocks of one query, a few, and all.
@pytest.mark.parametrize("sort_per_good", [-1, 4, 10**9])
@pytest.mark.parametrize("block_elements", [1, 400, 2**22])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_against_the_oracle_with_many_ties(monkeypatch, sort_per_good, block_elements, dtype):
    monkeypatch.setattr(protocol, "_SORT_PER_GOOD", sort_per_good)
    monkeypatch.setattr(reid_gallery, "_BLOCK_ELEMENTS", block_elements)
    monkeypatch.setattr(reid_gallery, "_FEWEST_ROWS", 1)
    rng = np.random.default_rng(0)
    for form in ("trapezoid", "step"):
        labels = random_labels(rng, 25, 110)
        q, g = rng.integers(-2, 3, (25, 3)), rng.integers(-2, 3, (110, 3))
        squared = ((q[:, None] - g[None]) ** 2).sum(-1)  # integers: equal is equal
        result = reid.evaluate(
            q.astype(dtype), *labels[:2], g.astype(dtype), *labels[2:],
            normalize=False, average_precision=form,
        )  # fmt: skip
        compare_with_oracle(result, squared, labels, form)
        assert 0 < result["left_out"] < 25  # both kinds of query occur


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("normalize", [True, False])
def test_exact_against_the_oracle_on_real_features(metric, normalize):
    rng = np.random.default_rng(1)
    labels = random_labels(rng, 30, 200)
    q, g = rng.standard_normal((30, 7)), 3 * rng.standard_normal((200, 7))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
    if metric == "cosine":
        expected = 1 - a @ b.T
    else:
        pair = (a, b) if normalize else (q, g)
        expected = np.linalg.norm(pair[0][:, None] - pair[1][None], axis=-1)
    options = {"metric": metric, "normalize": normalize}
    np.testing.assert_allclose(reid.distances(q, g, **options), expected, atol=1e-7)
    result = reid.evaluate(q, *labels[:2], g, *labels[2:], **options)
    compare_with_oracle(result, expected, labels, "trapezoid")


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("dim", [3, 17, 129, 1000])
def test_identical_gallery_features_rank_in_gallery_order(queries, dim):
    # A matrix product with a single query can round equal columns differently.
    rng = np.random.default_rng(dim)
    gallery = np.tile(rng.standard_normal(dim).astype(np.float32), (1003, 1))
    pids = np.full(1003, WRONG)
    pids[[499, 1001]] = GOOD
    camids, query_camids = np.full(1003, 2), np.ones(queries, int)
    query = rng.standard_normal((queries, dim)).astype(np.float32)
    result = reid.evaluate(query, np.full(queries, GOOD), query_camids, gallery, pids, camids)
    assert result["first_hit"].tolist() == [500] * queries
    expected = (F(1, 500) + F(2, 1002) + F(1, 1001)) / 4
    np.testing.assert_allclose(result["average_precision"], float(expected), rtol=1e-12)


def test_a_distractor_or_junk_query_is_left_out():
    gallery, pids, camids = np.eye(3), np.array([0, -1, 5]), np.array([2, 2, 2])
    result = reid.evaluate(np.eye(3), np.array([0, -1, 5]), np.ones(3, int), gallery, pids, camids)
    assert result["left_out"] == 2
    assert result["mAP"] == 1


def test_inputs_are_not_changed():
    rng = np.random.default_rng(0)
    q, g = rng.standard_normal((4, 3)), rng.standard_normal((9, 3))
    labels = [np.arange(4) + 1, np.ones(4, int), np.arange(9) % 4 + 1, np.full(9, 2)]
    before = [x.copy() for x in (q, g, *labels)]
    reid.evaluate(
        q, *labels[:2], g, *labels[2:],
        multi_query_features=g, multi_query_pids=labels[2], multi_query_camids=np.ones(9, int),
    )  # fmt: skip
    for old, new in zip(before, (q, g, *labels), strict=True):
        np.testing.assert_array_equal(old, new)


def multi_query_case():
    """Query 0 has two more images; query 1 has none of its identity and camera."""
    query = {"features": np.array([[5.0, 0.0], [0.0, 2.0]]), "pids": [1, 2], "camids": [1, 1]}
    more = {
        "features": np.array([[3.0, 0.0], [0.0, 7.0], [9.0, 9.0], [1.0, 0.0]]),
        "pids": [1, 1, 1, 3],
        "camids": [1, 1, 2, 1],
    }
    return query, more


def test_multi_query_pools_normalised_features_of_the_same_identity_and_camera():
    query, more = multi_query_case()
    pooled = reid.pool_queries(*query.values(), *more.values())
    np.testing.assert_allclose(pooled, [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=1e-15)
    raw = reid.pool_queries(*query.values(), *more.values(), normalize=False)
    assert raw.tolist() == [[1.5, 3.5], [0.0, 2.0]]


def test_max_pooling_takes_the_largest_value_of_each_dimension():
    query, more = multi_query_case()
    more["features"][1] = [3.0, 4.0]  # unit rows (1, 0) and (0.6, 0.8), so (1, 0.8) before scaling
    pooled = reid.pool_queries(*query.values(), *more.values(), pooling="max")
    np.testing.assert_allclose(pooled[0], np.array([1, 0.8]) / 1.64**0.5, rtol=1e-15)


def test_multi_query_results_are_those_of_the_pooled_features():
    rng = np.random.default_rng(5)
    q, g, more = (rng.standard_normal((n, 4)) for n in (12, 60, 50))
    labels = [rng.integers(1, 5, 12), rng.integers(1, 3, 12), rng.integers(-1, 5, 60)]
    labels += [rng.integers(1, 4, 60)]
    more_labels = {"pids": rng.integers(1, 5, 50), "camids": rng.integers(1, 3, 50)}
    result = reid.evaluate(
        q, *labels[:2], g, *labels[2:], multi_query_features=more, pooling="max",
        **{f"multi_query_{name}": values for name, values in more_labels.items()},
    )  # fmt: skip
    pooled = reid.pool_queries(q, *labels[:2], more, *more_labels.values(), pooling="max")
    single = reid.evaluate(q, *labels[:2], g, *labels[2:])
    expected = reid.evaluate(pooled, *labels[:2], g, *labels[2:])
    assert result["multi_query"]["mAP"] == pytest.approx(expected["mAP"], rel=1e-12)
    assert result["multi_query"].keys() == single.keys() == result.keys() - {"multi_query"}
    assert result["mAP"] == single["mAP"] != result["multi_query"]["mAP"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_l2_normalize_scales_to_length_1_and_keeps_zero_vectors(dtype):
    features = np.array([[3, -4], [0, 0]], dtype)
    scaled = reid.l2_normalize(features)
    np.testing.assert_allclose(scaled, [[0.6, -0.8], [0, 0]], rtol=1e-6)
    assert scaled.dtype == dtype and features[0, 0] == 3
    np.testing.assert_array_equal(reid.l2_normalize(features, np.array([5.0, 0], dtype)), scaled)


def test_a_zero_feature_is_accepted():
    result = reid.evaluate(
        np.zeros((1, 2)), [1], [1], np.eye(2), np.array([2, 1]), np.array([2, 2])
    )
    assert result["first_hit"].tolist() == [2]


VALID = {
    "query_features": np.eye(2), "query_pids": [1, 2], "query_camids": [1, 1],
    "gallery_features": np.ones((3, 2)), "gallery_pids": [1, 2, 3], "gallery_camids": [2, 2, 2],
}  # fmt: skip
LABELS = {"multi_query_pids": [1, 2], "multi_query_camids": [1, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "manhattan"}, "metric must be one of euclidean, cosine, got 'manhattan'"),
        ({"average_precision": "voc"}, "average_precision must be one of trapezoid, step"),
        ({"ranks": (1, 0)}, "ranks must be whole numbers"),
        ({"false_positive_rates": (0.1, 2)}, "false_positive_rates must be fractions from 0 to 1"),
        ({"query_features": np.zeros(3)}, r"query_features must have shape .* got \(3,\)"),
        ({"query_features": np.zeros((0, 2))}, r"got \(0, 2\)"),
        ({"gallery_features": np.zeros((3, 5))}, "query_features have 2 dimensions and gallery"),
        ({"gallery_features": [["a", "b"]] * 3}, "gallery_features must be real numbers"),
        ({"query_pids": np.array([1, 2, 3])}, "query_pids must be 2 integers"),
        ({"gallery_camids": np.array([1.0, 2.0, 3.0])}, "gallery_camids must be 3 integers"),
        ({"query_features": np.array([[0, np.nan], [0, 1]])}, "query_features of 1 images contain"),
        (
            {"gallery_features": np.full((3, 2), np.inf)},
            "gallery_features of 3 images contain NaN or",
        ),
        (
            {"query_camids": [2, 2], "gallery_pids": [8, 8, 8]},
            "No query has an image of its identity",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        reid.evaluate(**(VALID | changes))


@pytest.mark.parametrize(
    ("features", "more", "message"),
    [
        (np.eye(2), {}, "pass all three"),
        (np.eye(3)[:2], {"multi_query_pids": [1, 2]}, "pass all three"),
        (np.eye(3)[:2], LABELS, "query_features have 2 dimensions and multi_query_features 3"),
        (np.eye(2), LABELS | {"pooling": "median"}, "pooling must be one of mean, max"),
    ],
)
def test_wrong_multi_query_arguments_are_refused_by_name(features, more, message):
    with pytest.raises(ValueError, match=message):
        reid.evaluate(**VALID, multi_query_features=features, **more)


def test_minp_divides_the_number_of_good_images_by_the_rank_of_the_last():
    assert ranking(*gallery_with_good_at({2, 3, 7}))["mINP"] == pytest.approx(3 / 7)
    assert ranking(*gallery_with_good_at({1, 2}))["mINP"] == 1


def true_positive_rate_of(distances, labels, rate):
    """The ROC read at one false positive rate, slow and plain: every threshold is tried."""
    good, wrong = [], []
    for row, pid, camid in zip(distances, *labels[:2], strict=True):
        of_query = [(d, p == pid) for d, p, c in zip(row, *labels[2:], strict=True)
                    if p != -1 and not (p == pid and c == camid)]  # fmt: skip
        if pid > 0 and any(is_good for _, is_good in of_query):
            good += [d for d, is_good in of_query if is_good]
            wrong += [d for d, is_good in of_query if not is_good]
    accepted = [0.0]
    for threshold in set(good + wrong):
        if sum(d <= threshold for d in wrong) <= rate * len(wrong) + 1e-9:
            accepted.append(sum(d <= threshold for d in good) / len(good))
    return max(accepted)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_roc_is_exact_against_the_oracle(monkeypatch, normalize):
    monkeypatch.setattr(reid_gallery, "_BLOCK_ELEMENTS", 300)
    monkeypatch.setattr(reid_gallery, "_FEWEST_ROWS", 1)
    rng = np.random.default_rng(3)
    labels = random_labels(rng, 20, 90)
    q, g = rng.integers(-2, 3, (20, 3)).astype(float), rng.integers(-2, 3, (90, 3)).astype(float)
    if normalize:
        q, g = rng.standard_normal((20, 4)), rng.standard_normal((90, 4))
    rates = np.array([0, 0.001, 0.01, 0.1, 0.5, 1])
    result = reid.evaluate(
        q, *labels[:2], g, *labels[2:], normalize=normalize, false_positive_rates=rates
    )
    apart = reid.distances(q, g, normalize=normalize)
    expected = [true_positive_rate_of(apart, labels, rate) for rate in rates]
    assert result["true_positive_rate"] == pytest.approx(expected)
    assert "true_positive_rate" not in reid.evaluate(q, *labels[:2], g, *labels[2:])


def test_memory_stays_small_at_the_size_of_market_1501():
    rng = np.random.default_rng(0)
    # A quarter of its queries: all their distances at once would need 133 MB.
    q, g = (rng.standard_normal((n, 32), np.float32) for n in (842, 19732))
    q_labels = rng.integers(1, 751, 842), rng.integers(1, 7, 842)
    g_labels = rng.integers(-1, 751, 19732), rng.integers(1, 7, 19732)
    tracemalloc.start()
    reid.evaluate(q, *q_labels, g, *g_labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # at 1,024 dimensions 100 MB more, for the normalised features
