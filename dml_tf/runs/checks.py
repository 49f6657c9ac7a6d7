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
from dml_tf.data.draws import crop_pad
from dml_tf.errors import FlagError
from dml_tf.runs.values import nearest, to_flag

_MUTUAL = ("method", ("dml", "dml_e", "distill"))
_REID = ("dataset", REID_DATASETS)
_CLASSIFICATION = ("dataset", tuple(name for name in DATASETS if name not in REID_DATASETS))
ENTROPY_SGD = (  # settings of that optimizer alone
    "langevin_steps", "langevin_rate", "langevin_noise", "langevin_average",
    "scope", "scope_growth",
)  # fmt: skip
# Setting -> (the setting that decides whether it is used, its values that use it).
_USED_WITH = {
    "update": ("method", ("dml", "dml_e")),
    "mimicry": ("method", ("dml", "distill")),
    "target": ("method", ("dml", "distill")),
    "standardise": ("method", ("dml", "distill")),
    "peer_reduction": ("method", ("dml",)),
    "ensemble_average": ("method", ("dml_e",)),
    "mimicry_weight": _MUTUAL,
    "temperature": _MUTUAL,
    "feature_weight": _MUTUAL,
    "ramp_epochs": _MUTUAL,
    "burn_in_epochs": _MUTUAL,
    "stale_steps": ("method", ("dml", "dml_e")),
    "teacher": ("method", ("dml", "distill")),
    "labelled_identities": _REID,
    "features_out": _REID,
    "stored_size": _REID,
    "train_images": _CLASSIFICATION,
    "validation_fraction": _CLASSIFICATION,
    "watch_test": _CLASSIFICATION,
    "patience": _CLASSIFICATION,
    "labelled_fraction": _CLASSIFICATION,
    "momentum": ("optimizer", ("sgd", "rmsprop", "entropy_sgd")),
    "beta_1": ("optimizer", ("adam", "adamw")),
    "beta_2": ("optimizer", ("adam", "adamw")),
    "rho": ("optimizer", ("rmsprop",)),
    "epsilon": ("optimizer", ("adam", "adamw", "rmsprop")),
    "mean_square_start": ("optimizer", ("rmsprop",)),
    **dict.fromkeys(ENTROPY_SGD, ("optimizer", ("entropy_sgd",))),
}


def refuse(problems: Iterable[str]):
    """Raises `FlagError` with all problems, each on a line of its own."""
    if found := list(dict.fromkeys(problems)):
        raise FlagError("\n  ".join(found))


def refuse_unknown_dataset(dataset: str):
    """Refuses a name that is no data set's."""
    if dataset not in DATASETS:
        accepted = f"Give one of {' | '.join(DATASETS)}."
        if not dataset:
            raise FlagError(f"--dataset is missing. {accepted}")
        raise FlagError(
            f"--dataset={dataset} is not a data set{nearest(dataset, DATASETS)} {accepted}"
        )


def out_of_range(config) -> Iterator[str]:
    """Values that are not among their field's choices, or outside its limits."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        if choices and value not in choices and value != field.default:
            near = nearest(str(value), choices)
            yield f"--{field.name}={value} is not among {' | '.join(choices)}{near}"
        if low is not None and not low <= value <= high:
            limits = f"{low:g} to {high:,}" if isinstance(high, int) else f"{low:g} to {high:g}"
            yield f"--{field.name}={value} is out of range: it takes numbers from {limits}."


def without_effect(config, explicit: Iterable[str]) -> Iterator[str]:
    """Explicit settings that the chosen method, optimizer or data set would ignore."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in explicit:
        value = getattr(config, name)
        owner, users = _USED_WITH.get(name, ("", ()))
        if owner and value != defaults[name] and getattr(config, owner) not in users:
            yield (
                f"{to_flag(name, value)} has no effect with --{owner}={getattr(config, owner)}: "
                f"it is for --{owner}={' | '.join(users)}."
            )


def contradictions(config) -> Iterator[str]:
    """What is wrong with settings that contradict each other."""
    for is_wrong, message in (
        *_of_the_method(config),
        *_of_averages(config),
        *_of_the_data(config),
        *_of_mixing(config),
        *_of_peers(config),
        *_of_stopping(config),
        *_of_speed(config),
    ):
        if is_wrong:
            yield message


def _of_the_method(config) -> Iterator[tuple[bool, str]]:
    yield (
        not config.epochs and not config.steps,
        "Set --epochs or --steps: neither is above 0.",
    )
    yield (
        config.method not in ("", "independent") and config.cohort < 2,
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
        not config.decay_depthwise and (not config.weight_decay or config.optimizer == "adamw"),
        "--decay_depthwise=False has no effect without --weight_decay, or with --optimizer=adamw.",
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
    sides = config.image_size if isinstance(config.image_size, tuple) else (config.image_size,)
    yield (
        config.augment in ("crop_flip", "randaugment") and 0 < min(sides) <= crop_pad(sides[0]),
        f"--image_size={config.image_size} with --augment={config.augment}: a crop reflects "
        f"{crop_pad(sides[0])} pixels at the border, which the images lack. Use larger images, or "
        "--augment=flip.",
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


def _of_mixing(config) -> Iterator[tuple[bool, str]]:
    mixup = f"--mixup={config.mixup:g}"
    yield (
        config.mixup > 0 and config.dataset in (*STREAMED_DATASETS, *REID_DATASETS),
        f"{mixup} is not for --dataset={config.dataset}: it mixes classified images in memory.",
    )
    yield (
        config.mixup > 0 and config.labelled_fraction < 1 and config.unlabelled == "use",
        f"{mixup} mixes labels, which some images lack with --labelled_fraction="
        f"{config.labelled_fraction:g}: leave out one of the two, or add --unlabelled=drop.",
    )
    yield (
        config.mixup > 0 and config.placement == "data",
        f"{mixup} mixes whole batches; it is not for --placement=data.",
    )


def _of_peers(config) -> Iterator[tuple[bool, str]]:
    yield (
        config.stale_steps > 0 and config.placement != "one",
        f"--stale_steps={config.stale_steps} is for --placement=one: the copies are there.",
    )
    wrong = {
        "--placement=one": config.placement != "one",
        "--augment=flip, crop_flip or randaugment": config.augment in ("none", "inception"),
        "images without --mixup": config.mixup > 0,
        "a cohort of two or more": config.cohort < 2,
        "images in memory": config.dataset in STREAMED_DATASETS,
    }
    yield (
        config.own_views and any(wrong.values()),
        f"--own_views is for {', '.join(what for what in wrong if wrong[what])}.",
    )


def _of_stopping(config) -> Iterator[tuple[bool, str]]:
    yield (
        config.patience > 0 and config.watch_test,
        f"--patience={config.patience} chooses an epoch by validation images, and --watch_test "
        "measures the test images after every epoch: leave out one of the two.",
    )
    yield (
        config.patience > 0 and config.placement != "one",
        f"--patience={config.patience} is for --placement=one.",
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
    yield (
        config.precision == "auto" and config.placement != "one",
        f"--precision=auto measures all peers on one device; with --placement={config.placement} "
        "give float32 or mixed_bfloat16.",
    )
