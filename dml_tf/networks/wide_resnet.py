"""Wide residual networks, Zagoruyko and Komodakis 2016: the paper's [28]."""

import keras

from dml_tf.networks.layers import Layers


def wide_resnet(
    x: keras.KerasTensor, layers: Layers, *, depth: int, factor: int, width: int = 16
) -> keras.KerasTensor:
    """Body of WRN-d-k, d = 6n+4: three stages of n blocks, widened k = `factor` times."""
    blocks = (depth - 4) // 6
    x = layers.residual_conv(x, width)
    for stage in range(3):
        for block in range(blocks):
            filters = width * factor * 2**stage
            x = _block(x, layers, filters, stride=2 if stage and not block else 1)
    return _norm_relu(x, layers)


def _norm_relu(x: keras.KerasTensor, layers: Layers) -> keras.KerasTensor:
    return keras.layers.ReLU()(layers.norm(x))


def _block(x: keras.KerasTensor, layers: Layers, filters: int, stride: int) -> keras.KerasTensor:
    active = _norm_relu(x, layers)
    # As in the authors' code: a shortcut that changes the width starts after the activation.
    shortcut = x if x.shape[-1] == filters else layers.residual_conv(active, filters, 1, stride)
    residual = layers.residual_conv(active, filters, stride=stride)
    residual = layers.residual_conv(_norm_relu(residual, layers), filters)
    return keras.layers.Add()([shortcut, residual])
