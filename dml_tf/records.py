"""Records of finished runs: one JSON file each, written whole or not at all."""

import dataclasses
import json
import os
from pathlib import Path

from dml_tf.config import Config


class RecordMismatch(RuntimeError):
    """A record or checkpoint of the same name was made with other settings."""


def path(config: Config) -> Path:
    """Where the record of a run belongs.

    Args:
        config: The run's settings.

    Returns:
        `<results_dir>/runs/<run_id>.json`.
    """
    return Path(config.results_dir) / "runs" / f"{config.run_id}.json"


def model_path(config: Config) -> Path:
    """Where the trained cohort of a run belongs.

    Args:
        config: The run's settings.

    Returns:
        `<results_dir>/models/<run_id>.keras`.
    """
    return weights(config, config.run_id)


def weights(config: Config, source: str) -> Path:
    """Where the trained weights are that a flag of a run names.

    Args:
        config: The run's settings.
        source: A `.keras` or `.h5` file, or the id of a run in the same results folder.

    Returns:
        The file.
    """
    if source.endswith((".keras", ".h5")):
        return Path(source).expanduser()
    return Path(config.results_dir) / "models" / f"{source}.keras"


def needed_weights(config: Config) -> list[Path]:
    """Trained weights that a run starts from or learns from.

    Args:
        config: The run's settings.

    Returns:
        Files; where the default teacher's is absent, the run trains it.
    """
    named = [source for source in (config.teacher, config.pretrained) if source]
    files = [weights(config, source) for source in named if source != "imagenet"]
    if config.method == "distill" and not config.teacher:
        files.append(model_path(config.default_teacher))
    return files


def find(config: Config) -> dict | None:
    """The record of a finished run.

    Args:
        config: The run's settings.

    Returns:
        The record, or None if the run has not finished, or lacks the analysis that is asked for.

    Raises:
        RecordMismatch: The file is there but was made with other settings, or is no record.
    """
    file = path(config)
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
    """Refuses results that were made with other settings than those asked for.

    Args:
        recorded: Settings that were written down, as `Config.comparable` gives them.
        config: Settings asked for.
        file: Where they were written, for the message.

    Raises:
        RecordMismatch: Some differ.
    """
    asked = config.comparable()
    # A setting that is newer than the record had its default's effect then.
    recorded = {field.name: field.default for field in dataclasses.fields(config)} | recorded
    names = sorted(n for n in asked if recorded[n] != asked[n])
    if names:
        differences = ", ".join(f"{n}: {recorded.get(n)} there, {asked.get(n)} now" for n in names)
        raise RecordMismatch(
            f"{file} was made with other settings ({differences}). Use another --results_dir, "
            "move it away, or train again with --overwrite."
        )


def read(file: Path) -> dict:
    """Reads a record.

    Args:
        file: Its path.

    Returns:
        The record.
    """
    return json.loads(file.read_text(encoding="utf-8"))


def write(record: dict, file: Path):
    """Writes JSON so that a reader, or a crash, never sees half of it.

    Args:
        record: What to write; must hold JSON's types only.
        file: Where to; its folder is made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            json.dump(record, stream, indent=1, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
