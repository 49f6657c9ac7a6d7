"""Starting a network from trained weights (Table 3, 'pre?'), except the classifier's."""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from dml_tf import networks
from dml_tf.networks import own, trusted
from dml_tf.networks.layers import BatchNormalization

# Keras publishes ImageNet weights of the paper's networks for MobileNet only, at these widths.
_IMAGENET_WIDTHS = (0.25, 0.5, 0.75, 1.0)


def load(network: keras.Model, name: str, source: str) -> None:
    """Puts trained weights into a network and leaves its classifier as it is.

    Args:
        network: As `build` makes it.
        name: The name it was built with, such as `mobilenet:0.5`.
        source: `imagenet`, for Keras's published weights, which are downloaded once; or a file:
            a saved network or cohort (`.keras`; of a cohort, the first peer), or a network's
            weights (`.weights.h5`).

    Raises:
        ValueError: There are no published weights for the network, or the weights do not fit; the
            message names the layers.
        FileNotFoundError: The file does not exist, or the weights cannot be downloaded.
        FileRefused: The file is damaged, or contains more than networks and weights.

    Examples:
        >>> from dml_tf import networks
        >>> net = networks.build("resnet8", num_classes=10, input_shape=(16, 16, 3))
        >>> load(net, "resnet8", "absent.keras")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: --pretrained=absent.keras: there is no such file. Give imagenet, ...
    """
    if source == "imagenet":
        _copy(_imagenet(name), network, "Keras's ImageNet weights")
        return
    file = Path(source).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"--pretrained={source}: there is no such file. Give imagenet, a .keras file or a "
            ".weights.h5 file."
        )
    if file.suffix == ".keras":
        saved = trusted.load_model(file, own.modules([name]))
        _copy(saved.networks[0] if hasattr(saved, "networks") else saved, network, str(file))
    else:
        _load_weights(file, network)


def _imagenet(name: str) -> keras.Model:
    make = _published(name)
    try:
        return make(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises whatever the download raised
        raise FileNotFoundError(
            f"--pretrained=imagenet: Keras's weights cannot be downloaded ({error}). Put them "
            "into ~/.keras/models, or give a file."
        ) from error


def _published(name: str) -> Callable[..., keras.Model]:
    """What makes the network of keras.applications that has ImageNet weights for this one."""
    label, _, width = name.partition(":")
    if label == "mobilenet" and float(width or 1.0) in _IMAGENET_WIDTHS:
        return partial(
            keras.applications.MobileNet, input_shape=(224, 224, 3), alpha=float(width or 1.0)
        )
    if (make := networks.application(name)) is None:
        raise ValueError(
            f"--pretrained=imagenet: Keras has no ImageNet weights for {name!r}, only for "
            "mobilenet and mobilenet:0.25, 0.5 or 0.75, and for networks of keras.applications. "
            "Give a file of your own."
        )
    return make


def _classifier(network: keras.Model) -> keras.Layer | None:
    """The layer that makes the logits: the one of that name, or the last layer with weights.

    None where that cannot be told, as in a network inside another one, or without such an output.
    """
    weighted = [layer for layer in network.layers if layer.weights]
    if named := [layer for layer in weighted if layer.name == "logits"]:
        return named[0]
    outputs = network.output
    if not (isinstance(outputs, dict) and "logits" in outputs and weighted):
        return None
    last, classes = weighted[-1], outputs["logits"].shape[-1]
    is_own = not isinstance(last, keras.Model) and last.weights[-1].shape[-1] == classes
    return last if is_own else None


def _weighted(network: keras.Model) -> list[keras.Layer]:
    """Layers that have weights, except the classifier."""
    classifier = _classifier(network)
    return [layer for layer in network.layers if layer.weights and layer is not classifier]


def _copy(source: keras.Model, target: keras.Model, origin: str) -> None:
    given, ours = _weighted(source), _weighted(target)
    if len(given) != len(ours):
        raise ValueError(
            f"--pretrained: {origin} has {len(given)} layers with weights, {target.name} has "
            f"{len(ours)} besides its classifier: it is another network."
        )
    pairs = list(zip(given, ours, strict=True))
    differing = [
        f"{layer.name} has {_shapes(layer.weights)}, not {_shapes(other.weights)}"
        for other, layer in pairs
        if _shapes(_weights_for(layer, other)) != _shapes(layer.weights)
    ]
    _refuse_mismatch(differing, origin, target)
    for other, layer in pairs:
        layer.set_weights(_weights_for(layer, other))


def _weights_for(layer: keras.Layer, other: keras.Layer) -> list[np.ndarray]:
    """Another layer's weights, in the form of this one's."""
    weights = other.get_weights()
    return layer.complete(weights) if isinstance(layer, BatchNormalization) else weights


def _shapes(weights: Sequence) -> list[tuple]:
    return [tuple(weight.shape) for weight in weights]


def _load_weights(file: Path, network: keras.Model) -> None:
    """Loads a `.weights.h5` file, and puts the classifier's own weights back."""
    classifier = _classifier(network)
    if classifier is None:
        raise ValueError(
            f"--pretrained: of {network.name} it cannot be told which layer makes the logits: name "
            "it 'logits'."
        )
    new = classifier.get_weights()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trusted.load_weights(network, file, skip_mismatch=True)
    classifier.set_weights(new)
    # Keras lists the layers it skipped in a warning: `[<Conv2D name=conv2d, built=True>, ...]`.
    text = " ".join(str(w.message).partition("List of objects")[2] for w in caught)
    skipped = [name for name in re.findall(r"name=([\w-]+)", text) if name != classifier.name]
    _refuse_mismatch(skipped, str(file), network)


def _refuse_mismatch(layers: list[str], origin: str, target: keras.Model) -> None:
    if layers:
        raise ValueError(
            f"--pretrained: {origin} does not fit {target.name}: {'; '.join(layers[:5])}"
            f"{f'; and {len(layers) - 5} more' if len(layers) > 5 else ''}."
        )
