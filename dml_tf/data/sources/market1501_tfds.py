"""Market-1501 for TensorFlow Datasets; importing this module registers it as `market1501`."""

import io
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from dml_tf.data.sources.market1501_tree import (
    FOLDER,
    GALLERY,
    MULTI_QUERY,
    QUERY,
    TRAIN,
    AnyPath,
    find_tree,
    list_pictures,
)


class Market1501Builder(tfds.core.GeneratorBasedBuilder):
    """Builder from the manual folder; the splits are the four folders, pids as in the names.

    Example:
        `tfds.load("market1501", split="train")` after `import dml_tf.data.market1501_tfds`.
    """

    name = "market1501"
    VERSION = tfds.core.Version("15.9.15")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {FOLDER}.zip, as its authors distribute it, or the folder {FOLDER} unpacked from it, "
        "into the manual folder."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        numbers = ("pid", "camid", "sequence", "frame", "box")
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,501 people before six cameras, for person re-identification.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "name": tfds.features.Text(),
                    **dict.fromkeys(numbers, np.int64),
                }
            ),
            homepage="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
            citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        root = find_tree(dl_manager.manual_dir)
        folders = {"train": TRAIN, "query": QUERY, "gallery": GALLERY, "gt_bbox": MULTI_QUERY}
        return {split: self._generate_examples(root / folder) for split, folder in folders.items()}

    def _generate_examples(self, folder: AnyPath) -> Iterator[tuple[str, dict]]:
        for path, picture in list_pictures(folder):
            image = io.BytesIO(path.read_bytes())
            yield path.name, {"image": image, "name": path.name, **picture._asdict()}
