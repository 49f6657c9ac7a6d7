"""What a trained cohort leaves: its weights, its record, its features."""

import datetime
import sys
from pathlib import Path

import numpy as np

from dml_tf import networks
from dml_tf.atomic import write_whole
from dml_tf.data import Splits
from dml_tf.errors import RunFailed
from dml_tf.measures import analysis, evaluate
from dml_tf.method.cohort import Cohort
from dml_tf.networks import own, trusted
from dml_tf.runs import build, records
from dml_tf.runs.callbacks import refuse_not_finite
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles
from dml_tf.runs.stopping import best_epoch


def finish(
    trained: Cohort,
    config: Config,
    splits: Splits,
    files: RunFiles,
    checkpoint: Checkpoint,
    noted: dict,
) -> dict:
    """Measures a trained cohort; writes its model and its record, which is returned."""
    record = make_record(config, splits, trained, checkpoint) | noted
    save_model(trained, files.model)
    record["weights_sha256"] = records.sha256(files.model)
    records.write(record, files.record)
    return record


def make_record(config: Config, splits: Splits, cohort: Cohort, checkpoint: Checkpoint) -> dict:
    """What a finished run leaves for tables, figures and readers.

    Args:
        config: The run's settings.
        splits: The run's data.
        cohort: The trained cohort.
        checkpoint: History and times of its training.

    Returns:
        The record, of JSON's types; fractions, nats and seconds.

    Raises:
        RunFailed: A weight, a posterior or a measure is not finite.
    """
    for name, network in zip(cohort.peer_names, cohort.networks, strict=True):
        refuse_not_finite(
            network.variables,
            f"A weight of peer {name} is not finite after training: it is not measured. Try a "
            "smaller --learning_rate.",
        )
    made = int(cohort.optimizers[0].iterations.numpy())
    measured = {
        part: evaluate.measure(cohort, getattr(splits, part), splits, list_correct=part == "test")
        for part in ("train", "validation", "test")
        if getattr(splits, part) is not None
    }
    images = {part: len(getattr(splits, part)) for part in measured}
    if splits.reid:
        images |= {part: len(getattr(splits.reid, part)) for part in evaluate.PARTS}
        measured["test"] = evaluate.measure_reid(_extract(cohort, config, splits), splits)
    if config.analyse:
        measured["analysis"] = analysis.analyse(cohort, splits)
    return {
        "run_id": config.run_id,
        "command": config.command,
        "config": config.comparable(),
        "data": splits.name,
        "identity": splits.identity,
        "images": images,
        "input": {
            "shape": list(splits.train.images.shape[1:]),
            "mean": splits.mean.tolist(),
            "std": splits.std.tolist(),
        },
        "classes": list(map(str, splits.class_names)),
        "digest": splits.digests,
        "versions": records.versions(),
        "machine": records.machine(),
        "gpus": records.gpus(),
        "repeatable": records.repeatable(),
        "warnings": list(checkpoint.warnings.values()),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": made,
        **({"best_epoch": best_epoch(checkpoint.history)} if config.patience else {}),
        "parameters": {
            name: networks.count_parameters(net)
            for name, net in zip(cohort.peer_names, cohort.networks, strict=True)
        },
        "wall_clock_s": round(checkpoint.wall_clock_s, 3),
        "cpu_s": round(checkpoint.cpu_s, 3),
        "images_per_s": round(made * config.batch_size / checkpoint.wall_clock_s, 2),
        **measured,
        "history": checkpoint.history,
    }


def save_model(cohort: Cohort, file: Path):
    """Writes a cohort whole to a `.keras` file; its folder is made."""
    with write_whole(file) as part:
        cohort.save(part)


def add_analysis(config: Config, splits: Splits, files: RunFiles) -> dict | None:
    """The record of a run that lacked only its analysis, if its weights still exist."""
    record = None if config.overwrite else records.find(config.replace(analyse=False))
    if not record or not files.model.exists():
        return None
    records.refuse_other_data(record, config, files.record, splits)
    record["analysis"] = analysis.analyse(_load(config, files), splits)
    records.write(record, files.record)
    return record


def add_features(config: Config, record: dict, files: RunFiles) -> dict:
    """Writes the features of a finished run, from its weights; returns its record.

    Raises:
        RunFailed: The weights are gone.
        RecordMismatch: They, or the data, are others.
    """
    if not files.model.exists():
        raise RunFailed(
            f"--features_out={config.features_out}: the weights of the finished run are not in "
            f"{files.model}. Train it again: add --overwrite."
        )
    splits = build.load_data(config)
    records.refuse_other_data(record, config, files.record, splits)
    _extract(_load(config, files), config, splits)
    return record


def _load(config: Config, files: RunFiles) -> Cohort:
    records.refuse_altered(files.model)
    return trusted.load_model(files.model, own.modules(config.net))


def _extract(cohort: Cohort, config: Config, splits: Splits) -> dict:
    """The cohort's features, also written to `--features_out`."""
    features = evaluate.extract_features(cohort, splits, verbose=int(sys.stdout.isatty()))
    if config.features_out:
        with write_whole(Path(config.features_out).expanduser()) as part, part.open("wb") as stream:
            np.savez(stream, **evaluate.labelled_features(features, splits))
    return features
