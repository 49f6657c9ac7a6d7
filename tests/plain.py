"""A network without BatchNorm, and `train.py` with it in every network's place."""

import sys

import keras

from dml_tf import networks


def without_batch_norm(name, *, num_classes, input_shape, weight_decay, seed, **settings):
    decay = keras.regularizers.L2(weight_decay / 2)
    normal = keras.initializers.HeNormal(seed)
    images = keras.Input(input_shape)
    maps = keras.layers.Conv2D(
        4, 3, activation="relu", kernel_initializer=normal, kernel_regularizer=decay
    )(images)
    features = keras.layers.GlobalAveragePooling2D()(maps)
    logits = keras.layers.Dense(num_classes, kernel_initializer=normal)(features)
    return keras.Model(images, {"features": features, "logits": logits}, name="resnet8")


if __name__ == "__main__":
    from train import main

    networks.build = without_batch_norm
    sys.exit(main(sys.argv[1:]))
