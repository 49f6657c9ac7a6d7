"""Makes an ordinary record and a Keras cohort of a run that was trained without TensorFlow."""

from dml_tf.errors import RunFailed
from dml_tf.export.folder import Export
from dml_tf.runs import build, checkpoint, records, results, train
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles


def import_run(export: Export, config: Config) -> dict:
    """Measures a finished run with the project's own code and data, and writes its record.

    Args:
        export: The exported run, whose state is the trained one.
        config: The run's settings: `export.config`, perhaps with other places for data and
            results.

    Returns:
        The record, also written to `<results_dir>/runs/<run_id>.json`. The cohort is in
        `<results_dir>/models/<run_id>.keras`. `machine` and the times are those of the training,
        `trained_on` says what it was done with, and `measured_on` is this machine.

    Raises:
        RunFailed: The run is not finished, or its record exists.
        RecordMismatch: The folder or the record was made with other settings.
        FileNotFoundError: Data are missing.
        ValueError: The folder's files are damaged, or the data are not those of the run.
    """
    progress, _ = export.read_state()
    files = RunFiles.of(config)
    if progress["step"] < export.schedule.steps:
        raise RunFailed(
            f"{export.folder} has done {progress['step']} of {export.schedule.steps} steps. "
            f"Finish it first: `python -m dml_tf.export run {export.folder}`."
        )
    if not config.overwrite and records.find(config):
        raise RunFailed(f"{files.record} exists: use another --results_dir, or --overwrite.")
    splits = build.load_data(config)
    export.refuse_others(splits.train, config.data_dir or config.dataset)
    train.ensure_teacher(config)
    cohort = build.build_cohort(config, splits)
    trained = checkpoint.Checkpoint(export.folder, config)
    train.fit(cohort, config, splits, trained, verbose=0)  # restores; no epoch is left to train
    record = results.make_record(config, splits, cohort, trained)
    record |= provenance(progress["trained_on"], record)
    results.save_model(cohort, files.model)
    record["weights_sha256"] = records.sha256(files.model)
    records.write(record, files.record)
    return record


def provenance(trained_on: list[dict], record: dict) -> dict:
    """The machine that trained a run in the place of the one that measured it."""
    machines = dict.fromkeys(entry["machine"] for entry in trained_on)
    return {
        "machine": "; ".join(machines),
        "measured_on": record["machine"],
        "repeatable": {"same_bits": False, "given": "not measured: JAX trained this run"},
        "trained_on": trained_on,
    }
