"""Records of finished runs: one JSON file each."""

import contextlib
import dataclasses
import json
import os
import platform
from pathlib import Path

from dml_tf.atomic import write_text
from dml_tf.errors import RecordMismatch
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles
from dml_tf.version import __version__


def find(config: Config) -> dict | None:
    """The record of a finished run; None if the run, or the analysis that is asked for, is missing.

    Raises:
        RecordMismatch: The file was made with other settings, or is no record.
    """
    file = RunFiles.of(config).record
    if not file.exists():
        return None
    try:
        record = read(file)
        recorded = record["config"]
    except (ValueError, KeyError, TypeError):
        raise RecordMismatch(
            f"{file} is not a run's record. Move it away, or train again with --overwrite."
        ) from None
    refuse_mismatch(recorded, config, file)
    return None if config.analyse and "analysis" not in record else record


def refuse_mismatch(recorded: dict, config: Config, file: Path):
    """Raises `RecordMismatch` if a file's recorded settings differ from those asked for."""
    asked = config.comparable()
    # A record from before a setting existed was made with what is now its default.
    recorded = {field.name: field.default for field in dataclasses.fields(config)} | recorded
    names = sorted(n for n in asked if recorded[n] != asked[n])
    if names:
        differences = ", ".join(
            f"{n}: {recorded.get(n)} in the file, {asked.get(n)} now" for n in names
        )
        raise RecordMismatch(
            f"{file} was made with other settings ({differences}). Use another --results_dir, "
            "move it away, or train again with --overwrite."
        )


def read(file: Path) -> dict:
    """Reads a record."""
    return json.loads(file.read_text(encoding="utf-8"))


def write(record: dict, file: Path):
    """Writes a record, or anything of JSON's types, whole."""
    write_text(file, json.dumps(record, indent=1, allow_nan=False) + "\n")


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
