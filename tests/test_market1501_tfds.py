"""Market-1501 by TensorFlow Datasets: the builder, and runs on the data that it has prepared."""

import atexit
import io
import re
import shutil
import tempfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from dml_tf import data
from dml_tf.data.generated import pedestrians
from dml_tf.data.sources import market1501_tree as tree
from dml_tf.data.sources.market1501_tfds import Market1501Builder
from dml_tf.runs import config, train

PICTURES = {
    tree.TRAIN: ["0002_c1s1_000451_03.jpg", "0007_c2s1_000551_01.jpg.jpg"],
    tree.QUERY: ["0001_c1s1_001051_00.jpg"],
    tree.GALLERY: [
        "-1_c1s1_000401_03.jpg",
        "0000_c1s6_023071_04.jpg",
        "0001_c2s1_000301_01.jpg",
    ],
    tree.MULTI_QUERY: ["0001_c1s1_001051_00.jpg", "0001_c1s1_001076_00.jpg"],
}


def write_archive(folder):
    rng = np.random.default_rng(0)
    packed = {}
    with zipfile.ZipFile(f"{folder}/{tree.FOLDER}.zip", "w") as archive:
        for part, names in PICTURES.items():
            for name in names:
                picture = Image.fromarray(rng.integers(0, 256, (128, 64, 3), np.uint8))
                content = io.BytesIO()
                picture.save(content, "JPEG")
                packed.setdefault(name, content.getvalue())  # the same picture in two folders
                archive.writestr(f"{tree.FOLDER}/{part}/{name}", packed[name])


class Market1501BuilderTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Market1501Builder
    SPLITS = {"train": 2, "query": 1, "gallery": 3, "gt_bbox": 2}
    OVERLAPPING_SPLITS = ["gt_bbox"]

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        cls.EXAMPLE_DIR = folder.name
        write_archive(folder.name)
        super().setUpClass()


def test_examples_hold_what_the_names_say(tmp_path):
    manual = tmp_path / "manual"
    manual.mkdir()
    write_archive(manual)
    builder = tfds.builder("market1501", data_dir=tmp_path / "data")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual),
    )
    gallery = {e["name"].decode(): e for e in tfds.as_numpy(builder.as_dataset(split="gallery"))}
    assert sorted(gallery) == PICTURES[tree.GALLERY]
    example = gallery["0000_c1s6_023071_04.jpg"]
    numbers = [int(example[key]) for key in ("pid", "camid", "sequence", "frame", "box")]
    assert numbers == [0, 1, 6, 23071, 4]
    assert example["image"].shape == (128, 64, 3)


# Runs on prepared data

SIZES = pedestrians.Sizes(train_identities=3, test_identities=3, distractors=2, junk=2)
COUNTS = "not Market-1501 as it was published"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A small data set in the official layout."""
    folder = tmp_path_factory.mktemp("official") / tree.FOLDER
    pedestrians.write(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def prepared(official, tmp_path_factory):
    """A folder of TensorFlow Datasets that has the same data, prepared, and nothing official."""
    root = tmp_path_factory.mktemp("tfds")
    tfds.builder("market1501", data_dir=root).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=official.parent)
    )
    return root


def settings(data_dir):
    return SimpleNamespace(
        dataset="market1501", data_dir=str(data_dir), image_size=(48, 24), seed=0,
        labelled_identities=2, unlabelled="use",
    )  # fmt: skip


def load(data_dir):
    with pytest.warns(UserWarning, match=COUNTS):
        return data.load(settings(data_dir))


def assert_equal(ours, official):
    assert ours.train.digest == official.train.digest
    np.testing.assert_array_equal(ours.train.images, official.train.images)
    np.testing.assert_array_equal(ours.train.labels, official.train.labels)
    np.testing.assert_array_equal(ours.reid.class_pids, official.reid.class_pids)
    for part in ("query", "gallery", "multi_query"):
        one, other = getattr(ours.reid, part), getattr(official.reid, part)
        assert one.names == other.names
        for array in ("images", "pids", "camids"):
            np.testing.assert_array_equal(getattr(one, array), getattr(other, array))


@pytest.mark.parametrize("place", ["folder", "folder of the version", "default folder"])
def test_prepared_data_is_bit_equal_to_the_official_folders(place, official, prepared, monkeypatch):
    data_dir = prepared
    if place == "folder of the version":
        data_dir = prepared / "market1501" / "15.9.15"
    if place == "default folder":
        monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared))
        data_dir = ""
    assert_equal(load(data_dir), load(official))


def test_the_official_files_take_precedence(official, tmp_path):
    (tmp_path / "market1501" / "15.9.15").mkdir(parents=True)
    (tmp_path / "market1501" / "15.9.15" / "dataset_info.json").write_text("not read")
    (tmp_path / tree.FOLDER).symlink_to(official)
    assert_equal(load(tmp_path), load(official))


def test_data_in_the_manual_folder_is_prepared_on_first_use(official, tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / tree.FOLDER).symlink_to(official)
    first = load(tmp_path)
    (manual / tree.FOLDER).unlink()
    assert_equal(load(tmp_path), first)
    assert_equal(first, load(official))


def test_a_run_trains_on_prepared_data_as_on_the_official_folders(
    official, prepared, tmp_path, capsys
):
    records = []
    for name, place in (("official", official), ("prepared", prepared)):
        asked = config.load(
            dataset="market1501", data_dir=str(place), net=("resnet8:4",), image_size=(32, 16),
            steps=2, batch_size=8, results_dir=str(tmp_path / name),
        )  # fmt: skip
        records.append(train.run(asked, verbose=0))
        assert re.search(COUNTS, capsys.readouterr().err)
    assert records[0]["history"] == records[1]["history"]
    assert records[0]["test"] == records[1]["test"]


def test_damaged_and_foreign_files_are_refused(prepared, tmp_path):
    copy = tmp_path / "tfds"
    shutil.copytree(prepared, copy)
    shard = next(copy.glob("market1501/*/*query.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match="query is damaged: remove"):
        data.load(settings(copy))
    info = shard.with_name("dataset_info.json")
    info.write_text(info.read_text().replace('"market1501"', '"mnist"'))
    with pytest.raises(FileNotFoundError, match="TensorFlow Datasets has mnist in"):
        data.load(settings(shard.parent))
