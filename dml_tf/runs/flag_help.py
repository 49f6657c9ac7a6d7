"""Help on the flags, in groups; within a group, what is used most comes first."""

import dataclasses
import textwrap
from collections.abc import Mapping

# Heading -> flags. A flag that is not named here stands at the end of the last group.
GROUPS = {
    "Data": (
        "dataset", "data_dir", "image_size", "validation_fraction", "augment", "own_views", "mixup",
        "train_images", "labelled_fraction", "unlabelled", "labelled_identities", "stored_size",
    ),
    "Networks": ("net", "cohort", "pretrained", "dropout", "init", "precision"),
    "Method": (
        "method", "teacher", "update", "mimicry", "target", "mimicry_weight", "temperature",
        "standardise", "ramp_epochs", "burn_in_epochs", "stale_steps", "peer_reduction",
        "ensemble_average", "feature_weight", "entropy_weight",
        "label_smoothing",
    ),
    "Optimizer": (
        "epochs", "steps", "patience", "batch_size", "learning_rate", "optimizer", "momentum",
        "weight_decay", "decay_epochs", "decay_rate", "ema", "beta_1", "beta_2", "epsilon", "rho",
        "mean_square_start", "langevin_steps", "langevin_rate", "langevin_noise",
        "langevin_average", "scope", "scope_growth", "ema_statistics", "decay_depthwise",
        "batch_norm_momentum", "batch_norm_epsilon",
    ),
    "Run": (
        "seed", "results_dir", "overwrite", "scale", "watch_test", "analyse", "features_out",
        "placement", "jit_compile", "steps_per_execution", "save_minutes",
        "wait_minutes",
    ),
}  # fmt: skip
_WIDTH = 100
_COLUMN = 26  # where the explanations begin


def text(fields: Mapping[str, dataclasses.Field]) -> str:
    """Every flag with its explanation, choices and default.

    Args:
        fields: The fields of `Config` by name.
    """
    named = {name for names in GROUPS.values() for name in names}
    lines = [
        "Flags are written --name=value; --flagfile=FILE reads them from a file. Defaults are",
        "those without flags/DATASET.flags, which --dataset=DATASET reads first.",
    ]
    for heading, names in GROUPS.items():
        rest = [name for name in fields if name not in named] if heading == "Run" else []
        lines += ["", heading]
        lines += [_line(fields[name]) for name in (*names, *rest) if name in fields]
    return "\n".join(lines)


def _line(field: dataclasses.Field) -> str:
    about = field.metadata["help"]
    if choices := [choice for choice in field.metadata["choices"] if choice]:
        about += f" One of {' | '.join(choices)}."
    if field.default not in ("", (), 0, False) or field.type is float:
        about += f" Default: {field.default}."
    start = f"  --{field.name}"
    explained = textwrap.wrap(about, _WIDTH - _COLUMN)
    if len(start) >= _COLUMN - 1:
        return "\n".join([start, *(" " * _COLUMN + line for line in explained)])
    first, *more = explained
    return "\n".join([f"{start:{_COLUMN}}{first}", *(" " * _COLUMN + line for line in more)])
