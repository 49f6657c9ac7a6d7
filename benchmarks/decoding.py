"""Times the decoding of pictures that stay on disk, beside the bare decode of `tf.data`.

Example, from the root of the repository:
  python -m benchmarks.decoding --out=results/benchmarks/decoding.json

Generated pictures of ImageNet's usual size (500x375, about 100 kB as JPEG) stand in class folders,
and one after the other in one file, as TensorFlow Datasets keeps them: there we read each from its
place, and official tar files are prepared that way. Pictures of Market-1501's size (128x64) are
files, too. Batches for 224x224 of `dml_tf.data.train_batches`, with the augmentation of the paper's
settings, are compared with

- bare tf.data: each file is read, decoded, resized and normalised; no augmentation, and in order;
- PyTorch: its DataLoader with torchvision's transforms, in this process: a random resized crop
  (Market-1501: the whole picture) and a flip of each picture. Where torchvision is not installed,
  Pillow does the same, without the DataLoader.

Market-1501 is decoded before the training, to 160x64; its batches are resized only. `flat` reads
small pictures through the pipeline of ImageNet and prints how far its memory grows.
"""

import argparse
import importlib.util
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks import harness
from benchmarks.input_pipeline import draw, timed
from benchmarks.memory import resident
from dml_tf.data import Split, Splits, train_batches
from dml_tf.data.draws import random_window
from dml_tf.data.pictures import cut
from dml_tf.data.sources.market1501 import decode
from dml_tf.data.stored import Pictures, StoredImages
from dml_tf.runs import quiet

SIZE = 224
FILES = 256  # pictures of each kind
BARE, PILLOW, TORCH = "bare tf.data", "Pillow, one by one", "PyTorch, torchvision"
COLUMNS = ("pictures", "pipeline", "images/s", "CPU, ms an image", "CPU / bare tf.data")
_HALF = np.full(3, 0.5, np.float32)


def main(argv: Sequence[str]):
    """Measures, prints the tables and writes the record."""
    args = parse(argv)
    quiet.import_tensorflow(args.threads)
    rows, samples = [], {}
    with tempfile.TemporaryDirectory(prefix="decoding") as folder:
        for kind, make in KINDS.items():
            contenders = {
                name: partial(timed, stream, args.batches)
                for name, stream in make(Path(folder), args.batch_size).items()
            }
            cpu, wall = harness.in_turns(contenders, args.repeats)
            rows += [compare(args, kind, name, cpu, wall) for name in cpu]
            samples[kind] = {"cpu_s": cpu, "wall_s": wall}
        grown = growth(Path(folder), args.flat)
    record = harness.record(
        "decoding", argv, args, rows=rows, samples=samples, growth_mb=grown, bytes=SIZES
    )
    lines = [harness.table(COLUMNS, map(_cells, rows))]
    lines.append(
        f"Memory after {args.flat // 10:,} and after {args.flat:,} small pictures by ImageNet's "
        f"pipeline differs by {grown:+.1f} MB.\n"
    )
    harness.finish(record, "Pictures on disk", lines, args.out)


SIZES: dict[str, int] = {}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("decoding", __doc__, repeats=5)
    parser.set_defaults(image_size=SIZE, batch_size=32)
    parser.add_argument("--batches", type=harness.positive, default=6, help="in each repeat")
    parser.add_argument("--flat", type=harness.positive, default=100_000, help="small pictures")
    args = parser.parse_args(argv)
    if args.image_size != SIZE:
        parser.error(f"--image_size: pictures are decoded to {SIZE} pixels")
    return args


def photographs(count: int, height: int, width: int, detail: float = 9.0) -> list[bytes]:
    """Pictures with shapes and some grain, as many bytes a pixel as photographs have."""
    rng, encoded = np.random.default_rng(0), []
    for _ in range(count):
        rough = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        smooth = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.normal(0, detail, (height, width, 1))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


def imagenet(root: Path, batch_size: int) -> dict[str, Iterator]:
    """Streams of batches of ImageNet's sizes."""
    paths, encoded = _write(root / "imagenet", 375, 500)
    offsets = np.cumsum([0, *map(len, encoded)])
    whole = root / "imagenet.tfrecord"
    whole.write_bytes(b"".join(encoded))
    ranges = np.stack([0 * offsets[:-1], offsets[:-1], np.diff(offsets)], axis=1).astype(np.int64)
    records = Pictures(np.array([str(whole).encode()]), ranges, SIZE)
    asked = SimpleNamespace(batch_size=batch_size, augment="inception", seed=0)
    return {
        BARE: _bare(paths, batch_size),
        "dml_tf, folders": iter(train_batches(_splits(Pictures.of_files(paths, SIZE)), asked)),
        "dml_tf, records": iter(train_batches(_splits(records), asked)),
        **_elsewhere(paths, batch_size, _random_crop),
    }


def market1501(root: Path, batch_size: int) -> dict[str, Iterator]:
    """Streams of batches of Market-1501's size, for 224x224."""
    paths, _ = _write(root / "market1501", 128, 64)
    images = StoredImages(decode(paths, (160, 64)), (SIZE, SIZE))
    asked = SimpleNamespace(batch_size=batch_size, augment="flip", seed=0)
    return {
        BARE: _bare(paths, batch_size),
        "dml_tf, from memory": iter(train_batches(_splits(images), asked)),
        **_elsewhere(paths, batch_size, _whole),
    }


KINDS = {"ImageNet": imagenet, "Market-1501": market1501}


def _write(folder: Path, height: int, width: int) -> tuple[list[Path], list[bytes]]:
    folder.mkdir()
    encoded = photographs(FILES, height, width)
    SIZES[folder.name] = round(np.mean([len(data) for data in encoded]))
    paths = [folder / f"{number}.jpg" for number in range(FILES)]
    for path, data in zip(paths, encoded, strict=True):
        path.write_bytes(data)
    return paths, encoded


def _splits(images: Pictures | StoredImages) -> Splits:
    split = Split(images, np.zeros(images.shape[0], np.int64))
    return Splits("noise", split, None, split, 10, tuple("0123456789"), _HALF, _HALF)


def _bare(paths: Sequence[Path], batch_size: int) -> Iterator:
    """Decodes whole pictures in order, with tf.data's own operations."""

    def decoded(path):
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(pixels, (SIZE, SIZE)) / 127.5 - 1, tf.constant(0, tf.int64)

    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths]).repeat()
    images = files.map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(images.batch(batch_size, drop_remainder=True).prefetch(2))


def _elsewhere(paths: Sequence[Path], batch_size: int, change: Callable) -> dict[str, Iterator]:
    """The stream of PyTorch, or of Pillow where PyTorch and torchvision are not installed."""
    if not importlib.util.find_spec("torchvision"):
        return {PILLOW: _pillow(paths, batch_size, change)}
    return {TORCH: _torchvision(paths, batch_size, in_windows=change is _random_crop)}


def _torchvision(paths: Sequence[Path], batch_size: int, in_windows: bool) -> Iterator:
    """Batches of PyTorch's DataLoader, in its order and with its draws."""
    import torch
    from torchvision import transforms

    torch.set_num_threads(1)
    size = transforms.RandomResizedCrop(SIZE) if in_windows else transforms.Resize((SIZE, SIZE))
    change = transforms.Compose(
        [size, transforms.RandomHorizontalFlip(), transforms.ToTensor(),
         transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )  # fmt: skip

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, number):
            with Image.open(paths[number]) as picture:
                return change(picture.convert("RGB")), 0

    loader = torch.utils.data.DataLoader(Files(), batch_size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def _pillow(
    paths: Sequence[Path], batch_size: int, change: Callable[[Image.Image, int], np.ndarray]
) -> Iterator:
    """Batches whose pictures are decoded and changed one after the other."""
    number = 0
    while True:
        pixels = []
        for _ in range(batch_size):
            image = change(Image.open(paths[number % len(paths)]), number)
            pixels.append(image.astype(np.float32) / 127.5 - 1)
            number += 1
        yield np.stack(pixels)


def _random_crop(picture: Image.Image, number: int) -> np.ndarray:
    window = random_window(0, 0, number, height=picture.height, width=picture.width)
    return cut(picture, window, SIZE)


def _whole(picture: Image.Image, number: int) -> np.ndarray:
    pixels = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if number % 2 else pixels


def growth(root: Path, count: int) -> float:
    """MB by which resident memory grows from a tenth to all of so many small pictures."""
    folder = root / "small"
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(1000)]
    for path, data in zip(paths, photographs(1000, 32, 32), strict=True):
        path.write_bytes(data)
    pictures = Pictures.of_files([paths[i % 1000] for i in range(count)], 32)
    asked = SimpleNamespace(batch_size=100, augment="inception", seed=0)
    stream = iter(train_batches(_splits(pictures), asked))
    batches = count // 100
    draw(stream, batches // 10)
    before = resident("VmRSS")
    draw(stream, batches - batches // 10)
    return (resident("VmRSS") - before) / 1e6


def compare(
    args: argparse.Namespace, kind: str, name: str, cpu: harness.Samples, wall: harness.Samples
) -> dict:
    """Row of the table: medians for one image, and the median ratio within a repeat."""
    images = args.batch_size * args.batches
    return {
        "pictures": kind,
        "contender": name,
        "images_per_s": images / harness.median(wall[name]),
        "cpu_s": harness.median(cpu[name]) / images,
        "cpu_ratio_to_bare": harness.median(harness.ratios(cpu, name, BARE)),
    }


def _cells(row: dict) -> list[str]:
    return [
        row["pictures"],
        row["contender"],
        f"{row['images_per_s']:,.0f}",
        f"{1000 * row['cpu_s']:.2f}",
        f"{row['cpu_ratio_to_bare']:.2f}",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
