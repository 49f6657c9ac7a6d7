"""The settings of one run, checked: its name, its command, its length.

`runs/settings.py` declares the settings; `load` reads them from flag files.
"""

import dataclasses
import functools
import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dml_tf import home
from dml_tf.data import steps_per_epoch
from dml_tf.errors import FlagError
from dml_tf.runs import checks, flag_files, values
from dml_tf.runs.checks import refuse
from dml_tf.runs.settings import MOST_STEPS, Settings
from dml_tf.runs.values import nearest, to_flag

# Not hashed in a run id: what names a run, and what does not change its result.
_IDENTITY = ("dataset", "method", "net", "cohort", "seed")
_WITHOUT_EFFECT = (
    "data_dir", "results_dir", "features_out", "analyse", "overwrite",
    "jit_compile", "steps_per_execution", "save_minutes", "max_memory_gb", "pictures_gb",
    "wait_minutes", "strict",
)  # fmt: skip


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
class Config(Settings):
    """Settings of one run; immutable, checked when it is made.

    Make one with `load`, which starts from the data set's flag file. Every field is a flag of the
    same name, described in its metadata and by `python train.py --help`.

    Raises:
        FlagError: For a value out of range, or settings that contradict each other.
    """

    def __post_init__(self):
        checks.refuse_unknown_dataset(self.dataset)
        problems = [*checks.out_of_range(self), *self._fill_peers()]
        if not self.results_dir:
            self._set("results_dir", str(home.HOME / "results" / self._results_name()))
        refuse([*problems, *checks.contradictions(self)])

    @functools.cached_property
    def run_id(self) -> str:
        """`<dataset>-<method>-<nets>-seed<n>`, and a hash of what differs from the flag files."""
        widths = re.sub(r":(?=[0-9.])", "w", "+".join(self.net))
        nets = widths.replace(":", ".")  # of a module and its function
        name = f"{self.dataset}-{self.method}-{nets}-seed{self.seed}"
        differing = self.differing()
        if not differing:
            return name
        text = json.dumps(differing, sort_keys=True)
        return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def comparable(self) -> dict:
        """The settings that decide a run's outcome, as a record keeps them.

        Peers learn the same wherever they are; a split batch has other BatchNorm statistics.
        """
        return _comparable(dataclasses.asdict(self))

    @property
    def command(self) -> str:
        """The command line that asks for this run, without what depends on the machine."""
        flags = {"dataset": self.dataset, "net": self.net, "method": self.method}
        if self.scale != _defaults(self.dataset)["scale"]:
            flags["scale"] = self.scale
        flags |= self.differing() | ({"seed": self.seed} if self.seed else {})
        return " ".join([home.TRAIN, *(shlex.quote(to_flag(n, v)) for n, v in flags.items())])

    @property
    def teachers(self) -> range:
        """Indices of the frozen networks, the first ones of `--net`."""
        if self.method == "distill":
            return range(self.cohort - 1)
        return range(1 if self.method == "dml" and self.teacher else 0)

    @property
    def default_teacher(self) -> "Config":
        """The independent run of the teachers with the same settings and seed."""
        return self.replace(
            net=self.net[:-1], cohort=self.cohort - 1, method="independent", overwrite=False,
            mimicry="kl", target="each", standardise=False, mimicry_weight=1.0, ramp_epochs=0.0,
            burn_in_epochs=0.0, temperature=1.0, feature_weight=0.0, own_views=False, analyse=False,
            features_out="",
        )  # fmt: skip

    def schedule(self, images: int) -> Schedule:
        """How long the run trains on so many training images; `FlagError` for too many steps."""
        per_epoch = steps_per_epoch(images, self.batch_size)
        steps = self.steps or self.epochs * per_epoch
        if steps > MOST_STEPS:
            raise FlagError(f"--epochs={self.epochs} are {steps:,} steps; give fewer.")
        return Schedule(steps, math.ceil(steps / per_epoch), per_epoch)

    def replace(self, **changes) -> "Config":
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def differing(self) -> dict:
        """The settings that differ from the flag files, without those that name a run."""
        base = _comparable(_defaults(self.dataset, self.scale))
        ours = self.comparable()
        named = (*_IDENTITY, "scale")
        return {k: v for k, v in ours.items() if k not in named and v != base[k]}

    def _results_name(self) -> str:
        """Your own pictures have a results folder of their name, other data one of their scale."""
        if self.dataset == "image_folder" and self.data_dir:
            return Path(self.data_dir).expanduser().resolve().name or self.scale
        return self.scale

    def _set(self, name: str, value):
        object.__setattr__(self, name, value)

    def _fill_peers(self) -> list[str]:
        """Gives each peer its network; returns what is wrong."""
        if not self.net:
            return ["--net is missing: name one network, or one for each peer."]
        size = self.cohort or len(self.net)
        if len(self.net) not in (1, size):
            return [
                f"--net names {len(self.net)} networks for --cohort={size}: name one for all "
                "peers, or one for each."
            ]
        if size <= FIELDS["cohort"].metadata["high"]:
            self._set("net", tuple(self.net) * (size if len(self.net) == 1 else 1))
        self._set("cohort", size)
        if not self.method:
            self._set("method", "dml" if size > 1 else "independent")
        return []


FIELDS: Mapping[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(Config)}


def load(**settings) -> Config:
    """A config from the flag files of its data set and scale, with some settings changed.

    Args:
        **settings: `dataset`, and any other field by its name; values may be text, as in flags.

    Returns:
        The config.

    Raises:
        FlagError: For an unknown name, a value out of range or a contradiction.

    Examples:
        >>> config = load(dataset="cifar10", net=("resnet32",), cohort=2)
        >>> config.method, config.batch_size, config.run_id
        ('dml', 64, 'cifar10-dml-resnet32+resnet32-seed0')
    """
    explicit, problems = _typed(settings)
    try:
        config = _checked(explicit)
    except FlagError as error:
        refuse([*problems, str(error)])
    refuse(problems)
    return config


def _checked(explicit: Mapping[str, object]) -> Config:
    dataset = explicit.get("dataset", "")
    checks.refuse_unknown_dataset(dataset)
    config = Config(**_defaults(dataset, explicit.get("scale", "")) | explicit)
    refuse(checks.without_effect(config, explicit))
    return config


def _defaults(dataset: str, scale: str = "") -> dict[str, object]:
    """Every setting as the flag files of a data set and a scale have it; not checked."""
    settings = {name: field.default for name, field in FIELDS.items()}
    settings |= _of_file(dataset)
    scale = scale or settings["scale"]
    return settings | _of_file(dataset, scale) | {"scale": scale}


def _of_file(dataset: str, scale: str = "") -> dict[str, object]:
    typed, problems = _typed(flag_files.settings_of(dataset, scale))
    refuse(problems)
    return typed


def _comparable(settings: dict) -> dict:
    settings = json.loads(json.dumps(settings))
    settings["placement"] = "data" if settings["placement"] == "data" else "one"
    return {key: settings[key] for key in settings if key not in _WITHOUT_EFFECT}


def _typed(settings: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The settings in the types of their fields, and what is wrong with the others."""
    typed, problems = {}, []
    for name, value in settings.items():
        if name not in FIELDS:
            problems.append(f"Unknown setting {name!r}{nearest(name, FIELDS)}")
            continue
        try:
            typed[name] = values.read(FIELDS[name], value)
        except FlagError as error:
            problems.append(str(error))
    return typed, problems
