"""Shows what trained networks say about pictures.

For each picture: the most probable classes of each network and of the ensemble. With --gallery, a
run of re-identification ranks the pictures of a folder by their likeness to a query.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dml_tf.data import STREAMED_DATASETS
from dml_tf.errors import FlagError, exit_status
from dml_tf.runs import quiet
from dml_tf.tools import answers, formats, rank, sheets, trained

EXAMPLES = """examples:
  dml_tf predict image_folder-dml-resnet20+mobilenet-seed0 new.jpg
  dml_tf predict RUN 'pictures/*.jpg' more/ --csv=predictions.csv --sheet=predictions.png
  dml_tf predict deployed/model.tflite new.jpg
  dml_tf predict RUN query.jpg --gallery=people/ --sheet=ranking.png"""


def main(argv: Sequence[str]) -> int:
    """The command `dml_tf predict`; returns its exit status."""
    parser = argparse.ArgumentParser(
        "dml_tf predict", description=__doc__, epilog=EXAMPLES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="RUN|FILE", help="a run, or what `dml_tf deploy` wrote")
    parser.add_argument("pictures", nargs="+", help="files, folders, or patterns such as '*.jpg'")
    parser.add_argument("--top", type=int, default=5, help="classes to show; default: 5")
    parser.add_argument("--csv", metavar="FILE", help="also write a table; - for the terminal")
    parser.add_argument("--json", metavar="FILE", help="also write JSON; - for the terminal")
    parser.add_argument("--sheet", metavar="FILE.png", help="also draw the pictures")
    parser.add_argument("--gallery", metavar="FOLDER", help="re-identification: rank its pictures")
    parser.add_argument("--results_dir", default="", help="where to look for RUN")
    options = parser.parse_args(argv)
    return exit_status(parser.prog, partial(_predict, options), also=(ValueError,))


def _predict(options: argparse.Namespace):
    if options.top < 1:
        raise FlagError(f"--top={options.top}: give 1 or more.")
    paths = list(dict.fromkeys(trained.expand(options.pictures)))
    file = formats.inside(Path(options.model).expanduser())
    deployed = None if trained.finished_record(file) else formats.of_file(file)
    run = None if deployed else trained.find(options.model, options.results_dir)
    quiet.import_tensorflow()
    if run and run.is_reid:
        rank.show(run, paths, options)
        return
    if options.gallery:
        raise FlagError(f"--gallery is for re-identification; {options.model} tells classes.")
    if run:
        classes, posteriors = run.record["classes"], predict(run, paths)
    else:
        classes, posteriors = predict_deployed(deployed, file, paths)
    rows = table(paths, posteriors, classes, options.top)
    if not answers.is_on_terminal(options):
        print_table(rows)
    answers.write(options, rows)
    if options.sheet:
        sheets.of_predictions(Path(options.sheet).expanduser(), paths, rows)


def predict(run: trained.Trained, paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Posteriors of pictures.

    Args:
        run: A run with classes.
        paths: The pictures.

    Returns:
        Network, or `ensemble`, -> probabilities, shape `(pictures, classes)`.
    """
    pixels = run.normalise(run.read(paths))
    found = run.load().predict(pixels, verbose=0)
    return found if len(found) > 2 else {n: p for n, p in found.items() if n != "ensemble"}


def predict_deployed(
    kind: formats.Format, file: Path, paths: Sequence[Path]
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The classes of a file that `dml_tf deploy` wrote, and its posteriors as of `predict`."""
    about = formats.about(kind, file)
    is_streamed = about["dataset"] in STREAMED_DATASETS
    pixels = trained.read_pictures(paths, about["shape"], central=is_streamed)
    with quiet.quiet():
        return about["classes"], {about["peer"]: formats.load(kind, file)(pixels.astype("float32"))}


def table(
    paths: Sequence[Path], posteriors: dict[str, np.ndarray], classes: Sequence[str], top: int
) -> list[dict]:
    """The most probable classes: rows of picture, network, rank (from 1), class, probability."""
    return [
        {
            "picture": str(path),
            "network": name,
            "rank": rank_ + 1,
            "class": classes[label],
            "probability": round(float(probabilities[i, label]), 6),
        }
        for i, path in enumerate(paths)
        for name, probabilities in posteriors.items()
        for rank_, label in enumerate(np.argsort(-probabilities[i], kind="stable")[:top])
    ]


def print_table(rows: Sequence[dict]):
    """Prints rows of `table`: a line for each picture, below it one for each network."""
    width = max(len(row["network"]) for row in rows)
    lines = {}
    for row in rows:
        line = lines.setdefault((row["picture"], row["network"]), [])
        line.append(f"{row['class']} {100 * row['probability']:.1f}%")
    pictures = dict.fromkeys(picture for picture, _ in lines)
    for picture in pictures:
        print(picture)
        for (shown, network), words in lines.items():
            if shown == picture:
                print(f"  {network:{width}}  {'   '.join(words)}")
