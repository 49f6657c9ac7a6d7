"""The CIFAR-10 photographs from their JPEG copy, packed or not."""

import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from dml_tf.data.sources import jpeg_copy
from dml_tf.export.folder import Export, describe
from dml_tf.runs import config


def make_jpeg_copy(root):
    colours = np.arange(6, dtype=np.uint8) * 40
    for i, colour in enumerate(colours):
        file = root / "train" / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), colour)).save(file, quality=95)
    with tarfile.open(root / "copy.tar.xz", "w:xz") as archive:
        archive.add(root / "train", "train")
    return colours


def test_the_jpeg_copy_is_read_in_the_order_of_the_official_layout(tmp_path):
    colours = make_jpeg_copy(tmp_path)
    order = [0, 2, 4, 1, 3, 5]  # by class, then by name
    random.Random(0).shuffle(order)
    for place in (tmp_path, tmp_path / "copy.tar.xz"):
        assert jpeg_copy.is_jpeg_copy(place)
        source = jpeg_copy.load_jpeg_copy(place)
        assert source.train.labels.tolist() == [i % 2 for i in order]
        assert source.train.images.shape == (6, 32, 32, 3)
        found = source.train.images.astype(int)[:, 0, 0, 0]
        np.testing.assert_allclose(found, colours[order].astype(int), atol=2)
    assert not jpeg_copy.is_jpeg_copy(tmp_path / "train")


def test_an_exported_run_takes_the_jpeg_copy_but_no_other_images(tmp_path):
    make_jpeg_copy(tmp_path)
    settings = config.load(dataset="cifar10", net=("resnet8",))
    train = jpeg_copy.load_jpeg_copy(tmp_path).train
    described = describe(train) | {"pixels_sha256": "of another decoder"}
    export = Export(tmp_path, {"images": described}, settings)
    found = export.training_set(tmp_path / "copy.tar.xz")
    np.testing.assert_array_equal(found.images, train.images)
    described["labels_sha256"] = "of another order"
    with pytest.raises(ValueError, match="labels differ"):
        export.training_set(tmp_path)


def test_a_damaged_photograph_is_named(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="train/a/0.jpg cannot be read"):
        jpeg_copy.load_jpeg_copy(tmp_path)
