"""Takes the weights of an exported run back: the Keras cohort and an ordinary record.

    python -m dml_tf.import_weights OUT_DIR

reads what `dml_tf.run_step` left in OUT_DIR, measures it with the project's own code and data, and
writes `<results_dir>/models/<run_id>.keras` and `<results_dir>/runs/<run_id>.json` as train.py
does. The record's `machine` and times are those of the training, `trained_on` says with what it
was done, and `measured_on` is the machine that measures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dml_tf.export import folder as exported
from dml_tf.runs import build, quiet
from dml_tf.runs.config import Config
from dml_tf.runs.errors import FlagError, RecordMismatch, RunFailed
from dml_tf.runs.files import RunFiles


def main(argv: Sequence[str]) -> int:
    """Imports a run.

    Args:
        argv: Arguments.

    Returns:
        Exit status: 0 done; 1 the run is not finished, data are missing or refused, or the record
        is there already; 2 bad flags.
    """
    parser = argparse.ArgumentParser(
        "import_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="what run_step trained")
    parser.add_argument("--data_dir", help="as train.py's; default: as it was for the export")
    parser.add_argument("--results_dir", help="as train.py's; default: as it was for the export")
    parser.add_argument("--overwrite", action="store_true", help="replace a record that is there")
    asked = parser.parse_args(argv)
    quiet.import_tensorflow()
    from dml_tf.runs import records

    try:
        settings = config_of(exported.read_manifest(asked.folder), vars(asked))
        record = import_run(asked.folder, settings)
    except FlagError as error:
        return _fail(error, 2)
    except (OSError, ValueError, RecordMismatch, RunFailed) as error:
        return _fail(error, 1)
    print(f"{records.summary(record)}\nrecord: {RunFiles.of(settings).record}")
    return 0


def config_of(manifest: dict, changes: dict) -> Config:
    """The settings of an exported run.

    Args:
        manifest: What `dml_tf.exported.read_manifest` returned.
        changes: `data_dir`, `results_dir` and `overwrite`; None stands for the export's.

    Returns:
        The settings.
    """
    places = {
        name: manifest[name] if changes[name] is None else changes[name]
        for name in ("data_dir", "results_dir")
    }
    settings = manifest["config"] | places | {"overwrite": changes["overwrite"]}
    return Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def import_run(folder: Path, config: Config) -> dict:
    """Makes the cohort and the record of a run that `dml_tf.run_step` has finished.

    Args:
        folder: Where it was trained.
        config: The run's settings.

    Returns:
        The record, also written to `<results_dir>/runs/<run_id>.json`.

    Raises:
        RunFailed: The run is not finished, or its record is there already.
        RecordMismatch: The folder or the record was made with other settings.
        FileNotFoundError: The step or data are missing.
        ValueError: The folder's files are damaged, or the data are not those of the run.
    """
    from dml_tf.runs import checkpoint, records, train

    manifest = exported.read_manifest(folder)
    progress, _ = exported.read_state(folder, manifest)
    if progress["step"] < manifest["steps"]:
        raise RunFailed(
            f"{folder} has done {progress['step']} of {manifest['steps']} steps: let "
            f"`python -m dml_tf.run_step {folder}` finish."
        )
    if not config.overwrite and records.find(config):
        raise RunFailed(
            f"{RunFiles.of(config).record} exists: use another --results_dir, or --overwrite."
        )
    splits = build.load_data(config)
    place = config.data_dir or config.dataset
    exported.refuse_others(splits.train.images, splits.train.labels, manifest, place)
    cohort = build.build_cohort(config, splits)
    trained = checkpoint.Checkpoint(folder, config)
    train.fit(cohort, config, splits, trained, verbose=0)  # restores; no epoch is left to train
    record = train.make_record(config, splits, cohort, trained)
    record |= provenance(progress["trained_on"], record)
    train.save_model(cohort, RunFiles.of(config).model)
    records.write(record, RunFiles.of(config).record)
    return record


def provenance(trained_on: list[dict], record: dict) -> dict:
    """Where a run was trained, in place of where it is measured.

    Args:
        trained_on: What `dml_tf.run_step` noted, one entry for each different machine, version or
            precision.
        record: The record as this machine makes it.

    Returns:
        `machine`, the one that trained; `measured_on`, this one; and `trained_on`.
    """
    machines = dict.fromkeys(entry["machine"] for entry in trained_on)
    return {
        "machine": "; ".join(machines),
        "measured_on": record["machine"],
        "trained_on": trained_on,
    }


def _fail(reason, status: int) -> int:
    print(f"import_weights: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
