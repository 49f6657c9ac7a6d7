"""Layers shared by the networks: one regulariser, a random stream per layer, one classifier.

Maps have the shape `(batch, height, width, channels)`; a stride divides height and width and
rounds up.
"""

import itertools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

# BatchNorm's running averages forget a batch in about ten steps, as in the Torch code of [28]
# (where it is written 0.1). With Keras' default, 0.99, a run of a few hundred steps would be
# evaluated with the initial statistics.
MOMENTUM = 0.9

# Images whose shorter side is below this many pixels get the small-input strides of a network.
SMALL = 64


def is_small(images: keras.KerasTensor) -> bool:
    """Whether images need the small-input strides: ImageNet's would leave a map of one pixel."""
    return min(images.shape[1:3]) < SMALL


def _depthwise_policy() -> keras.DTypePolicy:
    """The policy of depthwise convolutions: on CPUs, those in bfloat16 take twice the time."""
    policy = keras.config.dtype_policy()
    on_cpu = not tf.config.list_physical_devices("GPU")
    slow = policy.compute_dtype == "bfloat16" and on_cpu
    return keras.DTypePolicy("float32") if slow else policy


def layer_seeds(seed: int | None) -> Iterator[int | None]:
    """An endless stream of independent seeds, one per layer; None leaves all to Keras' seed."""
    if seed is None:
        return itertools.repeat(None)
    sequence = np.random.SeedSequence(seed)
    return (int(sequence.spawn(1)[0].generate_state(1)[0]) for _ in itertools.count())


def draw_again(network: keras.Model, before: int, seed: int):
    """Gives the kernels of a network the initial weights of another seed.

    Args:
        network: As `Layers` made it, without dropout.
        before: Its seed.
        seed: The new one.
    """
    # Layers are not listed in the order in which they were made, so seeds are found by their value.
    count = len(network.layers)
    new = dict(zip(*(itertools.islice(layer_seeds(s), count) for s in (before, seed)), strict=True))
    for layer in network.layers:
        for name in ("kernel_initializer", "depthwise_initializer"):
            if initializer := getattr(layer, name, None):
                own = new[initializer.seed]
                drawn = type(initializer).from_config({**initializer.get_config(), "seed": own})
                setattr(layer, name, drawn)
                layer.kernel.assign(drawn(layer.kernel.shape, dtype=layer.kernel.dtype))


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, trained by TensorFlow's fused kernel; the same values but for rounding.

    Keras's elementwise operations take a quarter of a ResNet's step on a CPU, the kernel a third
    of their time. Keras still does what the kernel cannot do.

    With an `ema` above 0 the layer also averages its statistics with this decay over the training
    steps, as an optimizer averages weights; `use_averages` puts the result in their place.
    """

    def __init__(self, *args, ema: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.ema = ema

    def build(self, input_shape):
        """Makes the averages of the statistics after the statistics; they start alike."""
        super().build(input_shape)
        self._averaged = ()
        if self.ema:
            self._averaged = (
                (self._average_of("mean", "zeros"), self.moving_mean),
                (self._average_of("variance", "ones"), self.moving_variance),
            )

    def _average_of(self, name: str, initializer: str) -> keras.Variable:
        return self.add_weight(
            shape=self.moving_mean.shape,
            name=f"averaged_{name}",
            initializer=initializer,
            trainable=False,
            autocast=False,
        )

    def call(self, inputs: tf.Tensor, training: bool = False, mask=None) -> tf.Tensor:
        """Normalises maps: by the batch's statistics in training, otherwise by the averages."""
        outputs = self._normalise(inputs, training, mask)
        if training and self.trainable:
            for average, value in self._averaged:
                average.assign(average * self.ema + value * (1 - self.ema))
        return outputs

    def use_averages(self):
        """Puts the averages of the statistics, if there are any, in the statistics' place."""
        for average, value in self._averaged:
            value.assign(average)

    def load_own_variables(self, store):
        """Reads weights; those of a layer without averages start the averages, too."""
        weights = self.complete([store[str(i)] for i in range(len(store.keys()))])
        super().load_own_variables({str(i): weight for i, weight in enumerate(weights)})

    def complete(self, weights: list) -> list:
        """Weights for this layer, from those of a layer with or without averages."""
        lacks = len(self.weights) - len(weights)
        return [*weights, *weights[-lacks:]] if self.ema and lacks == 2 else weights

    def get_config(self) -> dict:
        """Arguments of the constructor, for `keras.saving`."""
        return super().get_config() | ({"ema": self.ema} if self.ema else {})

    def _normalise(self, inputs: tf.Tensor, training: bool, mask) -> tf.Tensor:
        if not (training and self.trainable and mask is None and self._is_for_the_kernel(inputs)):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance = unbiased * ((count - 1) / count)  # the kernel divides by count - 1
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs

    def _is_for_the_kernel(self, inputs: tf.Tensor) -> bool:
        plain = self.scale and self.center and not (self.renorm or self.synchronized)
        types = inputs.dtype in ("float32", "float16", "bfloat16"), self.variable_dtype == "float32"
        return plain and len(inputs.shape) == 4 and self.axis in (-1, 3) and all(types)


# Files name a layer by its class's module and name. This one is named as Keras's own, so that a
# saved network loads without dml_tf; with dml_tf it loads as this class. Files of 0.2.0 have the
# other name.
BatchNormalization.__module__ = "keras.layers"
for _name in ("BatchNormalization", "dml_tf>BatchNormalization"):
    keras.saving.get_custom_objects()[_name] = BatchNormalization


class Layers:
    """Applies the layers of one network, with its weight decay and its seed.

    Kernels are drawn from He's normal distribution. Convolutions have no bias, because BatchNorm
    follows each of them, or the sum that it is part of. Images of a `mean` and a deviation `std`
    in [0, 1] are normalised by them; without them they are pixels, 0 to 255.
    """

    def __init__(
        self,
        *,
        weight_decay: float = 0.0,
        decay_depthwise: bool = True,
        batch_norm_momentum: float = 0.0,
        batch_norm_epsilon: float = 0.0,
        batch_norm_ema: float = 0.0,
        init: str = "goyal",
        seed: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        # L2(c) is c * sum(theta^2), whose gradient is 2 * c * theta.
        self._regularizer = keras.regularizers.L2(weight_decay / 2) if weight_decay else None
        self._of_depthwise = self._regularizer if decay_depthwise else None
        self._momentum = batch_norm_momentum or MOMENTUM
        self._epsilon = batch_norm_epsilon
        self._ema = batch_norm_ema
        self._seeds = layer_seeds(seed)
        self._init = init
        self._mean, self._std = mean, std

    def _he_normal(self, fan: str) -> keras.Initializer:
        return keras.initializers.VarianceScaling(
            scale=2.0, mode=fan, distribution="untruncated_normal", seed=next(self._seeds)
        )

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        stride: int = 1,
        padding: str = "same",
        fan: str = "fan_in",
    ) -> keras.KerasTensor:
        """Square convolution; He's `fan_in` keeps the signal's size, `fan_out` the gradient's."""
        return keras.layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding=padding,
            use_bias=False,
            kernel_initializer=self._he_normal(fan),
            kernel_regularizer=self._regularizer,
        )(x)

    def residual_conv(
        self, x: keras.KerasTensor, filters: int, size: int = 3, stride: int = 1
    ) -> keras.KerasTensor:
        """Square convolution of an odd size, centred on the pixels of a shortcut of its stride."""
        # As in the Torch codes of [7] and [28]. With a stride, TensorFlow's `same` pads right and
        # below only, which would move the centres by a pixel.
        if stride == 1:
            return self.conv(x, filters, size, fan="fan_out")
        if size > 1:
            x = keras.layers.ZeroPadding2D(size // 2)(x)
        return self.conv(x, filters, size, stride, padding="valid", fan="fan_out")

    def depthwise_conv(self, x: keras.KerasTensor, stride: int = 1) -> keras.KerasTensor:
        """3x3 convolution of each channel by itself."""
        # A depthwise kernel sees one channel. Keras counts one as its fan-out, but all channels
        # as its fan-in.
        return keras.layers.DepthwiseConv2D(
            3,
            strides=stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=self._he_normal("fan_out"),
            depthwise_regularizer=self._of_depthwise,
            dtype=_depthwise_policy(),
        )(x)

    def norm(
        self, x: keras.KerasTensor, epsilon: float = 1e-5, scale: str = "ones"
    ) -> keras.KerasTensor:
        """BatchNorm over batch, height and width; the initial scale is `ones` or `zeros`."""
        return BatchNormalization(
            momentum=self._momentum,
            epsilon=self._epsilon or epsilon,
            ema=self._ema,
            gamma_initializer=scale,
        )(x)

    def residual_norm(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """BatchNorm that ends a residual branch beside an identity shortcut."""
        # The block begins as the identity (Goyal et al. 2017, Sec. 5.1). Otherwise features begin
        # so large that mutual learning at the paper's learning rate of 0.1 overshoots in its first
        # steps and leaves them dead.
        return self.norm(x, scale="zeros" if self._init == "goyal" else "ones")

    def classify(
        self, x: keras.KerasTensor, num_classes: int, dropout: float = 0.0
    ) -> dict[str, keras.KerasTensor]:
        """Global average pooling, dropout (0 adds no layer) and classifier, always in float32."""
        features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
        classifier = keras.layers.Dense(
            num_classes,
            kernel_initializer=self._classifier_initializer(),
            kernel_regularizer=self._regularizer,
            dtype="float32",
            name="logits",
        )
        kept = features
        if dropout:
            kept = keras.layers.Dropout(dropout, seed=next(self._seeds), dtype="float32")(features)
        return {"logits": classifier(kept), "features": features}

    def pixels(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Pixels 0 to 255, from images that may be normalised."""
        if self._mean is None:
            return images
        scale, offset = ([255 * float(v) for v in values] for values in (self._std, self._mean))
        return keras.layers.Rescaling(scale, offset, dtype="float32")(images)

    def settled(self, network: keras.Model) -> keras.Model:
        """A network from outside, made anew with the weight decay and the seeds of this object."""
        return keras.models.clone_model(network, clone_function=self._settle)

    def _settle(self, layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.Model):
            return self.settled(layer)
        config = layer.get_config()
        for value in config.values():
            own = value.get("config") if isinstance(value, dict) else None
            if isinstance(own, dict) and "seed" in own:  # an initializer
                own["seed"] = next(self._seeds)
        if "seed" in config:
            config["seed"] = next(self._seeds)
        for kernel in ("kernel", "depthwise", "pointwise"):
            if config.get(f"{kernel}_regularizer", "none") is None:
                config[f"{kernel}_regularizer"] = self._regularizer
        return type(layer).from_config(config)

    def _classifier_initializer(self) -> keras.Initializer:
        # Goyal et al. 2017, Sec. 5.1. Peers begin with posteriors that hardly differ. With
        # Glorot's rule they begin confident, and mimicry spoils the first steps.
        seed = next(self._seeds)
        if self._init == "goyal":
            return keras.initializers.RandomNormal(stddev=0.01, seed=seed)
        return keras.initializers.GlorotUniform(seed=seed)
