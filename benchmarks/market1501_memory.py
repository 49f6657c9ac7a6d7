"""Measures the peak host memory of a run on Market-1501 at its real number of pictures; Linux only.

Example, from the root of the repository:
  python -m benchmarks.market1501_memory --out=results/benchmarks/market1501_memory.json

Noise as JPEG files of 64x128, as large and as many as the real ones and with names like theirs,
goes into a temporary folder. A new process then does what a run does, with the settings of
flags/market1501.flags: it loads all pictures, trains a few steps, and tests on a few batches of
each part. The figures are peaks of the whole process, TensorFlow included. More steps or batches
need no more memory, but for the features of the other test pictures, 4 kB each for a MobileNet.
"""

import argparse
import io
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import harness
from benchmarks.memory import resident
from dml_tf.data.sources.market1501_tree import GALLERY, MULTI_QUERY, QUERY, TRAIN
from dml_tf.runs import quiet, records

# Folder -> its published numbers of pictures and of identities.
REAL = {
    TRAIN: (12936, 751), QUERY: (3368, 750), GALLERY: (19732, 750), MULTI_QUERY: (25259, 750),
}  # fmt: skip
CAMERAS = 6
DISTINCT = 64  # pictures that are encoded; the files repeat them


def main(argv: Sequence[str]):
    """Generates the files, measures, prints the table and writes the record."""
    args = parse(argv)
    counts = {folder: max(8, int(count * args.share)) for folder, (count, _) in REAL.items()}
    with tempfile.TemporaryDirectory(prefix="market1501") as folder:
        write(Path(folder), counts)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows = process.submit(measure, args, folder).result()
    record = harness.record("market1501_memory", argv, args, pictures=counts, rows=rows)
    print(f"{sum(counts.values()):,} pictures. {record['machine']}")
    print(harness.table(("after", "peak, GB"), ((r["after"], f"{r['peak_gb']:.2f}") for r in rows)))
    if args.out:
        records.write(record, args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.market1501_memory", description=__doc__, formatter_class=harness.Help
    )
    parser.add_argument("--net", type=harness.network, default="mobilenet", help="of every peer")
    parser.add_argument("--cohort", type=harness.positive, default=2, help="number of peers")
    parser.add_argument("--share", type=float, default=1.0, help="of the real number of pictures")
    parser.add_argument("--steps", type=harness.positive, default=2, help="training steps")
    parser.add_argument("--batches", type=harness.positive, default=2, help="tested, of each part")
    parser.add_argument("--threads", type=harness.positive, default=2, help="of TensorFlow")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args(argv)


def write(root: Path, counts: Mapping[str, int]):
    """Writes the four folders; a query's identity and camera are also in `gt_bbox`."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (DISTINCT, 128, 64, 3), np.uint8)
    encoded = [_jpeg(pixels) for pixels in noise]
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        first = int(folder == "bounding_box_test")  # its pictures are by other cameras
        for number, name in enumerate(_names(count, REAL[folder][1], first)):
            (root / folder / name).write_bytes(encoded[number % DISTINCT])


def _names(count: int, identities: int, first: int) -> Iterator[str]:
    """File names that go through the identities, and with each round to the next camera."""
    for number in range(count):
        rounds, pid = divmod(number, identities)
        yield f"{pid + 1:04d}_c{(first + rounds) % CAMERAS + 1}s1_{rounds:06d}_01.jpg"


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def measure(args: argparse.Namespace, folder: str) -> list[dict]:
    """Peak memory of this process, GB of 10^9 bytes, after each part of a run."""
    quiet.import_tensorflow(args.threads)
    from dml_tf import data
    from dml_tf.measures import evaluate
    from dml_tf.runs import build, config

    rows = []

    def note(after: str):
        rows.append({"after": after, "peak_gb": resident("VmHWM") / 1e9})

    note("importing TensorFlow")
    asked = config.load(
        dataset="market1501", net=(args.net,), cohort=args.cohort, data_dir=folder,
        steps=args.steps, results_dir=folder,
    )  # fmt: skip
    splits = build.load_data(asked)
    note("loading all pictures")
    cohort = build.build_cohort(asked, splits)
    batches = data.train_batches(splits, asked)
    cohort.fit(batches, steps_per_epoch=args.steps, shuffle=False, verbose=0)
    note("training")
    _predict(cohort, splits.train, splits, args.batches)
    note("measuring training pictures")
    for part in evaluate.PARTS:
        images = getattr(splits.reid, part)
        model = evaluate.extractor(cohort.networks[0], cohort.peer_names[0])
        _predict(model, data.Split(images.images, images.pids), splits, args.batches)
    note("extracting features of all parts")
    return rows


def _predict(model, split, splits, count: int):
    """Predicts a few of a split's batches, which hold all of its pictures."""
    from dml_tf import data

    batches = data.eval_batches(split, splits, 256).take(count)
    model.predict(batches.map(lambda images, _: images), verbose=0)


if __name__ == "__main__":
    main(sys.argv[1:])
