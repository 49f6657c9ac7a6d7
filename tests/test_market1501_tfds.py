import atexit
import io
import tempfile
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dml_tf.data.sources import market1501_tree as tree
from dml_tf.data.sources.market1501_tfds import Market1501Builder

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
