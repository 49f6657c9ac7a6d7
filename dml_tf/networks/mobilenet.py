"""MobileNet (V1), Howard et al. 2017: the paper's [9], and a short one for small inputs."""

from collections.abc import Iterable

import keras

from dml_tf.networks.layers import Layers, is_small

# Slim's and Keras' value: ImageNet weights have channels of almost no variance.
EPSILON = 1e-3


def mobilenet(x: keras.KerasTensor, layers: Layers, *, width: float = 1.0) -> keras.KerasTensor:
    """Body of MobileNet: a convolution and thirteen depthwise separable blocks.

    Args:
        x: Images, shape `(batch, height, width, channels)`. Where the shorter side is below 64
            pixels, the stem and the first of the blocks with stride 2 keep the size of the map.
        layers: Where the layers come from.
        width: Multiplier of all numbers of channels.

    Returns:
        Maps, shape `(batch, height / s, width / s, 1024 * width)`, where s is 8 for small images
        and 32 for others.
    """
    early = 1 if is_small(x) else 2
    blocks = [(64, 1), (128, early), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    return _body(x, layers, width, early, blocks)


def mobilenet_short(
    x: keras.KerasTensor, layers: Layers, *, width: float = 1.0
) -> keras.KerasTensor:
    """Body of a MobileNet of our own for inputs of about 16x16: six blocks in place of thirteen.

    It is MobileNet up to its first block of 512 channels, without the five repetitions and the 1024
    channels that follow. The stem keeps the size of the map, the blocks to 128, 256 and 512
    channels halve it: 2x2 is left of 16x16, 4x4 of 32x32.

    Args:
        x: Images, shape `(batch, height, width, channels)`.
        layers: Where the layers come from.
        width: Multiplier of all numbers of channels.

    Returns:
        Maps, shape `(batch, height / 8, width / 8, 512 * width)`, rounded up.
    """
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    return _body(x, layers, width, 1, blocks)


def _body(
    x: keras.KerasTensor,
    layers: Layers,
    width: float,
    stem_stride: int,
    blocks: Iterable[tuple[int, int]],
) -> keras.KerasTensor:
    def channels(filters: int) -> int:
        return max(8, int(filters * width))

    x = _norm_relu6(layers.conv(x, channels(32), 3, stem_stride), layers)
    for filters, stride in blocks:
        x = _norm_relu6(layers.depthwise_conv(x, stride), layers)
        x = _norm_relu6(layers.conv(x, channels(filters), 1), layers)
    return x


def _norm_relu6(x: keras.KerasTensor, layers: Layers) -> keras.KerasTensor:
    return keras.layers.ReLU(max_value=6.0)(layers.norm(x, EPSILON))
