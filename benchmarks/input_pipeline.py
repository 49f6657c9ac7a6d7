"""The cost of the training batches alone: images a second, and CPU time a batch of 64.

`dml_tf.data.train_batches` on 32 by 32 colour images with each kind of augmentation, against the
usual way, a map that pads, crops and flips one image after the other by the same draws. Medians
over interleaved repeats, on one thread.

    python -m benchmarks.input_pipeline [--repeats=7] [--batches=200]
"""

import argparse
import time
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

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


def measure(stream, batches: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds of the next batches."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        next(stream)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, default=200, help="batches in each repeat")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    splits = made_up_splits()
    datasets = {
        augment: train_batches(splits, SimpleNamespace(batch_size=BATCH, augment=augment, seed=0))
        for augment in AUGMENTATIONS
    }
    datasets["crop_flip, image by image"] = one_by_one(splits)
    first = [next(iter(datasets[name]))[0] for name in ("crop_flip", "crop_flip, image by image")]
    np.testing.assert_allclose(*first, atol=1e-5)  # Both do the same work.
    streams = {name: iter(dataset) for name, dataset in datasets.items()}
    times = {name: [] for name in streams}
    for stream in streams.values():
        measure(stream, 10)
    for _ in range(arguments.repeats):
        for name, stream in streams.items():
            times[name].append(measure(stream, arguments.batches))
    print(f"{machine()}, one thread, TensorFlow {tf.__version__}.\n")
    print("| augmentation | images/s | CPU ms a batch of 64 |")
    print("|---|---|---|")
    for name, measured in times.items():
        wall, cpu = np.median(measured, axis=0) / arguments.batches
        print(f"| {name} | {BATCH / wall:,.0f} | {1000 * cpu:.2f} |")


if __name__ == "__main__":
    main()
