"""Times training batches alone, and compares them with a training step.

Example, from the root of the repository:
  python -m benchmarks.input_pipeline --net=resnet32 --batches=200

Three things are timed: `dml_tf.data.train_batches` on colour images, with each kind of
augmentation; the usual way, a map that pads, crops and flips one image at a time; and one step of a
single network on a prepared batch. The batches should take a small part of a step. A larger cohort
uses the same batches, and its step takes longer.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from benchmarks import harness, step
from dml_tf import networks
from dml_tf.data import Split, Splits, epoch_draws, train_batches
from dml_tf.data.draws import AUGMENTATIONS, crop_pad
from dml_tf.runs import quiet

IMAGES = 10_000
_AT_REST_S = 0.6  # without work: all buffers are full
ONE_BY_ONE = "crop_flip, image by image"
COLUMNS = ("what", "images/s", "CPU, ms a batch", "CPU / a step's")


def main(argv: Sequence[str]):
    """Measures, prints the table and writes the record."""
    args = parse(argv)
    quiet.import_tensorflow(args.threads)
    cpu, wall = measure(args)
    rows = [compare(args, name, cpu, wall) for name in cpu]
    record = harness.record(
        "input_pipeline", argv, args, rows=rows, samples={"cpu_s": cpu, "wall_s": wall}
    )
    tables = [harness.table(COLUMNS, map(_cells, rows))]
    harness.finish(record, "Training batches", tables, args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = harness.parser("input_pipeline", __doc__, repeats=7)
    parser.add_argument("--net", type=harness.network, default="resnet32", help=networks.NAMES)
    parser.add_argument(
        "--batches", type=harness.positive, default=200, help="batches in each repeat"
    )
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> tuple[harness.Samples, harness.Samples]:
    """CPU time and wall-clock, in seconds, of `--batches` batches of each kind, and of one step."""
    splits = noise(args.image_size)
    batches = {
        augment: train_batches(
            splits, SimpleNamespace(batch_size=args.batch_size, augment=augment, seed=0)
        )
        for augment in AUGMENTATIONS
    }
    batches[ONE_BY_ONE] = one_by_one(splits, args.batch_size)
    first = [next(iter(batches[name]))[0] for name in ("crop_flip", ONE_BY_ONE)]
    np.testing.assert_allclose(*first, atol=1e-5)  # both make the same batch
    contenders = {
        name: partial(timed, iter(dataset), args.batches) for name, dataset in batches.items()
    }
    call = step.contender(args, 1, step.make_batch(args), "independent")
    contenders[f"a step of {args.net}"] = step.timed(call)
    return harness.in_turns(contenders, args.repeats)


def noise(size: int) -> Splits:
    """Images of noise: what images show does not change the time."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    split = Split(pixels, rng.integers(0, 10, IMAGES))
    half = np.full(3, 0.5, np.float32)
    return Splits("noise", split, None, split, 10, tuple("0123456789"), half, half)


def one_by_one(splits: Splits, batch_size: int) -> tf.data.Dataset:
    """The batches of `crop_flip`, made one image at a time."""
    images, labels = tf.constant(splits.train.images), tf.constant(splits.train.labels)
    size = images.shape[1]
    pad = crop_pad(size)

    def augmented(index, top, left, flip):
        padded = tf.pad(images[index], ((pad, pad), (pad, pad), (0, 0)), mode="REFLECT")
        cut = tf.image.crop_to_bounding_box(padded, top, left, size, size)
        cut = tf.cond(flip, lambda: cut[:, ::-1], lambda: cut)
        return (tf.cast(cut, tf.float32) / 255 - splits.mean) / splits.std, labels[index]

    draws = epoch_draws(0, 0, images=IMAGES, batch_size=batch_size, augment="crop_flip", pad=pad)
    places = tf.data.Dataset.from_tensor_slices(tuple(array.ravel() for array in draws))
    return places.repeat().map(augmented).batch(batch_size, drop_remainder=True).prefetch(2)


def timed(stream: Iterator, batches: int) -> tuple[float, float]:
    """Time of so many batches, until as many are prefetched again as there were before."""
    cpu, wall = time.process_time(), time.perf_counter()
    draw(stream, batches)
    end_cpu, end_wall = time.process_time(), time.perf_counter()
    while time.perf_counter() - end_wall < _AT_REST_S:
        time.sleep(0.02)
        now = time.process_time()
        if now - end_cpu > 0.01:
            end_cpu, end_wall = now, time.perf_counter()
    return end_cpu - cpu, end_wall - wall


def draw(stream: Iterator, batches: int):
    """Takes the next batches."""
    for _ in range(batches):
        next(stream)


def compare(
    args: argparse.Namespace, name: str, cpu: harness.Samples, wall: harness.Samples
) -> dict:
    """Row of the table: medians for one batch, and the median ratio within a repeat."""
    *_, whole_step = cpu
    batches = 1 if name == whole_step else args.batches
    return {
        "contender": name,
        "images_per_s": args.batch_size * batches / harness.median(wall[name]),
        "cpu_s": harness.median(cpu[name]) / batches,
        "cpu_ratio_to_step": harness.median(harness.ratios(cpu, name, whole_step)) / batches,
    }


def _cells(row: dict) -> list[str]:
    return [
        row["contender"],
        f"{row['images_per_s']:,.0f}",
        f"{1000 * row['cpu_s']:.2f}",
        f"{row['cpu_ratio_to_step']:.4f}",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
