"""What a cohort accepts: its options, networks, names and batches."""

from collections.abc import Sequence

import keras
import tensorflow as tf

UPDATES = ("sequential", "simultaneous")
MIMICRIES = ("kl", "js", "ensemble", "none")
PEER_REDUCTIONS = ("mean", "sum")
ENSEMBLE_AVERAGES = ("probability", "logit")


def check_choice(option: str, value: str, accepted: Sequence[str]):
    """Refuses a value that is not one of the accepted ones."""
    if value not in accepted:
        raise ValueError(f"{option} must be one of {', '.join(accepted)}; got {value!r}.")


def check_temperature(temperature: float):
    """Refuses a temperature by which logits cannot be divided."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; got {temperature!r}.")


def check_options(cohort):
    """Refuses options of a cohort that are out of range."""
    check_choice("update", cohort.update, UPDATES)
    check_choice("peer_reduction", cohort.peer_reduction, PEER_REDUCTIONS)
    check_choice("ensemble_average", cohort.ensemble_average, ENSEMBLE_AVERAGES)
    check_temperature(cohort.temperature)
    check_mimicry(cohort.mimicry, cohort.temperature)
    check_networks(cohort.networks)
    check_frozen(cohort.frozen, len(cohort.networks))


def check_mimicry(mimicry, temperature: float):
    """Refuses what computes no loss, and two temperatures for one loss."""
    if not callable(mimicry) and mimicry not in MIMICRIES:
        raise ValueError(
            f"mimicry must be one of {', '.join(MIMICRIES)}, or a callable such as "
            f"dml_tf.KL(temperature=2); got {mimicry!r}."
        )
    if hasattr(mimicry, "temperature") and temperature != 1:
        name = type(mimicry).__name__
        raise ValueError(
            f"temperature={temperature} is for a mimicry given by name, and this one is an object: "
            f"write mimicry={name}(temperature={temperature}) and leave the other one out."
        )


def check_networks(networks: Sequence[keras.Model]):
    """Refuses peers that are not separate networks."""
    if not networks:
        raise ValueError("A cohort needs at least one network; networks is empty.")
    owner: dict[int, int] = {}
    for k, network in enumerate(networks):
        for variable in network.weights:
            other = owner.setdefault(id(variable), k)
            if other != k:
                raise ValueError(
                    f"Peers {other} and {k} share the variable {variable.path!r}. Peers must be "
                    "separate networks: build each one anew, or use keras.models.clone_model."
                )
    if len({id(network) for network in networks}) != len(networks):
        raise ValueError("The same network is given for two peers: build each one anew.")


def check_frozen(frozen: Sequence[int], count: int):
    """Refuses indices that are no peers, and a cohort in which nobody learns."""
    if len(set(frozen)) != len(frozen) or not set(frozen) < set(range(count)):
        raise ValueError(
            f"frozen must hold different peer indices from 0 to {count - 1} and leave at least "
            f"one peer to learn; got {frozen!r}."
        )


def check_names(names: Sequence[str], count: int):
    """Refuses names that two peers would share, or that mean something else."""
    if len(names) != count or len(set(names)) != len(names):
        raise ValueError(
            f"names must give each of the {count} peers a different name; got {names!r}."
        )
    if "ensemble" in names:
        raise ValueError("'ensemble' names the cohort's mean prediction; rename that peer.")


def check_optimizers(optimizers: Sequence[keras.optimizers.Optimizer], count: int):
    """Refuses optimizers that are not one for each of `count` peers."""
    if len(optimizers) != count:
        raise ValueError(
            f"compile() got {len(optimizers)} optimizers for {count} students; give one for each "
            "peer that is not frozen, or a single one to be copied for each."
        )
    if len({id(optimizer) for optimizer in optimizers}) != count:
        raise ValueError(
            "Two peers share an optimizer instance, and with it its momenta. Give each its own, "
            "or pass a single optimizer to be copied for each."
        )


def images_and_labels(data) -> tuple[tf.Tensor, tf.Tensor]:
    """Images and integer labels of a batch; labels come out with shape `(batch,)`."""
    images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None:
        raise ValueError("A cohort needs labels: pass y, with -1 for unlabelled images.")
    if sample_weight is not None:
        raise ValueError("A cohort does not take sample_weight or class_weight.")
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, axis=1)
    if labels.shape.rank not in (None, 1):
        raise ValueError(
            f"Labels must be class indices of shape (batch,); got shape {tuple(labels.shape)}. "
            "For one-hot labels pass y.argmax(axis=-1)."
        )
    return images, tf.cast(labels, tf.int64)
