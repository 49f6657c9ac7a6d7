"""Which settings a run refuses: values out of range, contradictions, flags without effect."""

import dataclasses
from collections.abc import Iterable, Iterator

from dml_tf.data import (
    AUGMENTATIONS,
    DATASETS,
    REID_DATASETS,
    STREAMED_AUGMENTATIONS,
    STREAMED_DATASETS,
)
from dml_tf.errors import FlagError

_MUTUAL = ("method", ("dml", "dml_e", "distill"))
_REID = ("dataset", REID_DATASETS)
_CLASSIFICATION = ("dataset", tuple(name for name in DATASETS if name not in REID_DATASETS))
_ENTROPY_SGD = ("optimizer", ("entropy_sgd",))
# Setting -> (the setting that decides whether it is used, its values that use it).
_USED_WITH = {
    "update": ("method", ("dml", "dml_e")),
    "mimicry": ("method", ("dml", "distill")),
    "peer_reduction": ("method", ("dml",)),
    "ensemble_average": ("method", ("dml_e",)),
    "mimicry_weight": _MUTUAL,
    "temperature": _MUTUAL,
    "feature_weight": _MUTUAL,
    "teacher": ("method", ("distill",)),
    "labelled_identities": _REID,
    "features_out": _REID,
    "stored_size": _REID,
    "train_images": _CLASSIFICATION,
    "validation_fraction": _CLASSIFICATION,
    "watch_test": _CLASSIFICATION,
    "labelled_fraction": _CLASSIFICATION,
    "momentum": ("optimizer", ("sgd", "rmsprop", "entropy_sgd")),
    "beta_1": ("optimizer", ("adam",)),
    "beta_2": ("optimizer", ("adam",)),
    "rho": ("optimizer", ("rmsprop",)),
    "epsilon": ("optimizer", ("adam", "rmsprop")),
    "mean_square_start": ("optimizer", ("rmsprop",)),
    "langevin_steps": _ENTROPY_SGD,
    "langevin_rate": _ENTROPY_SGD,
    "langevin_noise": _ENTROPY_SGD,
    "langevin_average": _ENTROPY_SGD,
    "scope": _ENTROPY_SGD,
    "scope_growth": _ENTROPY_SGD,
}


def refuse_unknown_dataset(dataset: str):
    """Refuses a name that is no data set's."""
    if dataset not in DATASETS:
        named = f"--dataset={dataset} is not a data set" if dataset else "--dataset is missing"
        raise FlagError(f"{named}: give one of {' | '.join(DATASETS)}.")


def refuse_out_of_range(config):
    """Refuses a value that is not among its field's choices, or outside its limits."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        if choices and value not in choices and value != field.default:
            raise FlagError(f"--{field.name}={value} is not among {' | '.join(choices)}.")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            limits = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
            raise FlagError(f"--{field.name}={value} is out of range: it takes numbers {limits}.")


def refuse_without_effect(config, explicit: Iterable[str]):
    """Refuses an explicit setting that the chosen method, optimizer or data set would ignore."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in explicit:
        value = getattr(config, name)
        owner, users = _USED_WITH.get(name, ("", ()))
        if owner and value != defaults[name] and getattr(config, owner) not in users:
            raise FlagError(
                f"--{name}={value} has no effect with --{owner}={getattr(config, owner)}: it is "
                f"for --{owner}={' | '.join(users)}."
            )


def refuse_contradictions(config):
    """Refuses settings that contradict each other."""
    groups = (_of_the_method, _of_averages, _of_the_data, _of_speed)
    for is_wrong, message in (pair for group in groups for pair in group(config)):
        if is_wrong:
            raise FlagError(message)


def _of_the_method(config) -> Iterator[tuple[bool, str]]:
    yield (
        not config.epochs and not config.steps,
        "Set --epochs or --steps: neither is above 0.",
    )
    yield (
        config.method != "independent" and config.cohort < 2,
        f"--method={config.method} needs two peers or more: set --cohort, or name more networks "
        "in --net.",
    )
    yield (
        config.optimizer == "entropy_sgd" and config.langevin_rate * config.scope >= 1,
        f"--langevin_rate={config.langevin_rate:g} times --scope={config.scope:g} must be below 1, "
        "or the Langevin steps overshoot the weights: lower one of them.",
    )


def _of_averages(config) -> Iterator[tuple[bool, str]]:
    yield (
        config.ema_statistics and not config.ema,
        "--ema_statistics has no effect without --ema: set --ema, the decay of the averages.",
    )
    yield (
        not config.decay_depthwise and not config.weight_decay,
        "--decay_depthwise=False has no effect without --weight_decay: set both, or neither.",
    )


def _of_the_data(config) -> Iterator[tuple[bool, str]]:
    yield (
        isinstance(config.image_size, tuple) and config.dataset not in REID_DATASETS,
        f"--image_size={config.image_size} has a height and a width, which is for --dataset="
        f"{' | '.join(REID_DATASETS)}; {config.dataset} takes one side.",
    )
    streamed = config.dataset in STREAMED_DATASETS
    augmentations = STREAMED_AUGMENTATIONS if streamed else AUGMENTATIONS
    yield (
        config.augment not in augmentations,
        f"--augment={config.augment} is not for --dataset={config.dataset}, which takes "
        f"{' | '.join(augmentations)}.",
    )
    yield (
        config.watch_test and config.validation_fraction > 0,
        f"--watch_test and --validation_fraction={config.validation_fraction:g}: only one set of "
        "images is measured after every epoch; leave out one of the two.",
    )
    yield (
        config.labelled_fraction == 0.0,
        "--labelled_fraction must be above 0: some images must have labels.",
    )
    all_labelled = config.labelled_fraction == 1.0 and not config.labelled_identities
    yield (
        config.unlabelled == "drop" and all_labelled,
        "--unlabelled=drop has no effect while all training images have labels: set "
        "--labelled_fraction, or --labelled_identities for re-identification.",
    )


def _of_speed(config) -> Iterator[tuple[bool, str]]:
    yield (
        config.jit_compile == "true" and config.placement != "one",
        f"--jit_compile=true compiles a step for one device; with --placement={config.placement} "
        "leave it out.",
    )
    yield (
        config.precision == "mixed_float16" and config.placement == "data",
        "--precision=mixed_float16 needs one loss scale for all parts of a split batch, which "
        "Keras does not keep: use mixed_bfloat16 with --placement=data.",
    )
