"""Folders of one's own pictures: formats, the split of a flat tree, where results go."""

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from dml_tf import home
from dml_tf.data import eval_batches, load, train_batches
from dml_tf.data.pictures import read_rgb, readable_suffixes
from dml_tf.data.stored import WholePictures
from dml_tf.errors import DataWarning, RunFailed
from dml_tf.runs import memory, train
from dml_tf.runs.config import load as load_config


def config(data_dir, seed=0):
    return SimpleNamespace(
        dataset="image_folder", data_dir=str(data_dir), image_size=8, train_images=0, seed=seed,
        validation_fraction=0.0, labelled_fraction=1.0, unlabelled="use",
    )  # fmt: skip


def write_flat_tree(root):
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir()
        for number in range(10):
            level = 100 * label + 10 * number
            Image.new("RGB", (8, 8), (level, level, level)).save(root / name / f"{number}.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tiff", "ppm", "PNG"])
def test_pictures_of_every_format_are_read(tmp_path, suffix):
    Image.new("RGB", (5, 4), (250, 10, 10)).save(tmp_path / f"red.{suffix}")
    pixels = read_rgb(tmp_path / f"red.{suffix}")
    assert pixels.shape == (4, 5, 3)
    np.testing.assert_allclose(pixels[2, 2], (250, 10, 10), atol=6)
    assert f".{suffix.lower()}" in readable_suffixes()


def test_pictures_of_other_modes_become_rgb_and_stand_upright(tmp_path):
    deep = np.full((2, 3), 128 * 256 + 5, np.uint16)
    Image.fromarray(deep).save(tmp_path / "sixteen_bits.png")
    Image.new("RGBA", (3, 2), (128, 128, 128, 7)).save(tmp_path / "transparent.png")
    Image.new("L", (3, 2), 128).save(tmp_path / "grey.png")
    for file in tmp_path.iterdir():
        assert (read_rgb(file) == np.full((2, 3, 3), 128)).all(), file
    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: turn right to see it upright
    Image.new("RGB", (3, 2)).save(tmp_path / "turned.jpg", exif=rotated)
    assert read_rgb(tmp_path / "turned.jpg").shape == (3, 2, 3)


def test_a_flat_tree_is_split_by_content_the_same_for_every_seed(tmp_path):
    write_flat_tree(tmp_path)
    shutil.copy(tmp_path / "cat" / "3.png", tmp_path / "cat" / "copy.png")
    with pytest.warns(DataWarning, match=r"cat/copy\.png\) with the same content as files of this"):
        splits = load(config(tmp_path))
    with pytest.warns(DataWarning):
        again = load(config(tmp_path, seed=5))
    assert again.test.digest == splits.test.digest
    parts = [splits.train, splits.validation, splits.test]
    assert np.bincount(splits.test.labels).min() == np.bincount(splits.test.labels)[1] == 2
    assert np.bincount(splits.validation.labels)[1] == 1
    assert sum(map(len, parts)) == 21
    of_parts = [set(part.images[:, 0, 0, 0].tolist()) for part in parts]
    levels = set(range(0, 200, 10))
    assert set.union(*of_parts) == levels  # the copies of a picture are in one part
    cats = [set(p.images[p.labels == 0][:, 0, 0, 0].tolist()) for p in parts]
    assert not (cats[0] & cats[1] or cats[0] & cats[2] or cats[1] & cats[2])
    for number in range(2, 10):
        (tmp_path / "dog" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="dog has 2 different pictures, which are too few"):
        load(config(tmp_path))


def test_results_go_to_a_folder_of_the_pictures_name(tmp_path):
    flags = dict(dataset="image_folder", net=("resnet8",))
    here = load_config(**flags, data_dir=tmp_path / "My cats").results_dir
    assert here == str(home.HOME / "results" / "My cats")
    assert load_config(**flags, data_dir=tmp_path, results_dir="x").results_dir == "x"


# Sets that stay on disk


@pytest.fixture
def photographs(tmp_path):
    """Noise of several sizes as JPEG files, in the folders train/ and test/."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 7)):
        for label in ("cat", "dog"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                sides = (8, 8) if number % 2 else rng.integers(5, 30, 2)
                noise = rng.integers(0, 256, (*sides, 3), np.uint8)
                Image.fromarray(noise).save(folder / f"{number}.jpg")
    return tmp_path


def on_disk_and_in_memory(root, **changes):
    asked = dict(batch_size=5, augment="crop_flip", validation_fraction=0.25, train_images=14)
    asked = vars(config(root)) | asked | changes
    return [SimpleNamespace(**asked, pictures_gb=gb) for gb in (0.0, 1.0)]


@pytest.mark.parametrize(
    "changes",
    [{}, {"augment": "flip", "mixup": 0.2}, {"image_size": 16, "augment": "flip"}],
)
def test_pictures_on_disk_give_the_batches_of_pictures_in_memory_bit_for_bit(photographs, changes):
    batches = []
    for asked in on_disk_and_in_memory(photographs, **changes):
        splits = load(asked)
        assert isinstance(splits.train.images, WholePictures) == (asked.pictures_gb == 0)
        stream = train_batches(splits, asked, initial_epoch=1, initial_step=1, part=(0, 1))
        found = [array.numpy() for batch in stream.take(4) for array in batch]
        for part in (splits.train, splits.validation, splits.test):
            found += [a.numpy() for batch in eval_batches(part, splits, 4) for a in batch]
        batches.append([*found, splits.mean, splits.std])
    for ours, theirs in zip(*batches, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_record_is_the_same_whether_pictures_were_on_disk_or_in_memory(photographs, tmp_path):
    small = dict(dataset="image_folder", data_dir=str(photographs), net="resnet8:2", image_size=8,
                 batch_size=8, epochs=2, validation_fraction=0.25)  # fmt: skip
    found = []
    for gb in (0.0, 1.0):
        asked = load_config(**small, pictures_gb=gb, results_dir=str(tmp_path / f"{gb}"))
        record = train.run(asked, verbose=0)
        times = ("wall_clock_s", "cpu_s", "images_per_s", "finished", "weights_sha256")
        found.append({name: part for name, part in record.items() if name not in times})
    assert found[0] == found[1]


def test_a_picture_on_disk_that_is_damaged_is_named_before_training(photographs):
    broken = photographs / "test" / "dog" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    for asked in on_disk_and_in_memory(photographs):
        with pytest.raises(ValueError, match=r"test/dog/3\.jpg cannot be read as a picture"):
            load(asked)


def test_a_picture_that_is_damaged_while_training_is_named(photographs, tmp_path):
    small = dict(
        dataset="image_folder", data_dir=str(photographs), net="resnet8:2", image_size=8,
        batch_size=8, epochs=2, pictures_gb=0.0, results_dir=str(tmp_path / "r"),
    )  # fmt: skip
    broken = photographs / "train" / "dog" / "3.jpg"
    damage = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: broken.write_bytes(broken.read_bytes()[:300])
    )
    with pytest.raises(RunFailed, match=r"train/dog/3\.jpg cannot be read as a picture"):
        train.run(load_config(**small), verbose=0, callbacks=[damage])


def test_pictures_on_disk_need_no_memory_in_the_estimate(photographs):
    small = dict(dataset="image_folder", data_dir=str(photographs), net="resnet8:2", steps=1)
    images = 2 * (12 + 7)
    for gb, needed in ((0.0, 0), (1.0, images * 3 * 64 * 64)):
        asked = load_config(**small, pictures_gb=gb)
        assert memory._image_bytes(asked, (64, 64, 3)) == needed
