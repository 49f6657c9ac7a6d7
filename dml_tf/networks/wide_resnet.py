"""Wide residual networks, Zagoruyko and Komodakis 2016: the paper's [28]."""

import keras

from dml_tf.networks.layers import Layers


def wide_resnet(
    x: keras.KerasTensor, layers: Layers, *, blocks: int, factor: int, width: int = 16
) -> keras.KerasTensor:
    """Body of WRN-d-k with `d = 6 * blocks + 4` and `k = factor`, in pre-activation order.

    Args:
        x: Images, shape `(batch, height, width, channels)`.
        layers: Where the layers come from.
        blocks: Residual blocks in a stage.
        factor: Widening factor of the three stages.
        width: Channels of the first convolution, and of the first stage before widening.

    Returns:
        Maps, shape `(batch, height / 4, width / 4, 4 * width * factor)`, rounded up.
    """
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
