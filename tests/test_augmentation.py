"""Draws of order, crops and flips, and the batches that `tf.data` makes of them."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from dml_tf.data import Split, Splits, epoch_draws, eval_batches, steps_per_epoch, train_batches
from dml_tf.data.batches import crop
from dml_tf.data.draws import Purpose, crop_pad, philox


def make_splits(images=23, size=8, channels=3, unlabelled=0):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, size, size, channels), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(images)  # one pixel identifies an image
    labels = np.arange(images) % 5
    labels[:unlabelled] = -1
    split = Split(pixels, labels)
    mean = np.linspace(0.4, 0.6, channels, dtype=np.float32)
    std = np.linspace(0.2, 0.3, channels, dtype=np.float32)
    return Splits("made up", split, None, split, 5, tuple("abcde"), mean, std)


def settings(**changes):
    return SimpleNamespace(**dict(batch_size=4, augment="crop_flip", seed=3) | changes)


def collect(dataset, batches):
    taken = list(itertools.islice(dataset, batches))
    assert len(taken) == batches
    return [(images.numpy(), labels.numpy()) for images, labels in taken]


def philox4x64(counter, key):
    """Philox4x64-10 as published (Salmon et al., 2011), one block of four words."""
    mask = 2**64 - 1
    x0, x1, x2, x3 = (counter >> shift & mask for shift in (0, 64, 128, 192))
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x0, 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * x2, 2**64)
        x0, x1, x2, x3 = high1 ^ x1 ^ key[0], low1, high0 ^ x3 ^ key[1], low0
        key = (key[0] + 0x9E3779B97F4A7C15 & mask, key[1] + 0xBB67AE8584CAA73B & mask)
    return [x0, x1, x2, x3]


def test_words_are_philox_under_the_documented_key_and_counter():
    seed, epoch = 2**40 + 5, 7
    key = (seed, int(Purpose.LABELLED) * 2**32 + epoch)
    expected = [word for counter in (1, 2, 3) for word in philox4x64(counter, key)]
    assert philox(seed, Purpose.LABELLED, epoch).random_raw(12).tolist() == expected


def test_draws_follow_the_documented_arithmetic():
    words = philox(1, Purpose.EPOCH, 2).random_raw(22).tolist()
    draws = epoch_draws(1, 2, images=11, batch_size=3, augment="crop_flip", pad=4)
    order = sorted(range(11), key=lambda image: words[image])[:9]
    assert draws.index.ravel().tolist() == order
    assert draws.top.ravel().tolist() == [words[11 + i] % 9 for i in order]
    assert draws.left.ravel().tolist() == [words[11 + i] // 9 % 9 for i in order]
    assert draws.flip.ravel().tolist() == [words[11 + i] >= 2**63 for i in order]
    assert draws.index.shape == (3, 3)


def test_each_epoch_is_a_new_permutation_and_each_seed_another():
    def order(seed, epoch):
        draws = epoch_draws(seed, epoch, images=50, batch_size=10, augment="none", pad=1)
        return tuple(draws.index.ravel().tolist())

    orders = {order(seed, epoch) for seed in range(3) for epoch in range(4)}
    assert len(orders) == 12
    assert all(sorted(places) == list(range(50)) for places in orders)


def test_offsets_and_flips_are_uniform():
    draws = epoch_draws(0, 0, images=90_000, batch_size=100, augment="crop_flip", pad=4)
    cells = np.bincount((draws.top * 9 + draws.left).ravel() * 2 + draws.flip.ravel())
    assert cells.shape == (162,)
    expected = 90_000 / 162
    assert ((cells - expected) ** 2 / expected).sum() < 161 + 5 * np.sqrt(2 * 161)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_without_crops_nothing_moves(augment):
    draws = epoch_draws(0, 0, images=40, batch_size=10, augment=augment, pad=2)
    assert (draws.top == 2).all() and (draws.left == 2).all()
    assert draws.flip.any() == (augment == "flip")


def test_padding_is_4_at_32_pixels_and_in_proportion_at_other_sizes():
    assert [crop_pad(size) for size in (8, 16, 28, 32, 64)] == [1, 2, 4, 4, 8]


@pytest.mark.parametrize(("height", "width", "channels", "pad"), [(8, 8, 1, 1), (6, 9, 3, 4)])
def test_crop_equals_numpy_reflect_padding(height, width, channels, pad):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, height, width, channels), dtype=np.uint8)
    draws = epoch_draws(5, 1, images=30, batch_size=30, augment="crop_flip", pad=pad)
    batch = type(draws)(*(array[0] for array in draws))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    for cut, index, top, left, flip in zip(
        crop(tf.constant(images), batch, pad), *batch, strict=True
    ):
        expected = padded[index, top : top + height, left : left + width]
        assert (cut.numpy() == (expected[:, ::-1] if flip else expected)).all()


def test_batches_are_the_drawn_images_normalised():
    splits, config = make_splits(unlabelled=6), settings(augment="flip")
    (images, labels), *_ = collect(train_batches(splits, config, initial_epoch=2), 1)
    draws = epoch_draws(3, 2, images=23, batch_size=4, augment="flip", pad=1)
    expected = splits.train.images[draws.index[0]] / 255
    expected[draws.flip[0]] = expected[draws.flip[0], :, ::-1]
    np.testing.assert_allclose(images, (expected - splits.mean) / splits.std, atol=1e-5)
    assert labels.tolist() == splits.train.labels[draws.index[0]].tolist()
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)


def test_a_stream_from_a_later_epoch_is_the_rest_of_the_whole_stream():
    splits, config = make_splits(), settings()
    steps = steps_per_epoch(len(splits.train), config.batch_size)
    whole = collect(train_batches(splits, config), 4 * steps)
    rest = collect(train_batches(splits, config, initial_epoch=2), 2 * steps)
    for (images, labels), (again, labels_again) in zip(whole[2 * steps :], rest, strict=True):
        assert (images == again).all() and (labels == labels_again).all()
    assert not (whole[0][0] == whole[steps][0]).all()


def test_an_epoch_shows_each_image_at_most_once_in_full_batches_of_fixed_shape():
    splits, config = make_splits(), settings(augment="none")
    assert steps_per_epoch(len(splits.train), config.batch_size) == 5
    stream = train_batches(splits, config)
    assert stream.element_spec[0].shape == (4, 8, 8, 3)
    assert stream.element_spec[1].shape == (4,)
    batches = collect(stream, 5)
    marks = np.concatenate([images[:, 0, 0, 0] for images, _ in batches])
    marks = np.rint((marks * splits.std[0] + splits.mean[0]) * 255).astype(int)
    assert len(set(marks)) == 20
    assert (np.concatenate([labels for _, labels in batches]) == marks % 5).all()


def test_evaluation_is_in_order_complete_and_not_augmented():
    splits = make_splits()
    batches = [(x.numpy(), y.numpy()) for x, y in eval_batches(splits.test, splits, 10)]
    assert [len(labels) for _, labels in batches] == [10, 10, 3]
    images = np.concatenate([images for images, _ in batches])
    expected = (splits.test.images / 255 - splits.mean) / splits.std
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert (np.concatenate([labels for _, labels in batches]) == splits.test.labels).all()


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="--batch_size=24.*1 to 23"):
        steps_per_epoch(len(make_splits().train), 24)
    with pytest.raises(ValueError, match="--batch_size=24"):
        train_batches(make_splits(), settings(batch_size=24))


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="--augment=cutout: give one of none, flip, crop_flip"):
        train_batches(make_splits(), settings(augment="cutout"))


def test_keras_trains_on_the_stream_for_several_epochs():
    import keras

    splits, config = make_splits(), settings()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    history = model.fit(
        train_batches(splits, config),
        steps_per_epoch=steps_per_epoch(len(splits.train), config.batch_size),
        epochs=4,
        shuffle=False,
        validation_data=eval_batches(splits.test, splits, 10),
        verbose=0,
    )
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_randaugment_is_a_function_of_seed_epoch_and_step():
    splits, config = make_splits(images=8), settings(augment="randaugment")
    batches = list(train_batches(splits, config).take(4))
    later = list(train_batches(splits, config, initial_epoch=1).take(2))
    for (images, labels), (again, same) in zip(batches[2:], later, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)
    config.augment = "crop_flip"
    plain = list(train_batches(splits, config).take(4))
    changed = [np.abs(a - b).max() for (a, _), (b, _) in zip(batches, plain, strict=True)]
    assert max(changed) > 0.1
    pixels = [(images * splits.std + splits.mean).numpy() for images, _ in batches]
    assert np.min(pixels) > -1e-5 and np.max(pixels) < 1 + 1e-5
    config.augment = "randaugment"
    with pytest.raises(ValueError, match="randaugment is for colour images; these have 1 channel"):
        train_batches(make_splits(channels=1), config)
