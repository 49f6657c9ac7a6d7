"""Networks from outside: those of keras.applications, and functions of the user."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np

from dml_tf.networks.layers import Layers

_KERAS = "keras.applications"


def application(name: str) -> Callable[..., keras.Model] | None:
    """What makes the network of keras.applications with a name, in capitals or not."""
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    made = {n.lower(): getattr(keras.applications, n) for n in names}
    return made.get(name.lower().removeprefix(f"{_KERAS}:"))


def application_maps(
    images: keras.KerasTensor, layers: Layers, *, make: Callable[..., keras.Model]
) -> keras.KerasTensor:
    """The last maps of a network of keras.applications, which preprocesses pixels by its rule."""
    pixels = layers.pixels(images)
    if pixels.shape[-1] == 1:
        pixels = keras.layers.Concatenate(dtype="float32")([pixels] * 3)  # grey as colours
    rule = sys.modules[make.__module__].preprocess_input
    return make(include_top=False, weights=None, input_tensor=rule(pixels)).output


def is_function(name: str) -> bool:
    """Whether a name is `module:function`, not `network:width`."""
    module, _, function = name.partition(":")
    words = [*module.split("."), function]
    return all(word.isidentifier() for word in words) and module != _KERAS


def function(name: str) -> Callable[..., keras.Model]:
    """The function that `module:function` names; modules of the present folder come first.

    Raises:
        ValueError: There is no such module or function.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise
        raise ValueError(
            f"No network {name!r}: there is no module {module!r} in this folder or installed."
        ) from None
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(found, attribute):
        raise ValueError(f"No network {name!r}: the module {module!r} has no {attribute!r}.")
    return getattr(found, attribute)


def modules(names: Sequence[str]) -> tuple[str, ...]:
    """The user's modules among networks' names, imported, so that Keras knows their classes."""
    chosen = [name for name in names if is_function(name)]
    for name in chosen:
        function(name)
    return tuple(name.partition(":")[0] for name in chosen)


def network(name: str, num_classes: int, input_shape: Sequence[int], layers: Layers) -> keras.Model:
    """The network that a function of the user makes, with outputs by name.

    Its weights are drawn by the seeds of `layers`. But where the function gives a layer the same
    weights at each call, as to a pre-trained backbone, they are kept.

    Raises:
        ValueError: It is no functional or sequential model, or for other images.
    """
    first, second = (_made(name, num_classes, tuple(input_shape)) for _ in range(2))
    new = layers.settled(first)
    for layer, *given in zip(new.layers, first.layers, second.layers, strict=True):
        weights, others = (each.get_weights() for each in given)
        if all(map(np.array_equal, weights, others)) and not _has_seed(given[0]):
            layer.set_weights(weights)
    return new


def _made(name: str, num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
    made = function(name)(input_shape=input_shape, num_classes=num_classes)
    if not isinstance(made, keras.Model) or not getattr(made, "outputs", None):
        raise ValueError(
            f"{name} must return a functional or sequential keras.Model, with its input shape; it "
            f"returned {type(made).__name__}."
        )
    if made.input_shape[1:] != input_shape:
        raise ValueError(
            f"{name} returned a network for inputs of shape {made.input_shape[1:]}, and it was "
            f"called with input_shape={input_shape}."
        )
    outputs = made.outputs[0] if isinstance(made, keras.Sequential) else made.output
    if not isinstance(outputs, (dict, list)):
        outputs = {"logits": outputs}
    return keras.Model(made.inputs[0], outputs, name=name.partition(":")[2])


def _has_seed(layer: keras.Layer) -> bool:
    """Whether the user gave an initializer of a layer a seed: its weights are not pre-trained."""
    configs = (v["config"] for v in layer.get_config().values() if _is_object(v))
    return any(config.get("seed") is not None for config in configs)


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("config"), dict)
