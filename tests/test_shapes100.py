"""The generated data set: fixed, balanced, varied, and its classes can be learnt."""

from types import SimpleNamespace

import numpy as np

from dml_tf.data import load
from dml_tf.data.generated.shapes100 import PATTERNS, SHAPES, generate


def config(**changes):
    settings = dict(
        dataset="shapes100",
        data_dir="",
        image_size=16,
        train_images=0,
        validation_fraction=0.0,
        labelled_fraction=1.0,
        unlabelled="use",
        seed=0,
    )
    return SimpleNamespace(**settings | changes)


def test_the_set_has_100_classes_in_20_super_classes_evenly():
    splits = load(config())
    assert splits.name == "shapes100 (generated)"
    assert splits.train.images.shape == (10_000, 16, 16, 3)
    assert np.bincount(splits.train.labels).tolist() == [100] * 100
    assert np.bincount(splits.test.labels).tolist() == [20] * 100
    assert len(SHAPES) == 20 and len(PATTERNS) == 5
    assert len(set(splits.class_names)) == splits.num_classes == 100
    assert splits.class_names[5 * list(SHAPES).index("heart") + 4] == "checked heart"


def test_the_seed_chooses_images_but_does_not_draw_them():
    first, second = load(config(seed=0, train_images=500)), load(config(seed=1, train_images=500))
    assert (first.test.images == second.test.images).all()
    assert not (first.train.images == second.train.images).all()
    whole = {image.tobytes() for image in load(config(seed=2)).train.images}
    assert whole >= {image.tobytes() for image in second.train.images}


def test_an_image_is_a_function_of_its_number_and_part_alone():
    long, short = generate(300, part=0), generate(130, part=0)
    assert (long.images[:130] == short.images).all()
    assert not (generate(130, part=1).images == short.images).all(axis=(1, 2, 3)).any()


def test_no_two_images_of_a_class_are_alike():
    images = generate(500, part=0).images.reshape(5, 100, -1).astype(int)
    apart = np.abs(images[:, None] - images[None]).mean(axis=-1)
    assert apart[~np.eye(5, dtype=bool)].min() > 10


def test_pixels_use_the_range_without_saturating():
    images = generate(500, part=0).images
    assert images.dtype == np.uint8
    assert 80 < images.mean() < 130 and images.std() > 40
    assert ((images == 0) | (images == 255)).mean() < 0.1


def test_classes_can_be_learnt_though_not_from_colours():
    # The nearest class mean of grey pictures beats chance; that of mean colours does not.
    train, test = generate(5000, part=0), generate(1000, part=1)

    def accuracy(features):
        seen, new = features(train.images), features(test.images)
        means = np.stack([seen[train.labels == label].mean(0) for label in range(100)])
        distance = ((new[:, None] - means) ** 2).sum(-1)
        return (distance.argmin(1) == test.labels).mean()

    grey = lambda images: images.mean(-1).reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(-1, 256)  # noqa: E731
    colour = lambda images: images.mean((1, 2))  # noqa: E731
    assert accuracy(grey) > 0.05
    assert accuracy(colour) < 0.05
