"""Folders of one's own pictures: formats, the split of a flat tree, where results go."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dml_tf import home
from dml_tf.data import load
from dml_tf.data.pictures import read_rgb, readable_suffixes
from dml_tf.errors import DataWarning
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
