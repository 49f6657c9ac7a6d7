"""How large a network would be, found without making its weights."""

import math
from collections.abc import Sequence

import keras

from dml_tf import networks
from dml_tf.networks.layers import Layers

MOST_LAYERS = 5_000  # convolutions and norms; ResNet-1202, the deepest published, has 2,404


class TooLarge(ValueError):
    """A network that is not worth measuring to its end."""


class Size(Layers):
    """Counts what the layers of a network would hold; its bodies take it in place of `Layers`.

    Attributes:
        parameters: Elements of all weights.
        activations: Elements of all convolutions' and norms' outputs, for one image.
        largest: Elements of the largest of these outputs.
        smallest_map: Pixels of the smallest map that BatchNorm normalises.
    """

    def __init__(self, most: float = math.inf):
        super().__init__()
        self.parameters = self.activations = self.largest = self._layers = 0
        self.smallest_map = math.inf
        self._most = most

    def conv(self, x, filters, size, stride=1, padding="same", fan="fan_in"):
        """A convolution's shape; its kernel is counted."""
        height, width, channels = x.shape[1:]
        outside = 0 if padding == "same" else size - 1
        sides = (math.ceil((side - outside) / stride) for side in (height, width))
        return self._output((*sides, filters), size * size * channels * filters)

    def depthwise_conv(self, x, stride=1):
        """A depthwise convolution's shape."""
        height, width, channels = x.shape[1:]
        sides = (math.ceil(side / stride) for side in (height, width))
        return self._output((*sides, channels), 9 * channels)

    def norm(self, x, *args, **kwargs):
        """The same shape; scale, offset and two statistics are counted."""
        height, width, channels = x.shape[1:]
        self.smallest_map = min(self.smallest_map, height * width)
        return self._output((height, width, channels), 4 * channels)

    def residual_norm(self, x):
        """As `norm`."""
        return self.norm(x)

    def classify(self, x, num_classes, dropout=0.0):
        """Counts the classifier."""
        self.parameters += (x.shape[-1] + 1) * num_classes
        self.activations += x.shape[-1] + num_classes
        return {}

    def _output(self, shape: Sequence[int], parameters: int) -> keras.KerasTensor:
        elements = math.prod(shape)
        self.parameters += parameters
        self.activations += elements
        self.largest = max(self.largest, elements)
        self._layers += 1
        if self._layers > MOST_LAYERS:
            raise TooLarge(f"it has more than {MOST_LAYERS:,} layers")
        if self.parameters + self.activations > self._most:
            raise TooLarge(f"it has more than {self._most:.2g} weights and activations")
        return keras.KerasTensor((None, *shape))


def measure(
    name: str, *, num_classes: int, input_shape: Sequence[int], most: float = math.inf
) -> Size:
    """The size of a network.

    Args:
        name: As for `networks.build`.
        num_classes: Number of classes.
        input_shape: Height, width and channels of an image.
        most: Weights and activations of one image at which counting ends.

    Returns:
        Its size.

    Raises:
        TooLarge: It has more than `most`, or too many layers.
        ValueError: No network can have this name.

    Examples:
        >>> measure("resnet8:16", num_classes=10, input_shape=(32, 32, 3)).parameters
        75770
    """
    size = Size(most)
    _, body = networks.parse(name)
    size.classify(body(keras.KerasTensor((None, *input_shape)), size), num_classes)
    return size
