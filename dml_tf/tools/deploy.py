"""Writes one network of a run for other programs, and tries the files on test images.

The files take pixels from 0 to 255 and give probabilities: the normalisation of the training images
and the names of the classes are inside. `best` is the network with the best accuracy on validation
images. OUT also gets a model card, README.md.
"""

import argparse
import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dml_tf.atomic import write_text, write_whole
from dml_tf.errors import FlagError, RunFailed, exit_status
from dml_tf.runs import quiet
from dml_tf.tools import card, formats, trained
from dml_tf.tools.deployable import about, deployable
from dml_tf.tools.formats import FORMATS, NUMBERS
from dml_tf.tools.trial import Row, Trial, int8_changes, size_of, some_pixels, table

EXAMPLES = """examples:
  dml_tf deploy digits-dml-resnet8w16+resnet8w16-seed0 --peer=resnet8_1 phone/
  dml_tf deploy RUN --data_dir=PICTURES --format=litert,onnx --quantize=int8 phone/"""
AGREES = 0.995  # of float formats, on test images
CALIBRATION = 200  # training images that tell int8 its ranges
_NUMBERS = {"none": "float32", "float16": "float16", "int8": "int8"}


def main(argv: Sequence[str]) -> int:
    """The command `dml_tf deploy`; returns its exit status."""
    parser = argparse.ArgumentParser(
        "dml_tf deploy", description=__doc__, epilog=EXAMPLES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="a finished run; `dml_tf runs` lists them")
    parser.add_argument("out", metavar="OUT", help="folder to write to")
    parser.add_argument("--peer", default="best", help="a peer's name, ensemble, or best (default)")
    parser.add_argument(
        "--format", default="keras,litert", metavar="NAMES",
        help=f"comma-separated: {', '.join(FORMATS)}; default: keras,litert",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", choices=NUMBERS, default="none",
        help="numbers of litert and onnx; int8 is calibrated on training images",
    )  # fmt: skip
    parser.add_argument("--data_dir", default="", help="the run's data, as for training")
    parser.add_argument("--images", type=int, default=1000, help="test images to try (1000)")
    parser.add_argument("--results_dir", default="", help="where to look for RUN")
    options = parser.parse_args(argv)
    return exit_status(parser.prog, partial(_deploy, options), also=(ValueError,))


def _deploy(options: argparse.Namespace):
    if options.images < 1:
        raise FlagError(f"--images={options.images}: give 1 or more.")
    names = _format_names(options.format)
    if options.quantize != "none" and not any(FORMATS[name].can_quantize for name in names):
        raise FlagError(
            f"--quantize={options.quantize} is for litert and onnx: --format={options.format} has "
            "neither."
        )
    run = trained.find(options.run, options.results_dir)
    peer = choose_peer(run, options.peer)
    folder = Path(options.out).expanduser()
    _refuse_others(folder, about(run, peer))
    quiet.import_tensorflow()
    splits = run.load_data(options.data_dir)
    cohort = run.load()
    model = deployable(run, cohort, peer)
    trial = Trial(*some_pixels(splits.test.labelled, options.images), formats.compiled(model))
    rows = _in_keras(run, cohort, model, peer, trial)
    calibration = some_pixels(splits.train, CALIBRATION)[0]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        file = FORMATS[name].file(folder, options.quantize)
        numbers = options.quantize if FORMATS[name].can_quantize else "none"
        with quiet.quiet():
            _write(name, file, model, numbers, calibration, about(run, peer))
            found = formats.load(FORMATS[name], file)
            rows.append(trial.measure(file.name, _NUMBERS[numbers], size_of(file), found))
    print(f"{peer} of {run.files.run_id}, on {len(trial)} test images:")
    print(table(rows), *int8_changes(rows), sep="\n")
    write_text(folder / "README.md", card.text(run.record, peer, rows, len(trial)))
    print(f"wrote {folder}, with a model card")
    _refuse_different(rows[2:])


def _refuse_others(folder: Path, ours: dict):
    """Refuses a folder with files of another run or peer, which its card would not name."""
    for name, file in formats.files(folder):
        try:
            theirs = formats.about(FORMATS[name], file)
        except (FlagError, RunFailed):  # it cannot be read here
            continue
        if any(theirs.get(key) != ours[key] for key in ("run_id", "peer")):
            raise FlagError(
                f"{file} is of {theirs.get('peer')} of {theirs.get('run_id')}: give another "
                "folder, or remove it."
            )


def _in_keras(run: trained.Trained, cohort, model, peer: str, trial: Trial) -> list[Row]:
    """The whole cohort, and the chosen network."""
    import tensorflow as tf

    name = "ensemble" if len(cohort.networks) > 1 else peer
    call = tf.function(lambda images: cohort(images, training=False)[name], reduce_retracing=True)
    sizes = [4 * sum(net.count_params() for net in nets) for nets in (cohort.networks, [model])]
    return [
        trial.measure(
            f"cohort of {len(cohort.networks)}, Keras", "float32", sizes[0],
            lambda pixels: call(tf.constant(run.normalise(pixels))).numpy(),
        ),
        trial.measure(f"{peer}, Keras", "float32", sizes[1], formats.compiled(model)),
    ]  # fmt: skip


def _refuse_different(rows: Sequence[Row]):
    """Raises `RunFailed` if a float file does not agree with Keras."""
    for row in rows:
        if row.numbers != "int8" and row.agreement < AGREES:
            raise RunFailed(
                f"{row.name} gives the same class as Keras for {100 * row.agreement:.2f}% of the "
                f"test images only, below {100 * AGREES:g}%: do not use it."
            )


def _format_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise FlagError(f"--format={name}: give some of {', '.join(FORMATS)}.")
        formats.check(name)
    if not names:
        raise FlagError(f"--format is empty: give some of {', '.join(FORMATS)}.")
    return names


def choose_peer(run: trained.Trained, asked: str) -> str:
    """The peer to deploy.

    Args:
        run: The run.
        asked: Its name, `ensemble`, or `best` for the one with the best validation accuracy.

    Raises:
        FlagError: There is no such peer, or no validation images by which to choose.
    """
    if run.is_reid:
        raise FlagError(
            "deploy is for networks that tell classes. Of a run of re-identification, save a "
            "network with Keras: `load_model(FILE).networks[0].save(...)`."
        )
    peers = run.record["test"]["peers"]
    known = [*peers, *(["ensemble"] if len(peers) > 1 else [])]
    if asked in known:
        return asked
    if asked != "best":
        raise FlagError(f"--peer={asked}: give best or one of {', '.join(known)}.")
    if len(peers) == 1:
        return next(iter(peers))
    if "validation" not in run.record:
        raise FlagError(
            "--peer=best is chosen on validation images, which the run has not. Give one of "
            f"{', '.join(known)}, or train with --validation_fraction=0.1."
        )
    accuracies = {name: m["accuracy"] for name, m in run.record["validation"]["peers"].items()}
    return max(accuracies, key=accuracies.get)


def _write(name: str, file: Path, model, quantize: str, calibration: np.ndarray, text: dict):
    """Writes one format, a file whole; `RunFailed` if its converter fails."""
    is_folder = not FORMATS[name].suffix
    try:
        with contextlib.nullcontext(file) if is_folder else write_whole(file) as part:
            FORMATS[name].write(model, part, quantize, calibration)
            FORMATS[name].put_about(part, text)
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise RunFailed(f"--format={name} --quantize={quantize} failed: {error}") from error
