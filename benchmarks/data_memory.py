"""Measures the peak host memory of a run on many generated pictures; Linux only.

Examples, from the root of the repository:
  python -m benchmarks.data_memory --out=results/benchmarks/data_memory.json
  python -m benchmarks.data_memory --dataset=market1501 --net=mobilenet

Noise as JPEG files goes into a temporary folder: for `image_folder` 100,000 files of 64x64 in ten
classes, a tenth of them to test; for `market1501` files of 64x128, as large and as many as the real
ones and with names like theirs. A new process then does what a run does, with the settings of the
data set's flag file. On `image_folder` it is a whole run of a few steps: the pictures are
recognised, looked at, trained on, and all measured. On `market1501` all pictures are loaded, and
trained and tested on a few batches of each part; more need no more memory, but for the features of
the other test pictures, 4 kB each for a MobileNet. The figures are peaks of the whole process.
"""

import argparse
import io
import multiprocessing
import sys
import tempfile
import time
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
FOLDERS = {"train": 90_000, "test": 10_000}
CLASSES = 10
DISTINCT = 64  # pictures that are encoded; the files repeat them, each with an end of its own
COLUMNS = ("after", "peak, GB", "minus TensorFlow's import, GB", "s")


def main(argv: Sequence[str]):
    """Generates the files, measures, prints the table and writes the record."""
    args = parse(argv)
    write, measure = KINDS[args.dataset]
    real = {part: count for part, (count, _) in REAL.items()}
    counts = real if args.dataset == "market1501" else FOLDERS
    counts = {part: max(8, int(count * args.share)) for part, count in counts.items()}
    with tempfile.TemporaryDirectory(prefix=args.dataset) as folder:
        write(Path(folder), counts)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows = process.submit(measure, args, folder).result()
    record = harness.record("data_memory", argv, args, pictures=counts, rows=rows)
    printed = [
        f"{sum(counts.values()):,} pictures, {args.cohort} x {args.net}. {record['machine']}.\n",
        harness.table(COLUMNS, (_cells(row, rows[0]) for row in rows)),
        f"    {record['command']}",
    ]
    print("\n".join(printed))
    if args.out:
        records.write(record | {"printed": "\n".join(printed).splitlines()}, args.out)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.data_memory", description=__doc__, formatter_class=harness.Help
    )
    parser.add_argument("--dataset", choices=KINDS, default="image_folder")
    parser.add_argument("--net", type=harness.network, default="resnet8:4", help="of every peer")
    parser.add_argument("--cohort", type=harness.positive, default=2, help="number of peers")
    parser.add_argument("--share", type=float, default=1.0, help="of the number of pictures")
    parser.add_argument("--steps", type=harness.positive, default=2, help="training steps")
    parser.add_argument(
        "--batches", type=harness.positive, default=2, help="market1501: tested, of each part"
    )
    parser.add_argument("--threads", type=harness.positive, default=2, help="of TensorFlow")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args(argv)


def write_folder(root: Path, counts: Mapping[str, int]):
    """Writes class folders with as many pictures of each class."""
    encoded = _noise(64, 64)
    for part, count in counts.items():
        for number in range(count):
            folder = root / part / f"class{number % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            content = encoded[number % DISTINCT] + f"{part}{number}".encode()
            (folder / f"{number:06d}.jpg").write_bytes(content)


def write_market1501(root: Path, counts: Mapping[str, int]):
    """Writes the four folders; a query's identity and camera are also in `gt_bbox`."""
    encoded = _noise(128, 64)
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


def _noise(height: int, width: int) -> list[bytes]:
    rng, encoded = np.random.default_rng(0), []
    for pixels in rng.integers(0, 256, (DISTINCT, height, width, 3), np.uint8):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return encoded


class Notes:
    """The rows of the table: peak memory of this process, GB of 10^9 bytes, and seconds."""

    def __init__(self):
        self.rows: list[dict] = []
        self._started = time.perf_counter()

    def note(self, after: str):
        """Adds a row."""
        now = time.perf_counter()
        # Linux reports the peak only to within some hundred kB: a later reading may be lower.
        peak = max([resident("VmHWM") / 1e9, *(row["peak_gb"] for row in self.rows)])
        row = {"after": after, "peak_gb": peak, "s": now - self._started}
        self.rows.append(row)
        self._started = now


def measure_folder(args: argparse.Namespace, folder: str) -> list[dict]:
    """A run on class folders, from recognising the files to the record."""
    quiet.import_tensorflow(args.threads)
    import keras

    from dml_tf.runs import config, train

    found = Notes()
    found.note("importing TensorFlow")
    asked = config.load(
        dataset="image_folder", net=(args.net,), cohort=args.cohort, data_dir=folder, epochs=0,
        steps=args.steps, results_dir=f"{folder}/results",
    )  # fmt: skip
    noted = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: found.note("recognising and decoding all pictures"),
        on_train_end=lambda logs: found.note(f"training ({args.steps} steps)"),
    )
    train.run(asked, verbose=0, callbacks=[noted])
    found.note("measuring all pictures, record and model")
    return found.rows


def measure_market1501(args: argparse.Namespace, folder: str) -> list[dict]:
    """The parts of a run on Market-1501."""
    quiet.import_tensorflow(args.threads)
    from dml_tf import data
    from dml_tf.measures import evaluate
    from dml_tf.runs import build, config

    found = Notes()
    found.note("importing TensorFlow")
    asked = config.load(
        dataset="market1501", net=(args.net,), cohort=args.cohort, data_dir=folder,
        steps=args.steps, results_dir=folder,
    )  # fmt: skip
    splits = build.load_data(asked)
    found.note("loading all pictures")
    cohort = build.build_cohort(asked, splits)
    batches = data.train_batches(splits, asked)
    cohort.fit(batches, steps_per_epoch=args.steps, shuffle=False, verbose=0)
    found.note(f"training ({args.steps} steps)")
    _predict(cohort, splits.train, splits, args.batches)
    found.note("measuring training pictures")
    model = evaluate.extractor(cohort.peer_names, cohort.networks)
    for part in evaluate.PARTS:
        images = getattr(splits.reid, part)
        _predict(model, data.Split(images.images, images.pids), splits, args.batches)
    found.note("extracting features of all parts")
    return found.rows


def _predict(model, split, splits, count: int):
    """Predicts a few of a split's batches, which hold all of its pictures."""
    from dml_tf import data

    batches = data.eval_batches(split, splits).take(count)
    model.predict(batches.map(lambda images, _: images), verbose=0)


def _cells(row: dict, first: dict) -> list[str]:
    above = row["peak_gb"] - first["peak_gb"]
    return [row["after"], f"{row['peak_gb']:.2f}", f"{above:.2f}", f"{row['s']:.0f}"]


KINDS = {
    "image_folder": (write_folder, measure_folder),
    "market1501": (write_market1501, measure_market1501),
}

if __name__ == "__main__":
    main(sys.argv[1:])
