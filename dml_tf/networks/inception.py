"""InceptionV1, Szegedy et al. 2015: the paper's [24], as in TensorFlow's models.

It has BatchNorm and no auxiliary classifiers. The branch that the publication gives a 5x5 kernel
has 3x3, as in the TensorFlow form that the paper's authors used: 5.70M parameters at 100 classes,
6.08M with true 5x5. Neither is Table 1's 7.8M.
"""

import keras

from dml_tf.networks.layers import Layers, is_small

# Slim's value, used to train ImageNet weights for this network.
EPSILON = 1e-3

# Channels of the four branches of each module: 1x1; reduction and 3x3; reduction and second 3x3;
# projection of the pooled map. Pooling separates the stages.
STAGES = (
    (
        (64, (96, 128), (16, 32), 32),
        (128, (128, 192), (32, 96), 64),
    ),
    (
        (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64),
        (128, (128, 256), (24, 64), 64),
        (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128),
    ),
    (
        (256, (160, 320), (32, 128), 128),
        (384, (192, 384), (48, 128), 128),
    ),
)


def inception_v1(x: keras.KerasTensor, layers: Layers) -> keras.KerasTensor:
    """Body of InceptionV1; total stride 8 for small images, 32 for others; 1024 channels."""
    # ImageNet's stride would leave a single pixel of a 32x32 image, and in half of the modules a
    # 3x3 kernel would see little but padding.
    small = is_small(x)
    x = _conv(x, layers, 64, 7, stride=1 if small else 2)
    if not small:
        x = _pool(x, 3, stride=2)
    x = _conv(x, layers, 64, 1)
    x = _conv(x, layers, 192, 3)
    for stage, pool_size in zip(STAGES, (3, 3, 2), strict=True):
        x = _pool(x, pool_size, stride=2)
        for branches in stage:
            x = _module(x, layers, *branches)
    return x


def _module(
    x: keras.KerasTensor,
    layers: Layers,
    single: int,
    middle: tuple[int, int],
    wide: tuple[int, int],
    pooled: int,
) -> keras.KerasTensor:
    branches = [_conv(x, layers, single, 1)]
    for reduction, filters in (middle, wide):
        branches.append(_conv(_conv(x, layers, reduction, 1), layers, filters, 3))
    branches.append(_conv(_pool(x, 3, stride=1), layers, pooled, 1))
    return keras.layers.Concatenate()(branches)


def _pool(x: keras.KerasTensor, size: int, stride: int) -> keras.KerasTensor:
    return keras.layers.MaxPooling2D(size, strides=stride, padding="same")(x)


def _conv(
    x: keras.KerasTensor, layers: Layers, filters: int, size: int, stride: int = 1
) -> keras.KerasTensor:
    x = layers.norm(layers.conv(x, filters, size, stride), EPSILON)
    return keras.layers.ReLU()(x)
