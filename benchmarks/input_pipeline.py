"""The cost of the training batches alone: images a second, and CPU time a batch of 64.

`dml_tf.data.train_batches` on 32 by 32 colour images with each kind of augmentation, against the
usual way, a map that pads, crops and flips one image after the other by the same draws. Medians
over interleaved repeats, on one thread.

    python -m benchmarks.input_pipeline [--repeats=7] [--batches=200]
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from benchmarks import harness
from dml_tf import startup
from dml_tf.data import Split, Splits, epoch_draws, train_batches
from dml_tf.data.draws import AUGMENTATIONS
from dml_tf.train import machine

IMAGES, SIZE, BATCH, PAD = 10_000, 32, 64, 4


def made_up_splits() -> Splits:
    """Images of noise: what they show costs nothing and changes nothing."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    split = Split(pixels, rng.integers(0, 10, IMAGES))
    half = np.full(3, 0.5, np.float32)
    return Splits("noise", split, None, split, 10, tuple("0123456789"), half, half)


def one_by_one(splits: Splits) -> tf.data.Dataset:
    """The batches of `crop_flip`, each image on its own."""
    images, labels = tf.constant(splits.train.images), tf.constant(splits.train.labels)

    def augmented(index, top, left, flip):
        padded = tf.pad(images[index], ((PAD, PAD), (PAD, PAD), (0, 0)), mode="REFLECT")
        cut = tf.image.crop_to_bounding_box(padded, top, left, SIZE, SIZE)
        cut = tf.cond(flip, lambda: cut[:, ::-1], lambda: cut)
        return (tf.cast(cut, tf.float32) / 255 - splits.mean) / splits.std, labels[index]

    draws = epoch_draws(0, 0, images=IMAGES, batch_size=BATCH, augment="crop_flip", pad=PAD)
    places = tf.data.Dataset.from_tensor_slices(tuple(array.ravel() for array in draws))
    return places.repeat().map(augmented).batch(BATCH, drop_remainder=True).prefetch(2)


def draw(stream, batches: int) -> None:
    """Takes the next batches."""
    for _ in range(batches):
        next(stream)


def main(argv: Sequence[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=harness.positive, default=7)
    parser.add_argument("--batches", type=harness.positive, default=200, help="in each repeat")
    arguments = parser.parse_args(argv)
    startup.import_tensorflow(threads=1)
    splits = made_up_splits()
    datasets = {
        augment: train_batches(splits, SimpleNamespace(batch_size=BATCH, augment=augment, seed=0))
        for augment in AUGMENTATIONS
    }
    datasets["crop_flip, image by image"] = one_by_one(splits)
    first = [next(iter(datasets[name]))[0] for name in ("crop_flip", "crop_flip, image by image")]
    np.testing.assert_allclose(*first, atol=1e-5)  # Both do the same work.
    streams = {name: iter(dataset) for name, dataset in datasets.items()}
    calls = {name: partial(draw, stream, arguments.batches) for name, stream in streams.items()}
    contenders = {name: partial(harness.timed, call) for name, call in calls.items()}
    times = harness.in_turns(contenders, arguments.repeats)
    print(f"{machine()}, one thread, TensorFlow {tf.__version__}.\n")
    rows = []
    for name in streams:
        cpu, wall = (harness.median(clock[name]) / arguments.batches for clock in times)
        rows.append((name, f"{BATCH / wall:,.0f}", f"{1000 * cpu:.2f}"))
    print(harness.table(("augmentation", "images/s", f"CPU ms a batch of {BATCH}"), rows))


if __name__ == "__main__":
    main(sys.argv[1:])
