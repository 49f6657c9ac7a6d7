"""Residual networks for small images, He et al. 2016, Sec. 4.2: the paper's [7]."""

import keras

from dml_tf.networks.layers import Layers


def resnet(
    x: keras.KerasTensor, layers: Layers, *, depth: int, width: int = 16
) -> keras.KerasTensor:
    """Body of depth 6n+2: three stages of n blocks; total stride 4, `4 * width` last channels."""
    blocks = (depth - 2) // 6
    x = keras.layers.ReLU()(layers.norm(layers.residual_conv(x, width)))
    for stage in range(3):
        for block in range(blocks):
            x = _block(x, layers, width * 2**stage, stride=2 if stage and not block else 1)
    return x


def _block(x: keras.KerasTensor, layers: Layers, filters: int, stride: int) -> keras.KerasTensor:
    residual = layers.norm(layers.residual_conv(x, filters, stride=stride))
    residual = layers.residual_conv(keras.layers.ReLU()(residual), filters)
    is_identity = x.shape[-1] == filters
    residual = layers.residual_norm(residual) if is_identity else layers.norm(residual)
    return keras.layers.ReLU()(keras.layers.Add()([_shortcut(x, filters, stride), residual]))


def _shortcut(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    """Option A of He et al.: every second pixel, and zeros for the new channels."""
    if stride == 1:
        return x
    new_channels = filters - x.shape[-1]
    every_other = keras.layers.AveragePooling2D(1, strides=stride)(x)  # faster than a strided slice
    return keras.ops.pad(every_other, [(0, 0), (0, 0), (0, 0), (0, new_channels)])
