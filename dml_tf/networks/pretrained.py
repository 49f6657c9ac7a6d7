"""Starting a network from trained weights (Table 3, 'pre?'): all of them but the classifier's."""

import re
import warnings
from pathlib import Path

import keras

# Keras publishes ImageNet weights of the paper's networks for MobileNet only, at these widths.
_IMAGENET_WIDTHS = (0.25, 0.5, 0.75, 1.0)


def load(network: keras.Model, name: str, source: str) -> None:
    """Puts trained weights into a network and leaves its classifier as it is.

    Args:
        network: As `build` makes it.
        name: The name it was built by, such as `mobilenet:0.5`.
        source: `imagenet`, for Keras's published weights, which are downloaded once; or a file:
            a saved network or cohort (`.keras`; of a cohort, the first peer), or a network's
            weights (`.weights.h5`).

    Raises:
        ValueError: There are no published weights for the network, or a file's do not fit; the
            message names the layers.
        FileNotFoundError: The file is not there, or the weights cannot be downloaded.
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
        saved = keras.saving.load_model(file, compile=False)
        _copy(saved.networks[0] if hasattr(saved, "networks") else saved, network, str(file))
    elif file.name.endswith(".weights.h5"):
        _load_weights(file, network)
    else:
        raise ValueError(f"--pretrained={source}: give a .keras file or a .weights.h5 file.")


def _imagenet(name: str) -> keras.Model:
    label, _, width = name.partition(":")
    width = float(width or 1.0)
    if label != "mobilenet" or width not in _IMAGENET_WIDTHS:
        raise ValueError(
            f"--pretrained=imagenet: Keras has no ImageNet weights for {name!r}, only for "
            "mobilenet and mobilenet:0.25, 0.5 or 0.75. Give a file of your own."
        )
    try:
        return keras.applications.MobileNet(
            input_shape=(224, 224, 3), alpha=width, include_top=False, weights="imagenet"
        )
    except Exception as error:  # Keras passes on whatever the download raised
        raise FileNotFoundError(
            f"--pretrained=imagenet: Keras's weights cannot be downloaded ({error}). Put them "
            "into ~/.keras/models, or give a file."
        ) from error


def _weighted(network: keras.Model) -> list[keras.Layer]:
    """Layers that have weights, but for the classifier."""
    return [layer for layer in network.layers if layer.weights and layer.name != "logits"]


def _copy(source: keras.Model, target: keras.Model, origin: str) -> None:
    theirs, ours = _weighted(source), _weighted(target)
    shapes = [
        [[tuple(w.shape) for w in layer.weights] for layer in part] for part in (theirs, ours)
    ]
    if len(theirs) != len(ours):
        raise ValueError(
            f"--pretrained: {origin} has {len(theirs)} layers with weights, {target.name} has "
            f"{len(ours)} besides its classifier: it is another network."
        )
    _refuse_mismatch(
        [
            f"{layer.name} has {mine}, not {yours}"
            for layer, yours, mine in zip(ours, *shapes, strict=True)
            if yours != mine
        ],
        origin,
        target,
    )
    for source_layer, layer in zip(theirs, ours, strict=True):
        layer.set_weights(source_layer.get_weights())


def _load_weights(file: Path, network: keras.Model) -> None:
    classifier = network.get_layer("logits")
    new = classifier.get_weights()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            network.load_weights(file, skip_mismatch=True)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"--pretrained: {file} cannot be read ({error}).") from error
    classifier.set_weights(new)
    # Keras lists what it skipped in one warning: `[<Conv2D name=conv2d, built=True>, ...]`.
    text = " ".join(str(w.message).partition("List of objects")[2] for w in caught)
    skipped = [name for name in re.findall(r"name=([\w-]+)", text) if name != "logits"]
    _refuse_mismatch(skipped, str(file), network)


def _refuse_mismatch(layers: list[str], origin: str, target: keras.Model) -> None:
    if layers:
        raise ValueError(
            f"--pretrained: {origin} does not fit {target.name}: {'; '.join(layers[:5])}"
            f"{f'; and {len(layers) - 5} more' if len(layers) > 5 else ''}."
        )
