"""The settings of one run: an immutable dataclass whose fields are the flags.

Name, type, help and default of a setting are declared here, once. A data set's defaults are in
`flags/<dataset>.flags`, a scale's in `flags/<scale>/<dataset>.flags`. Explicit settings override
the scale's file, which overrides the data set's file.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dml_tf import home
from dml_tf.data import (
    AUGMENTATIONS,
    DATASETS,
    REID_DATASETS,
    STREAMED_AUGMENTATIONS,
    STREAMED_DATASETS,
    steps_per_epoch,
)
from dml_tf.runs import flag_files
from dml_tf.runs.errors import FlagError

SCALES = ("smoke", "mini", "cpu", "paper")
METHODS = ("independent", "dml", "dml_e", "distill")

# Not hashed in a run id: what names a run, and what does not change its result.
_IDENTITY = ("dataset", "method", "net", "cohort", "seed")
_WITHOUT_EFFECT = (
    "data_dir", "results_dir", "features_out", "analyse", "overwrite",
    "jit_compile", "steps_per_execution",
)  # fmt: skip


def _setting(default, help_text: str, choices: Sequence[str] = (), low=None, high=None):
    return dataclasses.field(
        default=default,
        metadata={"help": help_text, "choices": tuple(choices), "low": low, "high": high},
    )


class Schedule(NamedTuple):
    """Length of a run.

    Attributes:
        steps: Training steps of the whole run.
        epochs: Epochs of the whole run; the last one may be shorter than the others.
        steps_per_epoch: Training steps of a full epoch.
    """

    steps: int
    epochs: int
    steps_per_epoch: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; immutable, checked when it is made.

    Make one with `load`, which starts from the data set's flag file. Every field is a flag of the
    same name, described in its metadata and by `python train.py --help`.

    Raises:
        FlagError: For a value out of range, or settings that contradict each other.
    """

    dataset: str = _setting("", "Data set; its flag file gives the other defaults.", DATASETS)
    scale: str = _setting("paper", "Scale of the experiment.", SCALES)
    data_dir: str = _setting("", "Folder or archive with the data; data that can be is made.")
    net: tuple[str, ...] = _setting((), "Networks, comma-separated; one name serves all peers.")
    cohort: int = _setting(0, "Number of peers; 0 means as many as networks are named.", low=0)
    method: str = _setting(
        "", "Default: dml for a cohort of two or more, else independent.", METHODS
    )
    update: str = _setting(
        "sequential",
        "Peers one after the other (Algorithm 1), or all from the same predictions (Sec. 4.5).",
        ("sequential", "simultaneous"),
    )
    mimicry: str = _setting("kl", "Mimicry loss: Eq. (4), or Eq. (7) as printed.", ("kl", "js"))
    peer_reduction: str = _setting(
        "mean", "Mean over the peers (Eq. 10), or sum, as the authors' code.", ("mean", "sum")
    )
    ensemble_average: str = _setting(
        "probability", "What DML_e's teacher averages (Eq. 11: probability).",
        ("probability", "logit"),
    )  # fmt: skip
    mimicry_weight: float = _setting(1.0, "Factor of the mimicry loss.", low=0.0)
    temperature: float = _setting(1.0, "Divisor of the logits in the mimicry loss.", low=1e-3)
    feature_weight: float = _setting(0.0, "Factor of the feature distance (Table 5, L2).", low=0.0)
    entropy_weight: float = _setting(0.0, "Factor of the confidence penalty (Table 5).", low=0.0)
    teacher: str = _setting(
        "", "distill: a .keras file or a run id; default, the independent run of the first net."
    )
    pretrained: str = _setting(
        "", "Start from imagenet's weights (mobilenet), a run's, or a .keras or .weights.h5 file's."
    )
    optimizer: str = _setting(
        "sgd", "Optimizer (Sec. 4.1; Table 5's 'Entropy' is entropy_sgd).",
        ("sgd", "adam", "rmsprop", "entropy_sgd"),
    )  # fmt: skip
    learning_rate: float = _setting(0.1, "Initial learning rate.", low=0.0)
    decay_epochs: int = _setting(0, "Epochs between drops of the learning rate; 0: none.", low=0)
    decay_rate: float = _setting(0.1, "Factor of each drop.", low=0.0, high=1.0)
    momentum: float = _setting(0.0, "sgd, entropy_sgd (Nesterov), rmsprop.", low=0.0, high=1.0)
    beta_1: float = _setting(0.9, "adam: decay of the first moment.", low=0.0, high=1.0)
    beta_2: float = _setting(0.999, "adam: decay of the second moment.", low=0.0, high=1.0)
    rho: float = _setting(0.9, "rmsprop: decay of the mean square.", low=0.0, high=1.0)
    epsilon: float = _setting(1e-7, "adam, rmsprop: added to the denominator.", low=0.0)
    mean_square_start: float = _setting(
        0.0, "rmsprop: initial mean square; 1 is TensorFlow 1's start.", low=0.0
    )
    langevin_steps: int = _setting(
        20, "entropy_sgd: mini-batches for each move of the weights.", low=1
    )
    langevin_rate: float = _setting(0.1, "entropy_sgd: step size of the inner loop.", low=0.0)
    langevin_noise: float = _setting(1e-4, "entropy_sgd: thermal noise.", low=0.0)
    langevin_average: float = _setting(
        0.75, "entropy_sgd: share of the newest sample in their mean.", low=0.0, high=1.0
    )
    scope: float = _setting(0.03, "entropy_sgd: initial pull towards the weights.", low=0.0)
    scope_growth: float = _setting(1e-3, "entropy_sgd: growth of the pull a move.", low=0.0)
    epochs: int = _setting(0, "Passes over the training images.", low=0)
    steps: int = _setting(0, "Training steps, in place of epochs; 0: by epochs.", low=0)
    batch_size: int = _setting(64, "Images in a mini-batch, the same for all peers.", low=1)
    weight_decay: float = _setting(0.0, "Coupled L2 on kernels: gradient w x theta.", low=0.0)
    dropout: float = _setting(0.0, "Rate of dropout before the classifier.", low=0.0, high=0.99)
    label_smoothing: float = _setting(0.0, "Mass spread over all classes.", low=0.0, high=0.99)
    ema: float = _setting(
        0.0, "Decay of averaged weights, used for evaluation; 0: none.", low=0.0, high=1.0
    )
    augment: str = _setting(
        "none", "Random flips; with reflect-padded random crops; for ImageNet, Inception's crops.",
        dict.fromkeys((*AUGMENTATIONS, *STREAMED_AUGMENTATIONS)),
    )  # fmt: skip
    image_size: int | tuple[int, int] = _setting(
        0, "Side of the images in pixels, or HEIGHTxWIDTH for re-identification; 0: the data's own."
    )
    train_images: int = _setting(0, "Training images, an even subset by seed; 0: all.", low=0)
    validation_fraction: float = _setting(
        0.0, "Part of the training images held out for validation.", low=0.0, high=0.9
    )
    watch_test: bool = _setting(
        False, "Measure the test images after every epoch too, for curves (Fig. 2a); nothing is "
        "chosen by it.",
    )  # fmt: skip
    labelled_fraction: float = _setting(
        1.0, "Part of each class's training images with labels (Sec. 4.10).", low=0.0, high=1.0
    )
    labelled_identities: int = _setting(
        0, "Re-identification: training identities with labels (Sec. 4.10); 0: all.", low=0
    )
    unlabelled: str = _setting(
        "use", "Unlabelled images: mimicry loss only (DML-all), or left out.", ("use", "drop")
    )
    placement: str = _setting(
        "one",
        "All on the first device; peer k on device k, or with TF_CONFIG in process k; or every "
        "peer mirrored on all devices, with TF_CONFIG of all processes, and the batch split.",
        ("one", "peers", "data"),
    )
    precision: str = _setting(
        "float32",
        "Of the networks; weights, logits and losses are float32 always.",
        ("float32", "mixed_float16", "mixed_bfloat16"),
    )
    jit_compile: str = _setting(
        "auto",
        "Compile the step with XLA; auto: on a GPU that has all peers.",
        ("auto", "true", "false"),
    )
    steps_per_execution: int = _setting(
        1, "Steps in one call of TensorFlow, between two looks at the progress.", low=1
    )
    seed: int = _setting(0, "Seed of initial weights, subset, order and augmentation.", low=0)
    results_dir: str = _setting("", "Where records and weights go; default results/<scale>.")
    features_out: str = _setting("", "Re-identification: .npz file for the test features.")
    analyse: bool = _setting(
        False, "Add weight noise, ranked posteriors and t-SNE to the record (Figs. 4, 5)."
    )
    overwrite: bool = _setting(False, "Train again although a record is there.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_range(field, getattr(self, field.name))
        if not self.dataset:
            raise FlagError(f"--dataset is missing; it takes {' | '.join(DATASETS)}.")
        self._fill_peers()
        if not self.results_dir:
            self._set("results_dir", str(home.HOME / "results" / self.scale))
        if not self.epochs and not self.steps:
            raise FlagError("Set --epochs or --steps: neither is above 0.")
        self._refuse_contradictions()

    @functools.cached_property
    def run_id(self) -> str:
        """`<dataset>-<method>-<nets>-seed<n>`, and a hash of what differs from the flag files."""
        nets = "+".join(self.net).replace(":", "w")
        name = f"{self.dataset}-{self.method}-{nets}-seed{self.seed}"
        identity = [key for key in (*_IDENTITY, "scale") if key != "seed"]
        base = load(**{key: getattr(self, key) for key in identity}).comparable()
        differing = {
            key: value
            for key, value in self.comparable().items()
            if value != base[key] and key not in _IDENTITY
        }
        if not differing:
            return name
        text = json.dumps(differing, sort_keys=True)
        return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def comparable(self) -> dict:
        """The settings that decide a run's outcome, as a record keeps them.

        Peers learn the same wherever they are; a split batch has other BatchNorm statistics.
        """
        settings = json.loads(json.dumps(dataclasses.asdict(self)))
        settings["placement"] = "data" if self.placement == "data" else "one"
        return {key: settings[key] for key in settings if key not in _WITHOUT_EFFECT}

    @property
    def command(self) -> str:
        """The command line that asks for this run, without what depends on the machine."""
        identity = {"dataset": self.dataset, "net": self.net, "method": self.method}
        if self.scale != load(**identity).scale:
            identity["scale"] = self.scale
        ours, base = self.comparable(), load(**identity).comparable()
        identity |= {name: ours[name] for name in ours if ours[name] != base[name]}
        return " ".join(["python train.py", *(to_flag(n, v) for n, v in identity.items())])

    @property
    def default_teacher(self) -> "Config":
        """The independent run of the first network with the same settings and seed."""
        return self.replace(
            net=self.net[:1], cohort=1, method="independent", mimicry="kl", overwrite=False,
            mimicry_weight=1.0, temperature=1.0, feature_weight=0.0, analyse=False,
        )  # fmt: skip

    def schedule(self, images: int) -> Schedule:
        """How long the run trains on so many training images.

        Raises:
            ValueError: There are fewer images than one batch.
        """
        per_epoch = steps_per_epoch(images, self.batch_size)
        steps = self.steps or self.epochs * per_epoch
        return Schedule(steps, math.ceil(steps / per_epoch), per_epoch)

    def replace(self, **changes) -> "Config":
        """A copy with some fields changed, checked anew.

        Args:
            **changes: Field names and their new values.

        Returns:
            The new config.
        """
        return dataclasses.replace(self, **changes)

    def _set(self, name: str, value):
        object.__setattr__(self, name, value)

    def _fill_peers(self):
        if not self.net:
            raise FlagError("--net is missing: name one network, or one for each peer.")
        size = self.cohort or len(self.net)
        if len(self.net) not in (1, size):
            raise FlagError(
                f"--net names {len(self.net)} networks for --cohort={size}: name one for all "
                "peers, or one for each."
            )
        self._set("net", tuple(self.net) * (size if len(self.net) == 1 else 1))
        self._set("cohort", size)
        if not self.method:
            self._set("method", "dml" if size > 1 else "independent")

    def _refuse_contradictions(self):
        if self.method != "independent" and self.cohort < 2:
            raise FlagError(
                f"--method={self.method} needs two peers or more: set --cohort, or name more "
                "networks in --net."
            )
        if self.method == "distill" and self.cohort != 2:
            raise FlagError(
                "--method=distill takes two networks in --net: the teacher, then the student."
            )
        if isinstance(self.image_size, tuple) and self.dataset not in REID_DATASETS:
            raise FlagError(
                f"--image_size={self.image_size[0]}x{self.image_size[1]} is for --dataset="
                f"{' | '.join(REID_DATASETS)}; {self.dataset} takes one side."
            )
        streamed = self.dataset in STREAMED_DATASETS
        augmentations = STREAMED_AUGMENTATIONS if streamed else AUGMENTATIONS
        if self.augment not in augmentations:
            raise FlagError(
                f"--augment={self.augment} is not for --dataset={self.dataset}, which takes "
                f"{' | '.join(augmentations)}."
            )
        if self.watch_test and self.validation_fraction:
            raise FlagError(
                f"--watch_test and --validation_fraction={self.validation_fraction:g}: only one "
                "set of images is measured after every epoch; leave out one of the two."
            )
        if self.jit_compile == "true" and self.placement != "one":
            raise FlagError(
                f"--jit_compile=true compiles a step for one device; with --placement="
                f"{self.placement} leave it out."
            )
        if self.precision == "mixed_float16" and self.placement == "data":
            raise FlagError(
                "--precision=mixed_float16 needs one loss scale for all parts of a split batch, "
                "which Keras does not keep: use mixed_bfloat16 with --placement=data."
            )
        if self.labelled_fraction == 0.0:
            raise FlagError("--labelled_fraction must be above 0: something must have labels.")
        if (
            self.unlabelled == "drop"
            and self.labelled_fraction == 1.0
            and (not self.labelled_identities)
        ):
            raise FlagError(
                "--unlabelled=drop does nothing while all training images are labelled: set "
                "--labelled_fraction, or --labelled_identities for re-identification."
            )


FIELDS: Mapping[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Config)}

# Setting -> (the setting that decides whether it is used, its values that use it).
_MUTUAL = ("method", ("dml", "dml_e", "distill"))
_USED_WITH = {
    "update": ("method", ("dml", "dml_e")),
    "mimicry": ("method", ("dml", "distill")),
    "peer_reduction": ("method", ("dml",)),
    "ensemble_average": ("method", ("dml_e",)),
    "mimicry_weight": _MUTUAL,
    "temperature": _MUTUAL,
    "feature_weight": _MUTUAL,
    "teacher": ("method", ("distill",)),
    "labelled_identities": ("dataset", REID_DATASETS),
    "features_out": ("dataset", REID_DATASETS),
    **dict.fromkeys(
        ("train_images", "validation_fraction", "watch_test", "labelled_fraction"),
        ("dataset", tuple(name for name in DATASETS if name not in REID_DATASETS)),
    ),
    "momentum": ("optimizer", ("sgd", "rmsprop", "entropy_sgd")),
    "beta_1": ("optimizer", ("adam",)),
    "beta_2": ("optimizer", ("adam",)),
    "rho": ("optimizer", ("rmsprop",)),
    "epsilon": ("optimizer", ("adam", "rmsprop")),
    "mean_square_start": ("optimizer", ("rmsprop",)),
    **dict.fromkeys(
        (
            "langevin_steps",
            "langevin_rate",
            "langevin_noise",
            "langevin_average",
            "scope",
            "scope_growth",
        ),
        ("optimizer", ("entropy_sgd",)),
    ),
}


def load(**settings) -> Config:
    """A config from the flag files of its data set and scale, with some settings changed.

    Args:
        **settings: `dataset`, and any other field by its name; values may be text, as in flags.

    Returns:
        The config.

    Raises:
        FlagError: For an unknown name, a value out of range or a contradiction.

    Example:
        >>> config = load(dataset="cifar10", net=("resnet32",), cohort=2)
        >>> config.method, config.batch_size, config.run_id
        ('dml', 64, 'cifar10-dml-resnet32+resnet32-seed0')
    """
    explicit = _typed(settings)
    dataset = explicit.get("dataset", "")
    if dataset not in DATASETS:
        named = f"--dataset={dataset} is not a data set" if dataset else "--dataset is missing"
        raise FlagError(f"{named}: give one of {' | '.join(DATASETS)}.")
    base = _typed(flag_files.settings_of(dataset))
    scale = (base | explicit).get("scale", FIELDS["scale"].default)
    config = Config(**base | _typed(flag_files.settings_of(dataset, scale)) | explicit)
    _refuse_ineffective(config, explicit)
    return config


def to_flag(name: str, value) -> str:
    """The command-line form of a setting: `--name=value`, sequences joined by commas."""
    if isinstance(value, (tuple, list)):
        value = ("x" if name == "image_size" else ",").join(map(str, value))
    return f"--{name}={value}"


def _typed(settings: Mapping[str, object]) -> dict[str, object]:
    unknown = sorted(settings.keys() - FIELDS.keys())
    if unknown:
        raise FlagError(f"Unknown setting {unknown[0]!r}; there are {', '.join(FIELDS)}.")
    return {name: _value(FIELDS[name], value) for name, value in settings.items()}


def _value(field: dataclasses.Field, value):
    """A value, or its text, in the type of its field."""
    if field.name == "image_size":
        return _size(value)
    if field.name == "net":
        return tuple(value.split(",")) if isinstance(value, str) else tuple(value)
    try:
        if field.type is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[value]
        if field.type is int and isinstance(value, float):
            raise ValueError
        return field.type(value)
    except (ValueError, TypeError, KeyError):
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise FlagError(f"{to_flag(field.name, value)} is not {kind[field.type]}.") from None


def _refuse_ineffective(config: Config, explicit: Mapping[str, object]):
    """Refuses a flag that the chosen method or optimizer would silently ignore."""
    for name in explicit:
        value = getattr(config, name)
        owner, users = _USED_WITH.get(name, ("", ()))
        if owner and value != FIELDS[name].default and getattr(config, owner) not in users:
            raise FlagError(
                f"--{name}={value} has no effect with --{owner}={getattr(config, owner)}: it is "
                f"for --{owner}={' | '.join(users)}."
            )


def _size(size: object) -> int | tuple[int, int]:
    """Reads `32` or `160x64`."""
    try:
        parts = size if isinstance(size, (tuple, list)) else str(size).split("x")
        numbers = tuple(int(part) for part in parts)
    except (ValueError, TypeError):
        numbers = ()
    if len(numbers) not in (1, 2) or min(numbers) < (len(numbers) == 2):
        raise FlagError(f"--image_size={size} is neither a side as in 32, nor HEIGHTxWIDTH.")
    return numbers if len(numbers) == 2 else numbers[0]


def _check_range(field: dataclasses.Field, value):
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if choices and value not in choices and value != field.default:
        raise FlagError(f"--{field.name}={value} is not among {' | '.join(choices)}.")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        limits = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise FlagError(f"--{field.name}={value} is out of range: it takes numbers {limits}.")
