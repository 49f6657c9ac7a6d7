"""Market-1501 by TensorFlow Datasets; importing this module registers its builder, `market1501`.

Put the official .zip into `FOLDER/downloads/manual`. The builder prepares it on first use, in a
run with `--data_dir=FOLDER`, or by `tfds.load("market1501", data_dir="FOLDER")`. JPEG files are
stored as they are, so a run gets the same pixels as from the official folders.
"""

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dml_tf.data.sources.market1501_tree import (
    FOLDER,
    GALLERY,
    MULTI_QUERY,
    QUERY,
    TRAIN,
    AnyPath,
    Folder,
    ImageName,
    find_tree,
    list_pictures,
)
from dml_tf.data.sources.tfds import find_builder

NAME = "market1501"
SPLITS = {"train": TRAIN, "query": QUERY, "gallery": GALLERY, "gt_bbox": MULTI_QUERY}


class Market1501Builder(tfds.core.GeneratorBasedBuilder):
    """Builder from the manual folder; the splits are the four folders, pids as in the names."""

    name = NAME
    VERSION = tfds.core.Version("15.9.15")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {FOLDER}.zip, as its authors distribute it, or the folder {FOLDER} unpacked from it, "
        "into the manual folder."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,501 people before six cameras, for person re-identification.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "name": tfds.features.Text(),
                    **dict.fromkeys(ImageName._fields, np.int64),
                }
            ),
            homepage="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
            citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        root = find_tree(dl_manager.manual_dir)
        return {split: self._generate_examples(root / folder) for split, folder in SPLITS.items()}

    def _generate_examples(self, folder: AnyPath) -> Iterator[tuple[str, dict]]:
        for path, picture in list_pictures(folder).pictures:
            image = io.BytesIO(path.read_bytes())
            yield path.name, {"image": image, "name": path.name, **picture._asdict()}


class Record(NamedTuple):
    """A picture in TensorFlow Datasets' files, read like a file of its own."""

    place: str
    name: str
    jpeg: bytes

    def read_bytes(self) -> bytes:
        """The picture as the authors encoded it."""
        return self.jpeg

    def __str__(self) -> str:
        """Where the picture is, for messages."""
        return f"{self.place}/{self.name}"


def find_prepared(data_dir: str) -> dict[str, Folder]:
    """The four folders, from files that TensorFlow Datasets has prepared, or else prepares."""
    builder = find_builder(NAME, data_dir)
    if builder.name != NAME:
        raise FileNotFoundError(f"TensorFlow Datasets has {builder.name} in {data_dir}")
    if not builder.is_prepared():
        manual = builder.data_path.parents[1] / "downloads" / "manual"
        try:
            find_tree(manual)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"TensorFlow Datasets has no {NAME} in {builder.data_path.parent}, and no "
                f"{FOLDER}.zip to prepare it from in {manual}"
            ) from None
        builder.download_and_prepare()
    return {folder: _read(builder, split) for split, folder in SPLITS.items()}


def _read(builder: tfds.core.DatasetBuilder, split: str) -> Folder:
    """The pictures of one split, still encoded."""
    place = f"{builder.data_path}/{split}"
    decoders = {"image": tfds.decode.SkipDecoding()}
    examples = builder.as_dataset(split=split, decoders=decoders).as_numpy_iterator()
    pictures = []
    try:
        for example in examples:
            name = ImageName(*(int(example[field]) for field in ImageName._fields))
            pictures.append((Record(place, example["name"].decode(), example["image"]), name))
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{place} is damaged: remove {builder.data_path} and have it prepared again."
        ) from error
    return Folder(place, sorted(pictures, key=lambda item: item[0].name))
