"""The paper's networks, Sec. 4.1 and Table 1, by name.

A body maps images to the last maps; `build` adds the classifier that all of them share.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial

import keras

from dml_tf.networks import inception, mobilenet, resnet, wide_resnet
from dml_tf.networks.layers import Layers

NAMES = (
    "resnet<6n+2>, wrn-<6n+4>-<k>, mobilenet, mobilenet_short, inception_v1; "
    "with a width as in resnet8:16 (base channels) or mobilenet_short:0.5 (multiplier)"
)

Body = Callable[[keras.KerasTensor, Layers], keras.KerasTensor]


def build(
    name: str,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    width: float | None = None,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    seed: int | None = None,
) -> keras.Model:
    """Build a network that returns its logits and the feature of its last pooling layer.

    Args:
        name: A form of `NAMES`. The model is called by it, without the width.
        num_classes: Number of classes.
        input_shape: Height and width in pixels, and channels, of an image.
        width: Base number of channels of a ResNet or WRN, multiplier of a MobileNet; None for the
            one in the name, or else the publication's.
        weight_decay: Coupled decay: `weight_decay * theta` is added to the gradient of each
            convolution, depthwise and dense kernel, through `model.losses`. BatchNorm and biases
            have none (Sec. 4.1 follows the Torch code of [28]).
        dropout: Fraction of the features dropped before the classifier.
        seed: Fixes the initial weights and the dropout masks, whatever was drawn or built before;
            None takes them from Keras' global seed.

    Returns:
        A functional model from float images, shape `(batch, height, width, channels)`, to a dict
        of float32 tensors: `logits`, shape `(batch, num_classes)`, and `features`, shape
        `(batch, dim)`.

    Raises:
        ValueError: If the name, the width or the input shape is not one that a network can have.

    Example:
        >>> import numpy as np
        >>> net = build("resnet8", num_classes=10, input_shape=(16, 16, 3), seed=0)
        >>> outputs = net(np.zeros((2, 16, 16, 3), "float32"))
        >>> {key: tuple(value.shape) for key, value in sorted(outputs.items())}
        {'features': (2, 64), 'logits': (2, 10)}
    """
    label, body = parse(name, width)
    if len(input_shape) != 3 or not all(input_shape) or min(input_shape) < 1:
        raise ValueError(
            f"Input shape {tuple(input_shape)} is not (height, width, channels): "
            "give three positive integers, as in (32, 32, 3)."
        )
    images = keras.Input(tuple(input_shape), name="images")
    layers = Layers(weight_decay=weight_decay, seed=seed)
    outputs = layers.classify(body(images, layers), num_classes, dropout)
    return keras.Model(images, outputs, name=label)


def count_parameters(network: keras.Model) -> int:
    """Number of trainable parameters, as Table 1 counts them.

    Args:
        network: A built network.

    Returns:
        Elements of all trainable weights; BatchNorm's running statistics are none.
    """
    return sum(math.prod(weight.shape) for weight in network.trainable_weights)


def parse(name: str, width: float | None = None) -> tuple[str, Body]:
    """Read a network's name without building it.

    Args:
        name: A form of `NAMES`.
        width: As in `build`; must agree with a width in the name.

    Returns:
        The name without its width, and the body that maps images and `Layers` to the last maps.

    Raises:
        ValueError: If the name is not of a form of `NAMES`, or the width does not fit.

    Example:
        >>> parse("resnet8:16")[0]
        'resnet8'
        >>> parse("resnet31")
        Traceback (most recent call last):
        ValueError: No network 'resnet31': its depth must be 6n+2. Use resnet26 or resnet32.
    """
    label, colon, written = name.partition(":")
    body, width_type = _find(label)
    if colon:
        in_name = _number(name, written)
        if width is not None and width != in_name:
            raise ValueError(
                f"Network {name!r} was asked for with width={width:g}: give one width, or the same."
            )
        width = in_name
    if width is None:
        return label, body
    if width_type is None:
        raise ValueError(f"Network {label!r} has no width: leave out width {width:g}.")
    if not 0 < width < float("inf") or width_type(width) != width:
        kind = "a whole number of channels, as in 16" if width_type is int else "as in 0.5"
        raise ValueError(f"Width {width:g} of {label!r} must be positive, {kind}.")
    return label, partial(body, width=width_type(width))


def _number(name: str, written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise ValueError(
            f"Width {written!r} in network {name!r} is not a number. Accepted: {NAMES}."
        ) from None


def _find(label: str) -> tuple[Body, type | None]:
    """Body of the network called `label`, and the type of its width if it has one."""
    if match := re.fullmatch(r"resnet([1-9][0-9]*)", label):
        return partial(resnet.resnet, blocks=_blocks(label, match, 2)), int
    if match := re.fullmatch(r"wrn-([1-9][0-9]*)-([1-9][0-9]*)", label):
        blocks = _blocks(label, match, 4)
        return partial(wide_resnet.wide_resnet, blocks=blocks, factor=int(match[2])), int
    others = {
        "mobilenet": (mobilenet.mobilenet, float),
        "mobilenet_short": (mobilenet.mobilenet_short, float),
        "inception_v1": (inception.inception_v1, None),
    }
    if label not in others:
        raise ValueError(f"No network {label!r}. Accepted: {NAMES}.")
    return others[label]


def _blocks(label: str, match: re.Match, extra: int) -> int:
    """Residual blocks in each of three stages; the depth in the name must be 6n + extra."""
    blocks, rest = divmod(int(match[1]) - extra, 6)
    if blocks >= 1 and not rest:
        return blocks
    below = 6 * max(blocks, 1) + extra
    depths = [below, below + 6] if blocks >= 1 else [below]
    valid = " or ".join(f"{label[: match.start(1)]}{d}{label[match.end(1) :]}" for d in depths)
    raise ValueError(f"No network {label!r}: its depth must be 6n+{extra}. Use {valid}.")
