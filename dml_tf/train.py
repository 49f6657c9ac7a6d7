"""One run, from its settings to its record: the one place where everything is put together."""

import contextlib
import datetime
import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dml_tf import analysis, data, distribute, evaluate, networks, optimizers, records, state
from dml_tf.checkpoint import Checkpoint, peer_variables
from dml_tf.cluster import Cluster
from dml_tf.cohort import Cohort, Elsewhere
from dml_tf.config import Config, FlagError
from dml_tf.data.pictures import UNREADABLE
from dml_tf.networks import pretrained
from dml_tf.placement import Placement, arrange
from dml_tf.records import model_path
from dml_tf.version import __version__

_MIMICRY = {"independent": "none", "dml_e": "ensemble"}  # else the flag's


class RunFailed(RuntimeError):
    """A run that cannot go on; the message says what to do."""


def run(
    config: Config,
    *,
    verbose: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict:
    """Trains and measures what the settings ask for, unless that is done already.

    An interrupted run goes on after its last finished epoch and ends with the same weights as if
    it had never stopped. Where several processes train one run, each calls this with the same
    settings; the first, the chief, measures, and writes record and model.

    Args:
        config: The run's settings.
        verbose: Keras's: 0 silent, 1 a progress bar, 2 one line an epoch. Default: 1 in a
            terminal, else 2.
        callbacks: More of Keras's callbacks for the training.

    Returns:
        The run's record, also written to `<results_dir>/runs/<run_id>.json`; the trained cohort
        is in `<results_dir>/models/<run_id>.keras`.

    Raises:
        FlagError: A network's name is wrong, the placement cannot be had, or the processes of the
            run have different settings.
        FileNotFoundError: Data or the teacher are missing.
        RecordMismatch: The results folder holds this run with other settings.
        RunFailed: Data are refused, the loss is not a number, or another process is at this run.
        ConnectionError: Another of the run's processes has ended.
    """
    _check_networks(config)
    place = arrange(config)
    cluster = place.cluster
    with cluster.watched(), _lock(config, place):
        _refuse_differences(cluster, "settings", lambda: _settings(config))
        if record := cluster.from_chief(lambda: _finished(config, place)):
            return record
        splits = load_data(config)
        _refuse_differences(cluster, "data", lambda: _contents(splits))
        _check_features(config, splits)
        if record := cluster.from_chief(lambda: _analyse_finished(config, splits)):
            return record
        cohort = build_cohort(config, splits, place)
        placed = _describe(place, cohort, config, splits)
        name = config.run_id + place.process_name
        agree = cluster.least if cluster.size > 1 else None
        checkpoint = Checkpoint(_folder(config, "checkpoints") / name, config, agree)
        with _unreadable_refused():
            trained = fit(cohort, config, splits, checkpoint, _verbosity(verbose), callbacks, place)

            def finish():
                record = make_record(config, splits, trained, checkpoint) | placed
                save_model(trained, model_path(config))
                records.write(record, records.path(config))
                return record

            record = cluster.from_chief(finish)
        checkpoint.delete()
    return record


def _refuse_differences(cluster: Cluster, what: str, tell: Callable[[], dict]):
    """Processes that do different steps would wait for each other for ever, or learn nonsense."""
    if cluster.size == 1:
        return
    ours = tell()
    told = [json.loads(said) for said in cluster.share(json.dumps(ours).encode())]
    names = sorted({name for theirs in told for name in ours if theirs[name] != told[0][name]})
    if names:
        raise FlagError(
            f"the processes of this run have different {what} ({', '.join(names)}): all need the "
            "same flags, versions and data."
        )


def _settings(config: Config) -> dict:
    """What processes must have alike before they look at data."""
    more = {name: getattr(config, name) for name in ("placement", "steps_per_execution")}
    return config.comparable() | more | {f"version of {k}": v for k, v in _versions().items()}


def _contents(splits: data.Splits) -> dict:
    """What tells one process's data from another's."""
    parts = {part: getattr(splits, part) for part in ("train", "validation", "test")}
    return {
        "classes": list(map(str, splits.class_names)),
        **{part: split.digest if split else "" for part, split in parts.items()},
    }


def _check_features(config: Config, splits: data.Splits):
    """Peers whose features differ in width have no distance between them."""
    if not config.feature_weight or len(set(config.net)) == 1:
        return
    widths = {
        name: networks.build(
            name,
            num_classes=splits.num_classes,
            input_shape=splits.train.images.shape[1:],
        )
        .output["features"]
        .shape[-1]
        for name in dict.fromkeys(config.net)
    }
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{width} of {name}" for name, width in widths.items())
        raise FlagError(
            f"--feature_weight compares features of one width, and there are {said}: give networks "
            "of the same width, or leave it out."
        )


@contextlib.contextmanager
def _unreadable_refused() -> Iterator[None]:
    """Turns TensorFlow's report of a picture that cannot be decoded into the reason."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        reason = re.search(f"ValueError: (.*{UNREADABLE}.*)", error.message)
        if not reason:
            raise
        raise RunFailed(reason[1]) from error


def load_data(config: Config) -> data.Splits:
    """The images of a run.

    Args:
        config: The run's settings.

    Returns:
        Its splits.

    Raises:
        FileNotFoundError: There are none, with what would help.
        RunFailed: They are refused or damaged, or a flag asks for what they do not have.
    """
    try:
        splits = data.load(config)
        data.steps_per_epoch(splits, config)
    except ValueError as error:
        raise RunFailed(str(error)) from error
    return splits


def build_cohort(config: Config, splits: data.Splits, place: Placement | None = None) -> Cohort:
    """The compiled cohort of a run, with its initial weights.

    Peer k of seed s starts from the same weights whatever the method, so that runs of two methods
    pair by seed.

    Args:
        config: The run's settings.
        splits: The run's data.
        place: Where the peers shall be. Default: all here, on the default device.

    Returns:
        The cohort, compiled with the run's optimizers.
    """
    place = place or Placement()
    with place.scope():
        return _build_cohort(config, splits, place)


def _build_cohort(config: Config, splits: data.Splits, place: Placement) -> Cohort:
    peers = []
    for k, name in enumerate(config.net):
        with place.on(k):
            if config.method == "distill" and k == 0:
                peers.append(load_teacher(config, splits))
            elif place.trains(k):
                peers.append(_build_peer(config, splits, k))
            else:
                peers.append(Elsewhere(networks.parse(name)[0]))
    cohort = Cohort(
        peers,
        update=config.update,
        mimicry=_MIMICRY.get(config.method, config.mimicry),
        peer_reduction=config.peer_reduction,
        ensemble_average=config.ensemble_average,
        mimicry_weight=config.mimicry_weight,
        temperature=config.temperature,
        feature_weight=config.feature_weight,
        entropy_weight=config.entropy_weight,
        label_smoothing=config.label_smoothing,
        frozen=(0,) if config.method == "distill" else (),
        placement=place,
    )
    steps, chosen = data.steps_per_epoch(splits, config), []
    for k in cohort.trained:
        with place.on(k):
            chosen.append(optimizers.build(config, steps, k))
    on_one = {"auto": None, "true": True, "false": False}[config.jit_compile]
    cohort.compile(
        chosen,
        jit_compile=on_one if place.kind == "one" else False,
        steps_per_execution=config.steps_per_execution,
    )
    return cohort


def _build_peer(config: Config, splits: data.Splits, k: int) -> keras.Model:
    with _precision(config.precision):
        network = networks.build(
            config.net[k],
            num_classes=splits.num_classes,
            input_shape=splits.train.images.shape[1:],
            weight_decay=config.weight_decay,
            dropout=config.dropout,
            seed=int(np.random.SeedSequence([config.seed, k]).generate_state(1)[0]),
        )
    if source := config.pretrained:
        if source != "imagenet":
            source = str(records.weights(config, source))
        try:
            pretrained.load(network, config.net[k], source)
        except ValueError as error:
            raise FlagError(str(error)) from error
    return network


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Layers made here compute in a precision; Keras has it as a global setting only."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fit(
    cohort: Cohort,
    config: Config,
    splits: data.Splits,
    checkpoint: Checkpoint,
    verbose: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    place: Placement | None = None,
) -> Cohort | None:
    """Trains a cohort from its checkpoint, if any, to the end of its schedule.

    Args:
        cohort: As `build_cohort` makes it.
        config: The run's settings.
        splits: The run's data.
        checkpoint: Where to go on from, and to save to.
        verbose: Keras's.
        callbacks: More of Keras's callbacks.
        place: Where the peers are, as `build_cohort` was told.

    Returns:
        The trained cohort, all of it in this process; None but in the chief of several processes.

    Raises:
        FlagError: `steps_per_execution` does not fit the schedule.
    """
    place = place or Placement()
    per_epoch = data.steps_per_epoch(splits, config)
    epochs = math.ceil(config.steps / per_epoch) if config.steps else config.epochs
    _check_steps_per_execution(config, per_epoch)
    first = checkpoint.restore(cohort)
    if first and verbose:
        print(f"{config.run_id}: {first} of {epochs} epochs are done; going on.", flush=True)
    if first < epochs:
        train = _fit_here if place.is_whole else _fit_over_processes
        train(
            cohort,
            config,
            splits,
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=min(per_epoch, config.steps) if config.steps else per_epoch,
            verbose=verbose,
            callbacks=[
                StopAtNaN(),
                *([StopAfter(config.steps, per_epoch)] if config.steps else []),
                checkpoint,
                *_tensorboard(config, place),
                Progress(),
                *callbacks,
            ],
        )
    cohort = _collect(cohort, config, splits, checkpoint, place)
    if cohort is not None:
        _finish_weights(cohort, config, splits, epochs)
    return cohort


def _fit_here(cohort: Cohort, config: Config, splits: data.Splits, **options):
    cohort.fit(
        data.train_batches(splits, config, initial_epoch=options["initial_epoch"]),
        validation_data=_watched(config, splits),
        shuffle=False,  # the batches come in their order
        **options,
    )


def _fit_over_processes(cohort: Cohort, config: Config, splits: data.Splits, **options):
    def batches(context):
        part = (context.input_pipeline_id, context.num_input_pipelines)
        first = options["initial_epoch"]
        made = data.train_batches(splits, config, initial_epoch=first, part=part)
        if context.num_replicas_in_sync > part[1]:
            made = made.rebatch(config.batch_size // context.num_replicas_in_sync)
        # Else the processes would ask each other in every step whether there is a next one.
        return made.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    distribute.fit(cohort, batches, _watched(config, splits), **options)


def _watched(config: Config, splits: data.Splits) -> tf.data.Dataset | None:
    """What is measured after every epoch."""
    watched = splits.test if config.watch_test else splits.validation
    return watched and data.eval_batches(watched, splits, 256)


def _tensorboard(config: Config, place: Placement) -> list[keras.callbacks.Callback]:
    folder = _folder(config, "tensorboard") / config.run_id
    chief = place.cluster.is_chief
    return [keras.callbacks.TensorBoard(folder, write_graph=False)] if chief else []


def _check_steps_per_execution(config: Config, per_epoch: int):
    """Refuses calls that would run past the end of an epoch or of the run."""
    at_once, counts = config.steps_per_execution, {"the run's": config.steps}
    if not 0 < config.steps <= per_epoch:
        counts["an epoch's"] = per_epoch
    for what, steps in counts.items():
        if steps % at_once:
            fits = max(n for n in range(1, at_once) if not any(s % n for s in counts.values()))
            raise FlagError(
                f"--steps_per_execution={at_once} does not divide {what} {steps} steps; {fits} "
                "is the next lower number that fits."
            )


def _collect(
    cohort: Cohort, config: Config, splits: data.Splits, checkpoint: Checkpoint, place: Placement
) -> Cohort | None:
    """The cohort as one process would have trained it; None but in the chief."""
    if place.is_whole:
        return cohort
    cluster, arrays = place.cluster, []
    if cluster.is_chief or place.peer_a_process:
        arrays = [v.numpy() for k in cohort.trained for v in peer_variables(cohort, k)]
    said = cluster.share(state.to_bytes({"cpu_s": checkpoint.cpu_s}, arrays))
    if not cluster.is_chief:
        return None
    told = [state.from_bytes(part) for part in said]
    checkpoint.cpu_s = sum(progress["cpu_s"] for progress, _ in told)
    whole = build_cohort(config, splits)
    variables = [v for k in whole.trained for v in peer_variables(whole, k)]
    values = [array for _, arrays in told for array in arrays]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return whole


def _finish_weights(cohort: Cohort, config: Config, splits: data.Splits, epochs: int):
    """Puts averaged weights (the flag ema), or Entropy-SGD's, in the weights' place."""
    cohort.steps_per_execution = 1  # what is measured from here on comes in single batches
    for k, optimizer in zip(cohort.trained, cohort.optimizers, strict=True):
        optimizer.finalize_variable_values(cohort.networks[k].trainable_variables)
    if config.optimizer == "entropy_sgd":
        settle_statistics(cohort, data.train_batches(splits, config, initial_epoch=epochs))


def settle_statistics(cohort: Cohort, batches: tf.data.Dataset, count: int = 50) -> None:
    """Moves BatchNorm's averages to the present weights, as Entropy-SGD's authors do.

    During training they saw the Langevin samples around those weights.

    Args:
        cohort: Trained peers; but for the averages, and the seeds of dropout, they stay the same.
        batches: Training batches.
        count: How many to look at; with a momentum of 0.9, what was there counts 0.9^count.
    """
    for images, _ in batches.take(count):
        for k in cohort.students:
            cohort.networks[k](images, training=True)


def make_record(
    config: Config, splits: data.Splits, cohort: Cohort, checkpoint: Checkpoint
) -> dict:
    """What a finished run leaves for tables, figures and readers.

    Args:
        config: The run's settings.
        splits: The run's data.
        cohort: The trained cohort.
        checkpoint: History and times of its training.

    Returns:
        The record, of JSON's types; fractions, nats and seconds.
    """
    steps = int(cohort.optimizers[0].iterations.numpy())
    measured = {
        part: evaluate.measure(cohort, getattr(splits, part), splits)
        for part in ("train", "validation", "test")
        if getattr(splits, part) is not None
    }
    images = {part: len(getattr(splits, part)) for part in measured}
    if splits.reid:
        images |= {part: len(getattr(splits.reid, part)) for part in evaluate.PARTS}
        measured["test"] = _measure_reid(cohort, config, splits)
    if config.analyse:
        measured["analysis"] = analysis.analyse(cohort, splits)
    return {
        "run_id": config.run_id,
        "command": config.command,
        "config": config.comparable(),
        "data": splits.name,
        "images": images,
        "input": {
            "shape": list(splits.train.images.shape[1:]),
            "mean": splits.mean.tolist(),
            "std": splits.std.tolist(),
        },
        "classes": list(map(str, splits.class_names)),
        "versions": _versions(),
        "machine": machine(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": steps,
        "parameters": {
            name: networks.count_parameters(net)
            for name, net in zip(cohort.peer_names, cohort.networks, strict=True)
        },
        "wall_clock_s": round(checkpoint.wall_clock_s, 3),
        "cpu_s": round(checkpoint.cpu_s, 3),
        "images_per_s": round(steps * config.batch_size / checkpoint.wall_clock_s, 2),
        **measured,
        "history": checkpoint.history,
    }


def _measure_reid(cohort: Cohort, config: Config, splits: data.Splits) -> dict:
    features = evaluate.extract_features(cohort, splits, verbose=int(sys.stdout.isatty()))
    if config.features_out:
        evaluate.write_features(features, splits, Path(config.features_out))
    return evaluate.measure_reid(features, splits)


def _finished(config: Config, place: Placement) -> dict | None:
    record = None if config.overwrite else records.find(config)
    if record and place.kind == "data" and record["placement"]["devices"] != place.replicas:
        raise records.RecordMismatch(
            f"{records.path(config)} is of batches split over {record['placement']['devices']} "
            f"devices, not {place.replicas}: use another --results_dir, or train again with "
            "--overwrite."
        )
    return record


def _describe(place: Placement, cohort: Cohort, config: Config, splits: data.Splits) -> dict:
    """Where a run is trained, for its record and the user, if it is no ordinary place."""
    if place.kind == "one":
        return {}
    received = place.bytes_per_step(cohort, config.batch_size, splits.num_classes)
    print(place.describe(cohort, received), flush=True)
    return {
        "placement": {
            "kind": place.kind,
            "processes": place.cluster.size,
            "devices": place.devices_used,
            "bytes_per_step": received,
        }
    }


def _analyse_finished(config: Config, splits: data.Splits) -> dict | None:
    """The record of a run that lacked only its analysis, if its weights are still there."""
    record = None if config.overwrite else records.find(config.replace(analyse=False))
    if not record or not model_path(config).exists():
        return None
    record["analysis"] = analysis.analyse(keras.saving.load_model(model_path(config)), splits)
    records.write(record, records.path(config))
    return record


def load_teacher(config: Config, splits: data.Splits) -> keras.Model:
    """The pre-trained first network of a distillation (Sec. 4.6).

    Args:
        config: The run's settings. `teacher` is a `.keras` file, or the id of a run in the same
            results folder; by default the independent run of the first network with the same
            settings and seed, which is trained first if it has to be.
        splits: The run's data, which the teacher must fit.

    Returns:
        The network.

    Raises:
        FileNotFoundError: There is no such file or run.
        FlagError: It is for other images or classes.
    """
    if config.teacher:
        file = records.weights(config, config.teacher)
    else:
        file = _independent_teacher(config.default_teacher)
    if not file.exists():
        raise FileNotFoundError(
            f"--teacher={config.teacher}: there is no {file}. Give a .keras file or the id of a "
            f"run in {config.results_dir}, or leave the flag out to have the teacher trained."
        )
    model = keras.saving.load_model(file)
    teacher = model.networks[0] if isinstance(model, Cohort) else model
    made_for = (tuple(teacher.input_shape[1:]), _classes(teacher))
    needed = (splits.train.images.shape[1:], splits.num_classes)
    if made_for != needed:
        raise FlagError(
            f"--teacher: {file} takes images of shape {made_for[0]} in {made_for[1]} classes; "
            f"this run has {needed[0]} in {needed[1]}."
        )
    return teacher


def save_model(cohort: Cohort, file: Path):
    """Writes a cohort so that nobody ever sees half of it.

    Args:
        cohort: What to save.
        file: Where to, ending in `.keras`; its folder is made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".part{os.getpid()}.{file.name}")
    try:
        cohort.save(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def summary(record: dict) -> str:
    """One line for each peer of a finished run.

    Args:
        record: The run's record.

    Returns:
        Lines with accuracy in percent and cross-entropy in nats, or mAP and rank-1 in percent.
    """
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
    """The processor, its cores and the system, in words."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join([*gpus, f"{name}, {os.cpu_count()} cores", platform.system()])


class StopAtNaN(keras.callbacks.Callback):
    """Ends a run whose loss is not a finite number, before its weights are saved."""

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the losses of every step.

        Args:
            batch: Index of the step in its epoch.
            logs: The metrics so far.

        Raises:
            RunFailed: A peer's loss is not finite.
        """
        for name, value in logs.items():
            if not math.isfinite(value):
                peer, _, loss = name.partition("_supervised")
                if not loss:
                    continue
                step = int(self.model.optimizers[0].iterations.numpy())
                raise RunFailed(
                    f"The loss of peer {peer} is {value} at step {step}. Its weights before the "
                    "last finished epoch are kept. Try a smaller --learning_rate."
                )


class StopAfter(keras.callbacks.Callback):
    """Ends training after a number of steps, in the middle of an epoch if need be.

    Args:
        steps: Steps of the whole run.
        per_epoch: Steps of an epoch.
    """

    def __init__(self, steps: int, per_epoch: int):
        super().__init__()
        self._steps, self._per_epoch, self._before = steps, per_epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the epochs before.

        Args:
            epoch: Index of the epoch.
            logs: None.
        """
        self._before = epoch * self._per_epoch

    def on_train_batch_end(self, batch, logs=None):
        """Counts the steps; those that a loss scale skipped, too, so that processes agree.

        Args:
            batch: Index of the step in its epoch.
            logs: The metrics so far.
        """
        if self._before + batch + 1 >= self._steps:
            self.model.stop_training = True


class Progress(keras.callbacks.ProgbarLogger):
    """Keras's progress bar with the accuracies only; TensorBoard and the record have the rest."""

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar.

        Args:
            batch: Index of the step in its epoch.
            logs: The metrics so far.
        """
        super().on_train_batch_end(batch, _accuracies(logs))

    def on_epoch_end(self, epoch, logs=None):
        """Ends the bar.

        Args:
            epoch: Index of the epoch.
            logs: Its metrics.
        """
        super().on_epoch_end(epoch, _accuracies(logs))


def _accuracies(logs: dict) -> dict:
    return {name: value for name, value in logs.items() if name.endswith("_accuracy")}


def _check_networks(config: Config):
    for name in config.net:
        try:
            networks.parse(name)
        except ValueError as error:
            raise FlagError(f"--net: {error}") from None


def _independent_teacher(alone: Config) -> Path:
    if not model_path(alone).exists():
        run(alone.replace(overwrite=True))
    return model_path(alone)


def _classes(network: keras.Model) -> int:
    outputs = network.output
    return (outputs["logits"] if isinstance(outputs, dict) else outputs).shape[-1]


def _folder(config: Config, kind: str) -> Path:
    return Path(config.results_dir) / kind


def _verbosity(verbose: int | None) -> int:
    return verbose if verbose is not None else 1 if sys.stdout.isatty() else 2


def _versions() -> dict[str, str]:
    return {
        "dml_tf": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


@contextlib.contextmanager
def _lock(config: Config, place: Placement) -> Iterator[None]:
    """Holds a run against a second one, and a part in it against a second process."""
    busy = RunFailed(
        f"Another process is training {config.run_id} in {config.results_dir}. Wait for it, or use "
        "another --results_dir."
    )
    names = {place.process_name} | ({""} if place.cluster.is_chief else set())
    with contextlib.ExitStack() as held:
        for name in sorted(names):
            held.enter_context(state.hold(_folder(config, "locks") / (config.run_id + name), busy))
        yield
