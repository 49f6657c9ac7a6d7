"""Records of finished runs: one JSON file each."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from dml_tf import data
from dml_tf.atomic import write_text
from dml_tf.data import Splits
from dml_tf.errors import DataWarning, RecordMismatch, RunFailed
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles, record_beside
from dml_tf.version import __version__

CHECKSUM = "checksum"  # the last key of a record's file
_ANEW = "Move it away, or train again with --overwrite."


def find(config: Config) -> dict | None:
    """The record of a finished run; None if the run, or the analysis that is asked for, is missing.

    Raises:
        RecordMismatch: The file was made with other settings, or is no record.
    """
    file = RunFiles.of(config).record
    if not file.exists():
        return None
    record = read_whole(file)
    refuse_mismatch(record["config"], config, file)
    return None if config.analyse and "analysis" not in record else record


def reusable(config: Config) -> dict | None:
    """As `find`, but a record of other data than the config's is refused, too.

    Raises:
        RecordMismatch: The file was made with other settings or data, or is no record.
        FileNotFoundError: The config's data are missing.
        RunFailed: They are refused.
    """
    record = find(config)
    if record is not None:
        refuse_other_data(record, config, RunFiles.of(config).record)
    return record


def refuse_other_data(kept: dict, config: Config, file: Path, splits: Splits | None = None):
    """Raises `RecordMismatch` if a file was made with other data than the config's.

    Data are the same if their files are, or if they give the same images: the same pictures may
    be packed or unpacked. What is not known of an old file is not compared.

    Args:
        kept: What the file keeps, with `identity` and `digest`, or without them.
        config: The settings, which name the data.
        file: Where it is kept, for the message.
        splits: The data, if they are loaded already.
    """
    now = splits.identity if splits else identify(config)
    differing = data.differences(kept.get("identity"), now)
    can_compare_images = "digest" in kept and "parts" in now and not _is_streamed(config)
    if can_compare_images and (differing or not kept.get("identity")):
        differing = _other_images(kept, splits or _load(config)) and (
            differing or ["its images, labels or classes are others"]
        )
    if differing:
        raise RecordMismatch(
            f"{file} was made with other data: of {config.dataset}, {'; '.join(differing)}. Give "
            "the same --data_dir and its files as they were, use another --results_dir, or train "
            "again with --overwrite."
        )


def _is_streamed(config: Config) -> bool:
    return config.dataset in data.STREAMED_DATASETS


def _other_images(kept: dict, splits: Splits) -> bool:
    now, classes = splits.digests, list(map(str, splits.class_names))
    # A record from before re-identification's parts had digests lacks them.
    images_differ = any(now.get(part) != digest for part, digest in kept["digest"].items())
    return images_differ or kept.get("classes", classes) != classes


def refuse_other_teacher(weights: Path, config: Config, splits: Splits):
    """Raises `RecordMismatch` if the run that left these weights had other data than the config's.

    Weights without a record beside them are not compared.
    """
    refuse_altered(weights)
    file = record_beside(weights)
    if not file.exists():
        return
    record = read_whole(file)
    theirs = record["config"]["dataset"]
    if theirs != config.dataset:
        raise RecordMismatch(
            f"{weights} was trained on {theirs}, this run is on {config.dataset}: give a --teacher "
            "that was trained on the same data."
        )
    refuse_other_data(record, config, file, splits)


def sha256(file: Path) -> str:
    """A hexadecimal hash of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_altered(weights: Path):
    """Raises `RecordMismatch` if weights are not those that the record beside them was made with.

    Weights without a record, or with one from before it kept their hash, are not compared.
    """
    file = record_beside(weights)
    both_exist = file.exists() and weights.exists()
    kept = read_whole(file).get("weights_sha256") if both_exist else None
    if kept and kept != sha256(weights):
        raise RecordMismatch(
            f"{weights} is not the file that its run left: {file} has another sha256. It is "
            "damaged or was replaced. Train that run again with --overwrite, or give the file "
            "another name and place if you trust it."
        )


def identify(config: Config) -> dict:
    """Which data a config asks for, as `data.identify`; `RunFailed` if they are refused."""
    return _or_failed(data.identify, config)


def _load(config: Config) -> Splits:
    return _or_failed(data.load, config)


def _or_failed(function: Callable, config: Config):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # a run says it when it loads its data
            return function(config)
    except ValueError as error:
        raise RunFailed(str(error)) from error


def refuse_mismatch(recorded: dict, config: Config, file: Path):
    """Raises `RecordMismatch` if a file's recorded settings differ from those asked for."""
    if differences := differing(recorded, config):
        raise RecordMismatch(
            f"{file} was made with other settings ({', '.join(differences)}). Use another "
            "--results_dir, move it away, or train again with --overwrite."
        )


def differing(recorded: dict, config: Config) -> list[str]:
    """Settings of a file that are not those asked for, in words."""
    asked = config.comparable()
    # A record from before a setting existed was made with what is now its default.
    recorded = {field.name: field.default for field in dataclasses.fields(config)} | recorded
    return [
        f"{name}: {recorded[name]} in the file, {asked[name]} now"
        for name in sorted(asked)
        if recorded[name] != asked[name]
    ]


def read_whole(file: Path) -> dict:
    """Reads a run's record; `RecordMismatch` if the file is none."""
    record = read(file)
    try:
        record["config"]["dataset"]
    except (KeyError, TypeError):
        raise RecordMismatch(f"{file} is not a run's record. {_ANEW}") from None
    return record


def read(file: Path) -> dict:
    """Reads what `write` wrote; `RecordMismatch` if it was altered since, or is no JSON."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        kept = record.pop(CHECKSUM, None)
    except (ValueError, AttributeError):
        raise RecordMismatch(f"{file} is not a run's record, or is damaged. {_ANEW}") from None
    if (kept or "identity" in record) and kept != _checksum(record):  # old records have none
        raise RecordMismatch(f"{file} is damaged, or was altered after it was written. {_ANEW}")
    return record


def write(record: dict, file: Path):
    """Writes a record, or anything of JSON's types, whole; `RunFailed` for a NaN or an infinity."""
    for place, value in _numbers(record):
        if not math.isfinite(value):
            raise RunFailed(
                f"{file.stem}: {place} is {value}, so no record is written. A peer's outputs are "
                "too large for its measures: try a smaller --learning_rate."
            )
    record = {**record, CHECKSUM: _checksum(record)}
    write_text(file, json.dumps(record, indent=1, allow_nan=False) + "\n")


def _checksum(record: dict) -> str:
    """A hash of a record's content; JSON has no other keys than text, and lists for tuples."""
    content = json.loads(json.dumps(record))
    content.pop(CHECKSUM, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbers(value: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Each fraction in a record, with the names that lead to it."""
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner, place)


def summary(record: dict) -> str:
    """A line for each peer: accuracy and cross-entropy, or mAP and rank-1, in percent and nats."""
    test = record["test"]
    rows = test["peers"] | {name: test[name] for name in ("average", "ensemble") if name in test}
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {_measures(row)}" for name, row in rows.items())


def _measures(row: dict) -> str:
    if "accuracy" in row:
        percent, nats = 100 * row["accuracy"], row["cross_entropy"]
        return f"test accuracy {percent:6.2f}%  cross-entropy {nats:.4f}"
    single, multi = (
        f"mAP {100 * m['mAP']:5.2f}%  rank-1 {100 * m['rank1']:5.2f}%"
        for m in (row, row["multi_query"])
    )
    return f"single-query {single}   multi-query {multi}"


def machine() -> str:
    """The GPUs, the processor, its cores and the system, in words."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return ", ".join([*gpus(), f"{name}, {os.cpu_count()} cores", platform.system()])


def gpus() -> list[str]:
    """Names of the GPUs that TensorFlow uses here."""
    import tensorflow as tf

    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def repeatable() -> dict:
    """Whether the same command gives the same bits again here, and what that depends on.

    Measured: on a CPU two runs agree in every bit with one number of threads, and differ with
    another. On a GPU TensorFlow may add in any order, unless TF_DETERMINISTIC_OPS is set.
    """
    import tensorflow as tf

    threading = tf.config.threading
    threads = {
        "intra_op": (threading.get_intra_op_parallelism_threads, "TF_NUM_INTRAOP_THREADS"),
        "inter_op": (threading.get_inter_op_parallelism_threads, "TF_NUM_INTEROP_THREADS"),
    }
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    ordered = os.environ.get("TF_DETERMINISTIC_OPS", "").lower() in ("1", "true")
    return {
        "same_bits": ordered or not on_gpu,
        "given": "the same processor, versions and threads"
        + (" and TF_DETERMINISTIC_OPS=1" if on_gpu else ""),
        "threads": {
            name: chosen() or int(os.environ.get(variable, 0)) or os.cpu_count()
            for name, (chosen, variable) in threads.items()
        },
    }


def versions() -> dict[str, str]:
    """Versions of what decides the last bits of a result."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "dml_tf": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
