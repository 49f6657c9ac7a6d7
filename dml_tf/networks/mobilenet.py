"""MobileNet (V1), Howard et al. 2017: the paper's [9], and a short one for small inputs."""

from collections.abc import Iterable

import keras

from dml_tf.networks.layers import Layers, is_small

# The value of Slim and Keras; with ImageNet weights some channels have almost no variance.
EPSILON = 1e-3


def mobilenet(x: keras.KerasTensor, layers: Layers, *, width: float = 1.0) -> keras.KerasTensor:
    """Body of MobileNet, thirteen blocks; `width` multiplies the numbers of channels."""
    # For small images the stem and the first strided block keep the size of the map: the total
    # stride is 8, not 32.
    early = 1 if is_small(x) else 2
    blocks = [(64, 1), (128, early), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    return _body(x, layers, width, early, blocks)


def mobilenet_short(
    x: keras.KerasTensor, layers: Layers, *, width: float = 1.0
) -> keras.KerasTensor:
    """Body of our own MobileNet for inputs of about 16x16; total stride 8."""
    # MobileNet up to its first block of 512 channels: six blocks in place of thirteen.
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
