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

from dml_tf.networks import inception, mobilenet, own, resnet, wide_resnet
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
    "with a width as in resnet8:16 (base channels) or mobilenet_short:0.5 (multiplier); a name of "
    "keras.applications, as in efficientnetb0; or module:function, a function of your own"
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
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """Build a network that returns its logits and the feature of its last pooling layer.

    A network of keras.applications gets its own preprocessing, new weights and the classifier of
    all networks here. Where one of the paper's has the same name, as `resnet50`, write
    `keras.applications:resnet50`. A function of your own, `module:function`, is called with
    `input_shape` and `num_classes` and returns a functional or sequential model; it decides about
    dropout, `init` and the features.

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
        mean: Mean by which the images are normalised, of pixels in [0, 1], for each channel. Only
            networks of keras.applications use it: they take pixels from 0 to 255. None if the
            images are such pixels.
        std: The standard deviation, likewise.

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
    layers = Layers(weight_decay=weight_decay, init=init, seed=seed, mean=mean, std=std)
    if _is_function(name):
        return own.network(name, num_classes, input_shape, layers)
    images = keras.Input(tuple(input_shape), name="images")
    try:
        maps = body(images, layers)
    except ValueError as error:
        raise ValueError(
            f"Network {name!r} cannot take images of shape {tuple(input_shape)}: {error}"
        ) from error
    network = keras.Model(images, layers.classify(maps, num_classes, dropout), name=label)
    return layers.settled(network) if body.func is own.application_maps else network


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
        The name without its width, and the body that maps images and `Layers` to the last maps; of
        `module:function` the function's name, and the function.

    Raises:
        ValueError: The name has none of the forms in `NAMES`, or the width does not fit.

    Examples:
        >>> parse("resnet8:16")[0]
        'resnet8'
        >>> parse("resnet31")
        Traceback (most recent call last):
        ValueError: No network 'resnet31': its depth must be 6n+2. Use resnet26 or resnet32.
    """
    if _is_function(name):
        return name.partition(":")[2], own.function(name)
    if make := application(name):
        return name.rpartition(":")[2].lower(), partial(own.application_maps, make=make)
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


def _is_ours(label: str) -> bool:
    """Whether a name is one of the paper's networks: resnet50 is, resnet101 is not."""
    for form, network in _NETWORKS.items():
        match = re.fullmatch(network.pattern or re.escape(form), label)
        if match and not own.application(label):
            return True
        if match:
            extra = network.six_n_plus
            return extra is None or (int(match["depth"]) - extra) % 6 == 0
    return False


def _is_function(name: str) -> bool:
    return own.is_function(name) and not _is_ours(name.partition(":")[0])


def application(name: str) -> Callable[..., keras.Model] | None:
    """What keras.applications has of this name, unless the name is of one of the paper's."""
    return None if _is_ours(name) else own.application(name)


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
