"""Loading a run's data: selection by seed, sizes, statistics."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dml_tf import data
from dml_tf.data import DATASETS, Splits, epoch_draws, load
from dml_tf.data.batches import evaluated_at_once
from dml_tf.data.load import pixel_statistics
from dml_tf.data.pictures import resize
from dml_tf.data.splits import Source, Split, choose, class_ranks
from dml_tf.data.stored import StoredImages


def config(**changes):
    settings = dict(
        dataset="digits",
        data_dir="",
        image_size=0,
        train_images=0,
        validation_fraction=0.0,
        labelled_fraction=1.0,
        unlabelled="use",
        seed=0,
    )
    return SimpleNamespace(**settings | changes)


def source(counts=(40, 30, 10)):
    """A data set whose image `i` has the pixel `i`, with so many images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(0).shuffle(labels)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    split = Split(images, labels)
    return Source("made up", split, split, tuple("abc"))


def chosen(split):
    return split.images.ravel().tolist()


def per_class(split):
    return np.bincount(split.labels[split.labels >= 0], minlength=3).tolist()


def test_class_ranks_are_a_random_order_within_each_class():
    labels, words = source().train.labels, np.random.default_rng(1).random(80)
    ranks = class_ranks(labels, words)
    for label, count in enumerate((40, 30, 10)):
        of_class = labels == label
        assert sorted(ranks[of_class]) == list(range(count))
        assert (np.argsort(words[of_class]) == np.argsort(ranks[of_class])).all()


def test_validation_takes_its_share_of_every_class_and_nothing_is_in_both():
    train, validation = choose(source(), config(validation_fraction=0.2))
    assert per_class(validation) == [8, 6, 2]
    assert sorted(chosen(train) + chosen(validation)) == list(range(80))


def test_a_subset_is_even_over_classes_as_far_as_they_go():
    assert per_class(choose(source(), config(train_images=24))[0]) == [8, 8, 8]
    assert per_class(choose(source(), config(train_images=50))[0]) == [20, 20, 10]
    odd = per_class(choose(source(), config(train_images=25))[0])
    assert sorted(odd) == [8, 8, 9]


def test_labels_are_kept_for_a_fraction_of_each_class_at_least_one():
    used, _ = choose(source(), config(labelled_fraction=0.1))
    assert per_class(used) == [4, 3, 1]
    assert len(used) == 80 and (used.labels == -1).sum() == 72
    assert (used.labels[used.labels >= 0] == source().train.labels[used.labels >= 0]).all()
    dropped, _ = choose(source(), config(labelled_fraction=0.1, unlabelled="drop"))
    kept = np.array(chosen(used))[used.labels >= 0]
    assert chosen(dropped) == kept.tolist()
    least, _ = choose(source(), config(labelled_fraction=0.001))
    assert per_class(least) == [1, 1, 1]


@pytest.mark.parametrize(
    "changes",
    [{"train_images": 30}, {"validation_fraction": 0.5}, {"labelled_fraction": 0.5}],
)
def test_every_choice_is_a_function_of_the_seed(changes):
    changes["unlabelled"] = "drop"
    same = [chosen(choose(source(), config(seed=1, **changes))[0]) for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != chosen(choose(source(), config(seed=2, **changes))[0])


def test_the_held_out_images_do_not_depend_on_how_many_are_trained_on():
    _, whole = choose(source(), config(validation_fraction=0.25))
    _, reduced = choose(source(), config(validation_fraction=0.25, train_images=20))
    assert chosen(whole) == chosen(reduced)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": 81}, "--train_images=81: there are 80"),
        ({"train_images": 61, "validation_fraction": 0.25}, "there are 60 training"),
        ({"train_images": -1}, "--train_images=-1"),
        ({"validation_fraction": 1.0}, "--validation_fraction=1.0"),
        ({"validation_fraction": 0.001}, "holds out 0 of the 80"),
        ({"validation_fraction": 0.999}, "holds out 80 of the 80"),
        ({"labelled_fraction": 0.0}, "--labelled_fraction=0.0"),
        ({"labelled_fraction": 1.5}, "--labelled_fraction=1.5"),
        ({"unlabelled": "hide"}, "--unlabelled=hide"),
    ],
)
def test_impossible_choices_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        choose(source(), config(**changes))


def test_digits_have_a_fixed_test_set_of_1000_that_no_seed_moves():
    first, second = load(config(seed=0)), load(config(seed=5, train_images=200))
    assert len(first.train) == 797 and len(first.test) == 1000
    assert (first.test.images == second.test.images).all()
    assert np.bincount(second.train.labels).tolist() == [20] * 10
    assert first.name == "Handwritten digits (scikit-learn)"
    assert first.num_classes == 10 and first.class_names[7] == "7"


def test_digits_are_scikit_learns_pictures_each_in_one_set():
    from sklearn.datasets import load_digits

    digits = load_digits()
    ours = load(config())
    mine = np.concatenate([ours.train.images, ours.test.images])[..., 0]
    theirs = np.rint(digits.images * 255 / 16).astype(np.uint8)
    key = lambda images: sorted(image.tobytes() for image in images)  # noqa: E731
    assert key(mine) == key(theirs)
    assert mine.max() == 255


def test_doubled_digits_repeat_each_pixel():
    small, large = load(config()), load(config(image_size=16))
    assert large.test.images.shape == (1000, 16, 16, 1)
    assert (large.test.images[:, ::2, ::2] == small.test.images).all()
    assert (large.test.images[:, 1::2, 1::2] == small.test.images).all()


def test_statistics_are_those_of_the_images_trained_on():
    splits = load(config(train_images=100))
    pixels = splits.train.images / 255
    np.testing.assert_allclose(splits.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(splits.std, pixels.std((0, 1, 2)), rtol=1e-6)
    assert splits.mean.dtype == splits.std.dtype == np.float32


def test_statistics_keep_channels_apart_and_never_divide_by_zero():
    images = np.zeros((2001, 2, 1, 3), np.uint8)
    images[..., 1] = 255
    images[:, 0, :, 2] = 51
    mean, std = pixel_statistics(images)
    np.testing.assert_allclose(mean, [0, 1, 0.1], atol=1e-7)
    np.testing.assert_allclose(std, [1 / 255, 1 / 255, 0.1], atol=1e-7)


def test_shrinking_by_a_whole_factor_is_the_rounded_mean():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 2), dtype=np.uint8)
    small = resize(images, 4)
    for row in range(4):
        for column in range(4):
            block = images[:, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
            mean = block.mean(axis=(1, 2))
            assert (small[:, row, column] == np.floor(mean + 0.5)).all()


def test_other_sizes_are_bilinear_and_keep_flat_pictures_flat():
    flat = resize(np.full((2, 10, 10, 3), 77, np.uint8), 7)
    assert flat.shape == (2, 7, 7, 3) and (flat == 77).all()
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8)[:, None, None], (1, 1, 20, 1))
    ramp = resize(ramp.reshape(1, 20, 20, 1), 12)[0, :, 5, 0].astype(int)
    assert (np.diff(ramp) > 0).all() and abs(ramp.mean() - 95) < 1


def test_a_negative_size_and_an_unknown_data_set_are_refused():
    with pytest.raises(ValueError, match="--image_size=-1"):
        load(config(image_size=-1))
    with pytest.raises(ValueError, match="--dataset=mnist: give one of cifar10, "):
        load(config(dataset="mnist"))
    assert set(DATASETS) >= {"cifar10", "cifar100", "fashion_mnist", "image_folder", "digits"}


def test_pictures_without_files_are_decoded_once_for_runs_that_have_the_same(tmp_path):
    first = load(config(train_images=20))
    assert load(config(train_images=20)) is first
    assert load(config(train_images=20, image_size=4)).train.images.shape[1] == 4
    assert load(config(train_images=20)) is not first
    other = load(config(train_images=20, seed=1))
    assert other.digests != first.digests
    again = load(config(train_images=20))
    assert again is not first and again.digests == first.digests
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name, colour in (("a", 0), ("b", 255)):
        for i in range(10):
            Image.new("RGB", (8, 8), (colour, 10 * i, 0)).save(tmp_path / name / f"{i}.png")
    files = config(dataset="image_folder", data_dir=str(tmp_path))
    assert load(files) is not load(files)  # they may have changed meanwhile


@pytest.mark.parametrize("dataset", ["digits", "shapes100", "imagenet_mini", "pedestrians"])
def test_the_fields_that_tell_data_apart_are_all_that_loading_reads(dataset):
    read = set()

    class Watched(SimpleNamespace):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    module = sys.modules["dml_tf.data.load"]
    more = {"stored_size": 0, "labelled_identities": 0}
    module._load(Watched(**vars(config(dataset=dataset)) | more))
    assert {"dataset", "seed"} <= read - {"__class__", "__dict__"} <= set(module._FIELDS)


def test_draws_need_no_tensorflow_and_nothing_is_imported_early():
    code = (
        "import sys, dml_tf.data as data;"
        "data.epoch_draws(0, 0, images=8, batch_size=4, augment='crop_flip', pad=1);"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'tensorflow_datasets'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr


def stored(*pixels, size):
    """One-channel images of one row, stored smaller than they are, normalised to [0, 1]."""
    images = np.array(pixels, np.uint8)[:, np.newaxis, :, np.newaxis]
    split = Split(StoredImages(images, size), np.arange(len(images)))
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    return Splits("stored", split, None, split, len(images), ("a", "b"), zero, one)


def test_large_images_are_evaluated_in_smaller_batches():
    """A batch has as many pixels as 256 images of 128x128, at most."""
    sizes = {(32, 32): 256, (128, 128): 256, (160, 64): 256, (224, 224): 83, (4096, 4096): 1}
    for (height, width), images in sizes.items():
        assert evaluated_at_once(height, width) == images
    splits = stored([0, 102], [255, 0], size=(1024, 2048))  # two of these in one batch
    assert [len(labels) for _, labels in data.eval_batches(splits.test, splits)] == [2]
    splits = stored([0, 102], [255, 0], size=(2048, 2048))
    assert [len(labels) for _, labels in data.eval_batches(splits.test, splits)] == [1, 1]


def test_stored_images_are_resized_bilinearly_and_not_rounded():
    splits = stored([0, 102], [255, 0], size=(2, 4))
    assert splits.train.images.shape == (2, 2, 4, 1)
    ((images, labels),) = data.eval_batches(splits.test, splits, 2)
    row = np.array([0, 25.5, 76.5, 102]) / 255
    rows = np.stack([row, [1, 0.75, 0.25, 0]])
    np.testing.assert_allclose(images[..., 0], np.stack([rows, rows], axis=1), atol=1e-6)
    assert labels.numpy().tolist() == [0, 1]


def test_stored_images_are_flipped_as_drawn():
    splits = stored([0, 102], [255, 0], size=(1, 4))
    asked = SimpleNamespace(batch_size=2, augment="flip", seed=0)
    batches = data.train_batches(splits, asked).take(8)
    draws = [epoch_draws(0, e, images=2, batch_size=2, augment="flip", pad=0) for e in range(8)]
    assert len({bool(flip) for draw in draws for flip in draw.flip[0]}) == 2
    plain = np.array([[0, 0.1, 0.3, 0.4], [1, 0.75, 0.25, 0]])
    for (images, labels), draw in zip(batches, draws, strict=True):
        rows = plain[draw.index[0]]
        expected = np.where(draw.flip[0][:, np.newaxis], rows[:, ::-1], rows)
        np.testing.assert_allclose(images[:, 0, :, 0], expected, atol=1e-6)
        assert labels.numpy().tolist() == draw.index[0].tolist()


def test_stored_images_are_chosen_and_hashed_by_their_pixels():
    train = stored([0, 102], [255, 0], size=(2, 4)).train
    second = train.take(np.array([1]))
    assert second.images.shape == (1, 2, 4, 1)
    assert second.pixels.ravel().tolist() == [255, 0]
    plain = Split(np.array([[[[255], [0]]]], np.uint8), np.array([1]))
    assert second.digest == plain.digest
