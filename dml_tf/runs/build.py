"""The data and the compiled cohort of a run, with its initial weights."""

import contextlib
import sys
import warnings
from collections.abc import Iterator

import keras
import numpy as np

from dml_tf import data, networks
from dml_tf.data import Splits
from dml_tf.data.stored import Pictures, WholePictures
from dml_tf.errors import DataWarning, FlagError, RunFailed
from dml_tf.method import optimizers
from dml_tf.method.cohort import Cohort
from dml_tf.method.mimicry import Mimicry
from dml_tf.method.peers import RemoteNetwork
from dml_tf.method.ramp import Ramp
from dml_tf.networks import own, pretrained, trusted
from dml_tf.runs import records
from dml_tf.runs.checks import ENTROPY_SGD, refuse
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles
from dml_tf.runs.parallel.placement import Placement
from dml_tf.runs.settings import MOST_STEPS
from dml_tf.runs.values import nearest

_MIMICRY = {"independent": "none", "dml_e": "ensemble"}  # of other methods: the flag's
_COMPILED = {"auto": None, "true": True, "false": False}
_EXAMPLES = (  # names that a mistyped one is compared with
    "resnet8", "resnet20", "resnet32", "resnet110", "wrn-10-2", "wrn-28-10",
    "mobilenet", "mobilenet_short", "inception_v1",
)  # fmt: skip


def check_network_names(config: Config):
    """Refuses a name in `--net` that is no network's."""
    problems = []
    for name in config.net:
        try:
            networks.parse(name)
        except ValueError as error:
            near = nearest(name.partition(":")[0], _EXAMPLES).removeprefix(".").removesuffix(".")
            problems.append(f"--net: {error}{near}")
    refuse(problems)


def load_data(config: Config) -> Splits:
    """The images of a run.

    Args:
        config: The run's settings.

    Returns:
        Its splits.

    Raises:
        FileNotFoundError: There are none; the message says what to do.
        RunFailed: They are refused or damaged, or a flag asks for what they do not have.
    """
    try:
        with _notices(config):
            splits = data.load(config)
            if config.strict:
                _look_at_pictures(splits)
        if isinstance(splits.train.images, WholePictures):
            print(
                f"{config.dataset}: all pixels together need more than --pictures_gb="
                f"{config.pictures_gb:g}, so each picture is decoded when it is needed.",
                file=sys.stderr,
                flush=True,
            )
        config.schedule(len(splits.train))
    except ValueError as error:
        raise RunFailed(str(error)) from error
    return splits


@contextlib.contextmanager
def _notices(config: Config) -> Iterator[None]:
    """Prints what was skipped or converted, once each; with `--strict` it is refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notices = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, DataWarning))
    if notices and config.strict:
        raise RunFailed("\n".join(["--strict refuses these data:", *notices]))
    for notice in notices:
        print(f"{config.dataset}: {notice}", file=sys.stderr, flush=True)
    for other in caught:
        if not issubclass(other.category, DataWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def _look_at_pictures(splits: Splits):
    """Warns of what is unusual in pictures on disk, which are decoded later."""
    for name in ("train", "validation", "test"):
        split = getattr(splits, name)
        if split is not None and isinstance(split.images, Pictures):
            split.images.notes(name).warn()


def check_fit(config: Config, splits: Splits):
    """Refuses settings that do not fit the data, or the networks for them."""
    if config.patience and splits.validation is None:
        raise FlagError(
            f"--patience={config.patience} needs validation images: add --validation_fraction=0.1."
        )
    _check_features(config, splits)


def _check_features(config: Config, splits: Splits):
    """Refuses a feature distance between peers whose features differ in width."""
    if not config.feature_weight or len(set(config.net)) == 1:
        return
    shape = splits.train.images.shape[1:]
    widths = {}
    for name in dict.fromkeys(config.net):
        with _bad_network_refused():
            network = networks.build(name, num_classes=splits.num_classes, input_shape=shape)
        if "features" in network.output:
            widths[name] = network.output["features"].shape[-1]
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{width} of {name}" for name, width in widths.items())
        raise FlagError(
            f"--feature_weight compares features of one width, and there are {listed}: give "
            "networks of the same width, or leave it out."
        )


def build_cohort(
    config: Config,
    splits: Splits,
    place: Placement | None = None,
    images: int = 0,
    precision: str = "",
) -> Cohort:
    """The compiled cohort of a run, with its initial weights.

    Peer k of seed s starts from the same weights in every method, so that runs of two methods
    pair by seed. Nothing is trained here: a teacher must exist.

    Args:
        config: The run's settings.
        splits: The run's data.
        place: Where the peers are. Default: all in this process, on the default device.
        images: Training images by which the schedule counts epochs; 0 for those of the data.
        precision: Of the networks that are made here. Default: that of the settings.

    Returns:
        The cohort, compiled with the run's optimizers.

    Raises:
        FileNotFoundError: The teacher, or the weights to start from, are missing.
        FlagError: They are for other images, classes or networks.
    """
    place = place or Placement()
    per_epoch = config.schedule(images or len(splits.train)).steps_per_epoch
    with place.scope():
        with _precision(precision or config.precision):
            peers = [_peer(config, splits, k, place) for k in range(config.cohort)]
        cohort = Cohort(
            peers,
            update=config.update,
            **_mimicry(config),
            peer_reduction=config.peer_reduction,
            ensemble_average=config.ensemble_average,
            mimicry_weight=_weight(config, per_epoch),
            feature_weight=config.feature_weight,
            entropy_weight=config.entropy_weight,
            label_smoothing=config.label_smoothing,
            frozen=config.teachers,
            stale_steps=config.stale_steps,
            own_views=config.own_views,
            placement=place,
        )
        chosen = []
        for k in cohort.trained:
            with place.on(k):
                chosen.append(optimizer(config, per_epoch, k))
        cohort.compile(
            chosen,
            jit_compile=_COMPILED[config.jit_compile] if place.kind == "one" else False,
            steps_per_execution=max(config.steps_per_execution, 1),
        )
    return cohort


def _mimicry(config: Config) -> dict:
    """The mimicry loss: by its name if that says all, otherwise as an object."""
    if config.target == "each" and not config.standardise:
        name = _MIMICRY.get(config.method, config.mimicry)
        return {"mimicry": name, "temperature": config.temperature}
    made = Mimicry(config.target, config.mimicry, config.temperature, config.standardise)
    return {"mimicry": made}


def _weight(config: Config, steps_per_epoch: int) -> float | Ramp:
    """The weight of the mimicry loss, as a number if it does not change."""
    if not config.ramp_epochs and not config.burn_in_epochs:
        return config.mimicry_weight
    steps, burn_in = (
        round(epochs * steps_per_epoch) for epochs in (config.ramp_epochs, config.burn_in_epochs)
    )
    return Ramp(steps, config.mimicry_weight, burn_in)


def load_teacher(config: Config, splits: Splits, k: int = 0) -> keras.Model:
    """A pre-trained network that teaches (Sec. 4.6): one of the first networks of a run.

    Args:
        config: The run's settings. `teacher` is a `.keras` file or the id of a run in the same
            results folder; by default it is `config.default_teacher`'s. A cohort's first networks
            are the teachers.
        splits: The run's data, which the teacher must fit.
        k: Which network of the run.

    Returns:
        The network.

    Raises:
        FileNotFoundError: There is no such file or run.
        FlagError: It is for other images or classes.
        FileRefused: It is damaged, or contains more than networks and weights.
        RecordMismatch: It was trained on other data.
    """
    if config.teacher:
        file = RunFiles.of(config).weights(config.teacher)
    else:
        file = RunFiles.of(config.default_teacher).model
    if not file.exists():
        raise FileNotFoundError(
            f"--teacher={config.teacher}: there is no {file}. Give a .keras file or the id of a "
            f"run in {config.results_dir}. With --method=distill, leave the flag out to have the "
            "teacher trained."
        )
    records.refuse_other_teacher(file, config, splits)
    model = trusted.load_model(file, own.modules(config.net))
    found = model.networks if isinstance(model, Cohort) else [model]
    if k >= len(found):
        raise FlagError(
            f"--net names {len(config.teachers)} teachers before the students, and {file} has "
            f"{len(found)}: name fewer networks, or give another --teacher."
        )
    teacher = found[k]
    made_for = (tuple(teacher.input_shape[1:]), _classes(teacher))
    needed = (splits.train.images.shape[1:], splits.num_classes)
    if made_for != needed:
        raise FlagError(
            f"--teacher: {file} takes images of shape {made_for[0]} in {made_for[1]} classes; "
            f"this run has {needed[0]} in {needed[1]}."
        )
    return teacher


def _peer(config: Config, splits: Splits, k: int, place: Placement) -> keras.Model:
    with place.on(k):
        if k in config.teachers:
            return load_teacher(config, splits, k)
        if not place.trains(k):
            return RemoteNetwork(networks.parse(config.net[k])[0])
        return _network(config, splits, k)


def _network(config: Config, splits: Splits, k: int) -> keras.Model:
    with _bad_network_refused():
        network = networks.build(
            config.net[k],
            num_classes=splits.num_classes,
            input_shape=splits.train.images.shape[1:],
            weight_decay=0.0 if config.optimizer == "adamw" else config.weight_decay,
            decay_depthwise=config.decay_depthwise,
            batch_norm_momentum=config.batch_norm_momentum,
            batch_norm_epsilon=config.batch_norm_epsilon,
            batch_norm_ema=config.ema if config.ema_statistics else 0.0,
            dropout=config.dropout,
            init=config.init,
            seed=peer_seed(config, k),
            mean=splits.mean.tolist(),
            std=splits.std.tolist(),
        )
    _refuse_missing_features(network, config, splits, k)
    if source := config.pretrained:
        if source != "imagenet":
            source = RunFiles.of(config).weights(source)
            records.refuse_altered(source)
        try:
            pretrained.load(network, config.net[k], str(source))
        except ValueError as error:
            raise FlagError(str(error)) from error
    return network


@contextlib.contextmanager
def _bad_network_refused() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise FlagError(f"--net: {error}") from error


def _refuse_missing_features(network: keras.Model, config: Config, splits: Splits, k: int):
    """Refuses a function's network that lacks the features which a run needs."""
    needed = splits.reid or config.feature_weight or config.analyse
    if needed and "features" not in network.output:
        raise FlagError(
            f"--net={config.net[k]} returns no features, which re-identification, "
            "--feature_weight and --analyse need: return a dict with 'logits' and 'features', the "
            "output of the last pooling layer."
        )


def learning_rate(config: Config, steps_per_epoch: int):
    """The run's schedule over training steps, or its constant learning rate."""
    drop = min(config.decay_epochs * steps_per_epoch, MOST_STEPS)
    return optimizers.staircase(config.learning_rate, config.decay_rate, drop)


def optimizer(config: Config, steps_per_epoch: int, peer: int = 0) -> keras.optimizers.Optimizer:
    """The optimizer of one peer, with the run's schedule; each peer has its own noise."""
    own = {}
    if config.optimizer == "entropy_sgd":
        own = {name: getattr(config, name) for name in ENTROPY_SGD}
    return optimizers.build(
        config.optimizer,
        learning_rate(config, steps_per_epoch),
        momentum=config.momentum,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        rho=config.rho,
        epsilon=config.epsilon,
        mean_square_start=config.mean_square_start,
        weight_decay=config.weight_decay,
        ema=config.ema,
        seed=peer_seed(config, peer),
        **own,
    )


def peer_seed(config: Config, k: int) -> int:
    """Seed of peer k's initial weights, dropout and noise."""
    return int(np.random.SeedSequence([config.seed, k]).generate_state(1)[0])


def _classes(network: keras.Model) -> int:
    outputs = network.output
    return (outputs["logits"] if isinstance(outputs, dict) else outputs).shape[-1]


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Layers made here compute in a precision, which Keras has as a global setting only."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
