"""The paper's networks, Sec. 4.1 and Table 1, by name.

To add a network, write its body, a function from images and `Layers` to the last maps, in a module
of its own. Give it a name in `_NETWORKS` below; `--net=NAME` then builds it. `build` adds the
classifier that all networks share.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import keras

from dml_tf.networks import inception, mobilenet, resnet, wide_resnet
from dml_tf.networks.layers import Layers

Body = Callable[[keras.KerasTensor, Layers], keras.KerasTensor]


@dataclass(frozen=True)
class _Network:
    """A body, and what a name like `resnet32:16` may say about it.

    Attributes:
        body: The body; it also takes the pattern's groups and the width as keywords.
        width: Type of the width: int for channels, float for a multiplier, None for no width.
        pattern: Of names with numbers: each group is a whole number. Default: the name itself.
        six_n_plus: What a depth leaves when it is divided by 6; for networks with a `depth`.
    """

    body: Callable[..., keras.KerasTensor]
    width: type | None = None
    pattern: str | None = None
    six_n_plus: int | None = None


_NETWORKS = {
    "resnet<6n+2>": _Network(
        resnet.resnet, width=int, pattern=r"resnet(?P<depth>[1-9][0-9]*)", six_n_plus=2
    ),
    "wrn-<6n+4>-<k>": _Network(
        wide_resnet.wide_resnet,
        width=int,
        pattern=r"wrn-(?P<depth>[1-9][0-9]*)-(?P<factor>[1-9][0-9]*)",
        six_n_plus=4,
    ),
    "mobilenet": _Network(mobilenet.mobilenet, width=float),
    "mobilenet_short": _Network(mobilenet.mobilenet_short, width=float),
    "inception_v1": _Network(inception.inception_v1),
}
NAMES = (
    f"{', '.join(_NETWORKS)}; "
    "with a width as in resnet8:16 (base channels) or mobilenet_short:0.5 (multiplier)"
)


def build(
    name: str,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    width: float | None = None,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    init: str = "goyal",
    seed: int | None = None,
) -> keras.Model:
    """Build a network that returns its logits and the feature of its last pooling layer.

    Args:
        name: One of the forms in `NAMES`. It is also the model's name, without the width.
        num_classes: Number of classes.
        input_shape: Height and width in pixels, and channels, of an image.
        width: Base number of channels of a ResNet or WRN, multiplier of a MobileNet; None for the
            width in the name, or else the one of the publication.
        weight_decay: Coupled decay: `weight_decay * theta` is added to the gradient of each
            convolution, depthwise and dense kernel, through `model.losses`. BatchNorm and biases
            have none (Sec. 4.1 follows the Torch code of [28]).
        dropout: Fraction of the features dropped before the classifier.
        init: First weights. `goyal`: He's for convolutions, a small classifier, and residual blocks
            that begin as the identity (Goyal et al. 2017, Sec. 5.1). `he`: He's for convolutions,
            Keras's for the rest.
        seed: Fixes the initial weights and the dropout masks, whatever was drawn or built before;
            None takes them from Keras' global seed.

    Returns:
        A functional model from float images, shape `(batch, height, width, channels)`, to a dict
        of float32 tensors: `logits`, shape `(batch, num_classes)`, and `features`, shape
        `(batch, dim)`.

    Raises:
        ValueError: No network can have this name, width or input shape.

    Examples:
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
    layers = Layers(weight_decay=weight_decay, init=init, seed=seed)
    outputs = layers.classify(body(images, layers), num_classes, dropout)
    return keras.Model(images, outputs, name=label)


def count_parameters(network: keras.Model) -> int:
    """Number of trainable parameters, as Table 1 counts them.

    Args:
        network: A built network.

    Returns:
        Number of elements of all trainable weights, so without BatchNorm's running statistics.
    """
    return sum(math.prod(weight.shape) for weight in network.trainable_weights)


def parse(name: str, width: float | None = None) -> tuple[str, Body]:
    """Read a network's name without building it.

    Args:
        name: One of the forms in `NAMES`.
        width: As in `build`; must agree with a width in the name.

    Returns:
        The name without its width, and the body that maps images and `Layers` to the last maps.

    Raises:
        ValueError: The name has none of the forms in `NAMES`, or the width does not fit.

    Examples:
        >>> parse("resnet8:16")[0]
        'resnet8'
        >>> parse("resnet31")
        Traceback (most recent call last):
        ValueError: No network 'resnet31': its depth must be 6n+2. Use resnet26 or resnet32.
    """
    label, colon, written = name.partition(":")
    network, numbers = _find(label)
    if colon:
        in_name = _number(name, written)
        if width is not None and width != in_name:
            raise ValueError(
                f"Network {name!r} has another width in its name than width={width:g}: give one "
                "width only."
            )
        width = in_name
    if width is not None:
        _check_width(label, width, network.width)
        numbers["width"] = network.width(width)
    return label, partial(network.body, **numbers)


def _find(label: str) -> tuple[_Network, dict[str, int]]:
    """The network called `label`, and the numbers in its name."""
    for form, network in _NETWORKS.items():
        match = re.fullmatch(network.pattern or re.escape(form), label)
        if match:
            if network.six_n_plus is not None:
                _check_depth(label, match, network.six_n_plus)
            return network, {key: int(number) for key, number in match.groupdict().items()}
    raise ValueError(f"No network {label!r}. Accepted: {NAMES}.")


def _check_depth(label: str, match: re.Match, extra: int):
    """Refuses a depth other than 6n + extra, and names the nearest possible ones."""
    blocks, rest = divmod(int(match["depth"]) - extra, 6)
    if blocks >= 1 and not rest:
        return
    below = 6 * max(blocks, 1) + extra
    depths = [below, below + 6] if blocks >= 1 else [below]
    before, after = label[: match.start("depth")], label[match.end("depth") :]
    valid = " or ".join(f"{before}{depth}{after}" for depth in depths)
    raise ValueError(f"No network {label!r}: its depth must be 6n+{extra}. Use {valid}.")


def _number(name: str, written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise ValueError(
            f"Width {written!r} in network {name!r} is not a number. Accepted: {NAMES}."
        ) from None


def _check_width(label: str, width: float, kind: type | None):
    if kind is None:
        raise ValueError(f"Network {label!r} has no width: leave out width {width:g}.")
    if not 0 < width < float("inf") or kind(width) != width:
        like = "a whole number of channels, as in 16" if kind is int else "as in 0.5"
        raise ValueError(f"Width {width:g} of {label!r} must be positive, {like}.")
