"""What a cohort accepts: its options, networks, names and optimizers."""

import re
import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np

UPDATES = ("sequential", "simultaneous")
MIMICRIES = ("kl", "js", "dkd", "dist", "ensemble", "none")
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
    if not 0 <= cohort.label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1); got {cohort.label_smoothing!r}.")
    check_mimicry(cohort.mimicry, cohort.temperature)
    check_networks(cohort.networks)
    check_frozen(cohort.frozen, len(cohort.networks))
    check_views_and_copies(cohort)


def check_mimicry(mimicry, temperature: float):
    """Refuses what computes no loss, and two temperatures for one loss."""
    if not callable(mimicry) and mimicry not in MIMICRIES:
        raise ValueError(
            f"mimicry must be one of {', '.join(MIMICRIES)}, or a callable such as "
            f"dml_tf.KL(temperature=2); got {mimicry!r}."
        )
    if temperature == 1 or not callable(mimicry):
        return
    if hasattr(mimicry, "temperature"):
        name = type(mimicry).__name__
        raise ValueError(
            f"temperature={temperature} is for a mimicry given by name, and this one is an object: "
            f"write mimicry={name}(temperature={temperature}) and leave the other one out."
        )
    if not isinstance(mimicry, keras.losses.Loss):
        raise ValueError(
            f"temperature={temperature} is for a mimicry given by name; a function divides the "
            "logits itself."
        )


def check_keras_loss(loss: keras.losses.Loss):
    """Refuses a Keras loss that compares no distributions; says what those do that clip."""
    name = type(loss).__name__
    if name.startswith("Sparse"):
        raise ValueError(
            f"mimicry=keras.losses.{name}() takes class indices, and a peer teaches a "
            "distribution: use mimicry='kl'."
        )
    if isinstance(loss, keras.losses.KLDivergence) or loss.get_config().get("from_logits") is False:
        warnings.warn(
            f"keras.losses.{name} clips probabilities at 1e-7: where a student gives a class less, "
            "it learns nothing about that class from its peers. mimicry='kl' works with "
            "log-probabilities and has no such limit.",
            stacklevel=6,
        )


def check_backend():
    """Refuses a Keras that does not compute with TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras uses the backend {keras.backend.backend()!r}, and dml_tf trains with "
            "TensorFlow: set KERAS_BACKEND=tensorflow, in the environment or in "
            "~/.keras/keras.json, before Keras is imported."
        )


def check_file(filepath):
    """Refuses a legacy file, which cannot hold a cohort."""
    name = str(filepath)
    if name.endswith((".h5", ".hdf5")):
        raise ValueError(
            f"{name} has the legacy HDF5 format, which holds one network and one optimizer, and a "
            "cohort has several: save to a .keras file, or its weights alone with "
            "save_weights('NAME.weights.h5')."
        )


def network_list(networks, others: Sequence) -> list[keras.Model]:
    """The networks as a list; refuses what is no list of Keras models."""
    if others or isinstance(networks, keras.Layer):
        given = ", ".join(getattr(net, "name", "...") for net in (networks, *others))
        raise TypeError(f"Cohort takes a list of networks: write Cohort([{given}]).")
    networks = list(networks)
    for k, network in enumerate(networks):
        if not isinstance(network, keras.Layer):
            raise TypeError(
                f"networks[{k}] is of type {type(network).__name__}, not a Keras model."
            )
    return networks


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


def check_features(outputs: Mapping[str, Mapping]):
    """Refuses a feature distance of peers that return no features; outputs by peer."""
    lacking = [name for name, output in outputs.items() if "features" not in output]
    if lacking:
        raise ValueError(
            f"feature_weight compares features, and {lacking[0]!r} returns none: let it return a "
            "dict with 'logits' and 'features'."
        )


def check_frozen(frozen: Sequence[int], count: int):
    """Refuses indices that are no peers, and a cohort in which nobody learns."""
    if len(set(frozen)) != len(frozen) or not set(frozen) < set(range(count)):
        raise ValueError(
            f"frozen must hold different peer indices from 0 to {count - 1} and leave at least "
            f"one peer to learn; got {frozen!r}."
        )


def check_views_and_copies(cohort):
    """Refuses copies or views of networks whose variables or inputs are not known yet."""
    if cohort.stale_steps < 0:
        raise ValueError(f"stale_steps must not be negative; got {cohort.stale_steps!r}.")
    unbuilt = [network.name for network in cohort.networks if not network.built]
    if unbuilt and (cohort.stale_steps or cohort.own_views):
        option = "stale_steps" if cohort.stale_steps else "own_views"
        raise ValueError(
            f"{option} needs networks that are built, and {unbuilt[0]!r} is not: call its "
            "build(input_shape), or begin it with keras.Input."
        )


def check_names(names: Sequence[str], count: int):
    """Refuses names that two peers would share, or that mean something else."""
    if len(names) != count or len(set(names)) != len(names):
        raise ValueError(
            f"names must give each of the {count} peers a different name; got {names!r}."
        )
    if "ensemble" in names:
        raise ValueError("'ensemble' names the cohort's mean prediction; rename that peer.")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", name):
            raise ValueError(
                f"The name {name!r} cannot name metrics: use letters, digits, '_', '-' and '.' "
                "only. Rename the network, or pass names=[...] with a name for each peer."
            )


def warn_of_equal_peers(networks: Sequence[keras.Model], names: Sequence[str]):
    """Warns of students that start from the same weights: each step leaves them equal."""
    built = [(name, net) for name, net in zip(names, networks, strict=True) if net.built]
    for i, (name, network) in enumerate(built):
        for other, copy in built[:i]:
            if _are_equal(network, copy):
                warnings.warn(
                    f"Peers {other!r} and {name!r} have equal weights. They stay equal, or nearly "
                    "so with sequential updates, and learn next to nothing from each other. Build "
                    "each from a seed of its own; of two copies of a pre-trained network, give "
                    "each a new last layer.",
                    stacklevel=4,
                )


def _are_equal(network: keras.Model, other: keras.Model) -> bool:
    ours, theirs = network.trainable_weights, other.trainable_weights
    if [w.shape for w in ours] != [w.shape for w in theirs] or not ours:
        return False
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(ours, theirs, strict=True))


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
