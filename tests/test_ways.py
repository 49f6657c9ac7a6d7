"""Other ways to learn from peers: a ramp, stale copies, views of one's own, a frozen teacher."""

import dataclasses

import keras
import numpy as np
import pytest

from dml_tf import Cohort, Ramp
from dml_tf.data import epoch_draws, train_batches
from dml_tf.errors import FlagError
from dml_tf.method import ramp
from dml_tf.networks import trusted
from dml_tf.paper import plan, readings, scales
from dml_tf.paper.cells import Cell
from dml_tf.runs import build, config, results, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.files import RunFiles

CLASSES, BATCH, DIM = 4, 8, 6


def peers(count, dropout=0.0):
    keras.utils.set_random_seed(1)
    return [
        keras.Sequential(
            [
                keras.Input((DIM,)),
                keras.layers.Dense(5),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(dropout, seed=k),
                keras.layers.Dense(CLASSES),
            ],
            name=f"peer{k}",
        )
        for k in range(count)
    ]


def cohort(count=2, dropout=0.0, **options):
    made = Cohort(peers(count, dropout), **options)
    made.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)
    return made


def images_of(views=()):
    return np.random.default_rng(0).normal(size=(3 * BATCH, *views, DIM)).astype("float32")


def fit(made, steps=3, first=0, views=()):
    part = slice(first * BATCH, (first + steps) * BATCH)
    images, labels = images_of(views)[part], (np.arange(3 * BATCH) % CLASSES)[part]
    made.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0)
    return weights_of(made)


def weights_of(made):
    return [v.numpy() for network in made.networks for v in network.variables]


def assert_equal(ours, theirs):
    for value, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value, other)


def differ(ours, theirs):
    return any((a != b).any() for a, b in zip(ours, theirs, strict=True))


# The ramp


def test_a_ramp_has_the_published_values_and_ends_at_the_plain_weight():
    made = Ramp(steps=10, weight=0.7, burn_in=4)
    found = [float(made(step)) for step in range(20)]
    by_hand = [
        0.7 * np.exp(-5 * (1 - min((s - 4) / 10, 1)) ** 2) if s >= 4 else 0 for s in range(20)
    ]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert found[:4] == [0] * 4 and found[14:] == [float(np.float32(0.7))] * 6


def test_without_steps_the_weight_is_whole_after_the_burn_in():
    assert [float(Ramp(0, 2.0, burn_in=2)(step)) for step in range(4)] == [0, 0, 2, 2]
    assert ramp.at(0.5, None) == 0.5


def test_a_ramp_of_negative_length_is_refused():
    with pytest.raises(ValueError, match="no negative numbers; got -1"):
        Ramp(-1)


def test_a_cohort_in_its_burn_in_learns_as_independent_networks():
    burning, alone = cohort(mimicry_weight=Ramp(0, burn_in=1)), cohort(mimicry="none")
    assert_equal(fit(burning, 1), fit(alone, 1))
    assert differ(fit(burning, 1, first=1), fit(alone, 1, first=1))  # the burn-in is over


def test_after_its_ramp_a_cohort_learns_with_the_plain_weight():
    weights = (0.5, Ramp(0, 0.5), Ramp(2, 0.5))
    plain, whole, rising = (fit(cohort(mimicry_weight=weight), 1) for weight in weights)
    assert_equal(whole, plain)
    assert differ(rising, plain)


def test_the_loss_in_the_logs_has_the_weight_of_the_step():
    made = cohort(mimicry_weight=Ramp(0, burn_in=100))
    logs = made.evaluate(images_of(), np.arange(3 * BATCH) % CLASSES, return_dict=True, verbose=0)
    each = [logs[f"peer{k}_supervised_loss"] for k in range(2)]
    assert logs["loss"] == pytest.approx(np.mean(each), rel=1e-5)
    assert logs["peer0_mimicry_loss"] > 0


# Stale copies


def test_copies_renewed_in_every_step_are_simultaneous_updates():
    stale, plain = cohort(dropout=0.3, stale_steps=1), cohort(dropout=0.3, update="simultaneous")
    assert_equal(fit(stale, steps=2), fit(plain, steps=2))


def test_a_student_learns_from_the_peers_of_the_last_renewal():
    stale, plain = cohort(stale_steps=2), cohort(update="simultaneous")
    assert_equal(fit(stale, steps=1), fit(plain, steps=1))
    before = [v.numpy() for v in stale.stale_variables]
    assert differ(fit(stale, 1, first=1), fit(plain, 1, first=1))
    assert_equal(before, [v.numpy() for v in stale.stale_variables])
    fit(stale, 1, first=2)
    assert differ(before, [v.numpy() for v in stale.stale_variables])


def test_a_networks_own_losses_count_with_stale_peers_too():
    def regularised(**options):
        nets = peers(2)
        for net in nets:
            net.layers[0].activity_regularizer = keras.regularizers.L2(0.5)
        made = Cohort(nets, **options)
        made.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        return made

    stale, plain = regularised(stale_steps=1), regularised(update="simultaneous")
    assert_equal(fit(stale, steps=2), fit(plain, steps=2))
    without = cohort(update="simultaneous")
    without.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    assert differ(fit(without, steps=2), weights_of(plain))


def test_stale_peers_are_those_of_a_literal_codistillation():
    """One linear student's second step, with its peer's first weights, in NumPy."""
    keras.utils.set_random_seed(0)
    nets = [
        keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(CLASSES)], name=f"linear{k}")
        for k in range(2)
    ]
    made = Cohort(nets, stale_steps=5)
    made.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    starts = [[w.numpy().astype(float) for w in net.weights] for net in nets]
    fit(made, steps=2)
    (kernel, bias), images, labels = starts[0], images_of().astype(float), np.arange(24) % CLASSES
    for step in range(2):
        x, y = (part[step * BATCH : (step + 1) * BATCH] for part in (images, labels))
        q, p = (_softmax(x @ k + b) for k, b in ((kernel, bias), starts[1]))
        slope = (q - np.eye(CLASSES)[y] + q - p) / BATCH
        kernel, bias = kernel - 0.1 * x.T @ slope, bias - 0.1 * slope.sum(axis=0)
    np.testing.assert_allclose(nets[0].weights[0].numpy(), kernel, atol=1e-6)


def _softmax(z):
    exp = np.exp(z - z.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def test_a_frozen_peer_needs_no_copy():
    made = cohort(stale_steps=2, frozen=(0,))
    assert len(made.stale_variables) == sum(len(net.variables) for net in made.networks[1:])
    assert np.isfinite(fit(made, steps=1)[0]).all()


def test_a_file_keeps_the_ramp_and_the_copies_bit_for_bit(tmp_path):
    options = {"stale_steps": 2, "mimicry_weight": Ramp(3, 0.5, 1), "dropout": 0.3}
    whole, first = cohort(**options), cohort(**options)
    fit(whole, steps=2)
    fit(first, steps=2)
    first.save(tmp_path / "cohort.keras")
    loaded = keras.saving.load_model(tmp_path / "cohort.keras")
    assert (loaded.stale_steps, loaded.mimicry_weight.get_config()) == (
        2, {"steps": 3, "weight": 0.5, "burn_in": 1},
    )  # fmt: skip
    assert_equal(fit(loaded, 1, first=2), fit(whole, 1, first=2))
    trusted.load_model(tmp_path / "cohort.keras")


# Views


def test_each_peer_learns_its_own_view():
    made = cohort(own_views=True, mimicry="none")
    fit(made, steps=1, views=(2,))
    for k, network in enumerate(peers(2)):
        alone = Cohort([network])
        alone.compile(keras.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)
        view = images_of((2,))[:BATCH, k]
        alone.fit(view, np.arange(BATCH) % CLASSES, batch_size=BATCH, shuffle=False, verbose=0)
        assert_equal(weights_of(alone), [v.numpy() for v in made.networks[k].variables])


def test_equal_views_are_one_view():
    labels, images = np.arange(BATCH) % CLASSES, images_of()[:BATCH]
    shared, own = cohort(), cohort(own_views=True)
    for made, seen in ((shared, images), (own, np.repeat(images[:, np.newaxis], 2, axis=1))):
        made.fit(seen, labels, batch_size=BATCH, shuffle=False, verbose=0)
    assert_equal(weights_of(shared), weights_of(own))


def test_images_without_a_view_for_each_peer_are_refused():
    with pytest.raises(ValueError, match=r"have the shape \(batch, 2, ...\)"):
        fit(cohort(own_views=True), views=(3,))


@pytest.mark.parametrize("options", [{"stale_steps": 2}, {"own_views": True}])
def test_networks_that_are_not_built_are_refused(options):
    with pytest.raises(ValueError, match="needs networks that are built"):
        Cohort([keras.Sequential([keras.layers.Dense(CLASSES)])], **options)


DRAWN = {"images": 10, "batch_size": 5, "augment": "crop_flip", "pad": 4}


def test_the_first_view_is_that_of_a_run_with_one_and_the_others_are_others():
    one, three = epoch_draws(3, 1, **DRAWN), epoch_draws(3, 1, **DRAWN, views=3)
    np.testing.assert_array_equal(three.index, one.index)
    for single, views in zip(one[1:], three[1:], strict=True):
        assert views.shape == (2, 5, 3) and views.dtype == single.dtype
        np.testing.assert_array_equal(views[..., 0], single)
    assert (three.top[..., 1] != three.top[..., 0]).any()
    assert (three.top[..., 2] != three.top[..., 1]).any()


# Runs

DIGITS = {"dataset": "digits", "net": "resnet8:2", "train_images": 64, "batch_size": 16}


def digits(tmp_path, **flags):
    flags = {"cohort": 2, "steps": 3, "results_dir": str(tmp_path)} | flags
    return config.load(**DIGITS, **flags)


def test_batches_have_a_view_for_each_peer(tmp_path):
    shared = digits(tmp_path, cohort=3, augment="crop_flip")
    splits = build.load_data(shared)
    images, labels = next(iter(train_batches(splits, shared)))
    views, same = next(iter(train_batches(splits, shared.replace(own_views=True))))
    assert views.shape == (16, 3, *images.shape[1:])
    np.testing.assert_array_equal(views[:, 0], images)
    np.testing.assert_array_equal(same, labels)
    assert (views[:, 1].numpy() != images.numpy()).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"own_views": True}, "--own_views is for --augment=flip, crop_flip or randaugment"),
        ({"own_views": True, "augment": "flip", "mixup": 0.2}, "images without --mixup"),
        ({"own_views": True, "augment": "flip", "cohort": 1}, "a cohort of two or more"),
        ({"stale_steps": 2, "placement": "peers"}, "--stale_steps=2 is for --placement=one"),
        ({"stale_steps": 2, "method": "independent"}, "has no effect with --method=independent"),
        ({"ramp_epochs": 2, "method": "independent"}, "has no effect with --method=independent"),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_words(tmp_path, flags, message):
    with pytest.raises(FlagError, match=message):
        digits(tmp_path, **flags)


def test_flags_make_the_ramp_in_steps(tmp_path):
    asked = digits(tmp_path, ramp_epochs=2.5, burn_in_epochs=1, mimicry_weight=0.5)
    made = build.build_cohort(asked, build.load_data(asked))
    assert made.mimicry_weight.get_config() == {"steps": 10, "weight": 0.5, "burn_in": 4}


class Interrupted(Exception):
    pass


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizers[0].iterations) == 3:
            raise Interrupted


def test_a_resumed_run_with_all_of_it_ends_with_the_same_bits(tmp_path):
    """Stale copies, a ramp and views, stopped between two renewals of the copies."""
    flags = {
        "steps": 5, "stale_steps": 2, "ramp_epochs": 1, "own_views": True, "augment": "flip",
        "target": "min_logit", "mimicry": "dkd", "dropout": 0.2, "save_minutes": 0.0,
    }  # fmt: skip
    ends = []
    for folder, stops in (("whole", [[]]), ("resumed", [[Stop()], []])):
        asked = digits(tmp_path / folder, **flags)
        splits = build.load_data(asked)
        for callbacks in stops:
            made = build.build_cohort(asked, splits)
            made.run_eagerly = True
            checkpoint = Checkpoint(RunFiles.of(asked).checkpoint(), asked, splits=splits)
            try:
                train.fit(made, asked, splits, checkpoint, verbose=0, callbacks=callbacks)
            except Interrupted:
                keras.utils.set_random_seed(99)
        ends.append([v.numpy() for v in made.variables])
    assert_equal(*ends)


def with_teacher(tmp_path):
    alone = digits(tmp_path, method="independent", cohort=1)
    splits = build.load_data(alone)
    results.save_model(build.build_cohort(alone, splits), RunFiles.of(alone).model)
    return digits(tmp_path, cohort=3, method="dml", teacher=alone.run_id), splits


def test_a_frozen_teacher_stands_beside_mutual_students(tmp_path):
    asked, splits = with_teacher(tmp_path)
    made = build.build_cohort(asked, splits)
    assert (made.frozen, made.students, made.mimicry) == ((0,), (1, 2), "kl")
    made.run_eagerly = True
    teacher, student = (made.networks[k].get_weights() for k in (0, 1))
    made.fit(train_batches(splits, asked), steps_per_epoch=1, shuffle=False, verbose=0)
    assert_equal(made.networks[0].get_weights(), teacher)
    assert differ(made.networks[1].get_weights(), student)


@pytest.mark.slow
def test_a_run_with_a_frozen_teacher_leaves_a_record_of_all(tmp_path):
    asked, _ = with_teacher(tmp_path)
    record = train.run(asked, verbose=0)
    assert list(record["test"]["peers"]) == ["resnet8_0", "resnet8_1", "resnet8_2"]


def test_the_mean_of_the_peers_leaves_a_frozen_teacher_out():
    peers = {f"p{k}": {"accuracy": accuracy} for k, accuracy in enumerate((0.9, 0.5, 0.7))}
    plain = Cell("teachers", "CIFAR-10", "row", "column", "accuracy", "dml", of="mean")
    for teacher, mean in ((plain, 0.6), (None, 0.7)):
        cell = dataclasses.replace(plain, teacher=teacher)
        assert readings.read({"test": {"peers": peers}}, cell) == pytest.approx(mean)


def test_the_study_of_teachers_has_seeds_and_a_folder_of_its_own(tmp_path):
    runs = plan.runs(scales.TEACHERS, results_dir=str(tmp_path))
    assert len(runs) == 72 and {run.seed for run in runs} == set(range(100, 106))
    assert {run.augment for run in runs} == {"flip"} and {run.epochs for run in runs} == {40}
    alone = {run.seed: run.run_id for run in runs if run.method == "independent"}
    beside = [run for run in runs if run.teacher]
    assert all(run.teacher == alone[run.seed] and run.cohort == 4 for run in beside)
    assert plan.waves(runs)[1] == beside and len(beside) == 6
