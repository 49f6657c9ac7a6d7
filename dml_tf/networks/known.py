"""What a model's `config.json` may contain: classes on a list, and plain values.

Keras builds whatever class or function a config names. Its own rules against misuse (`safe_mode`)
had many holes (CVE-2024-3660, CVE-2025-1550, -8747, -9906, -12058, CVE-2026-1462 and others), so
a config is checked here, before Keras sees it.
"""

import math
from collections.abc import Collection

import keras

_DEEPEST = 100  # levels of lists and dictionaries
_MOST_VALUES = 2_000_000
_LONGEST = 1000  # characters of a string
_OURS = "dml_tf"

_LAYERS = frozenset(
    """
Activation ActivityRegularization AdaptiveAveragePooling2D AdaptiveMaxPooling2D Add AlphaDropout
Attention Average AveragePooling1D AveragePooling2D BatchNormalization CenterCrop Concatenate
Conv1D Conv2D Conv2DTranspose Cropping2D Dense DepthwiseConv2D Dot Dropout ELU EinsumDense
Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
GlobalMaxPooling1D GlobalMaxPooling2D GroupNormalization Identity InputLayer LayerNormalization
LeakyReLU MaxPooling1D MaxPooling2D Maximum Minimum MultiHeadAttention Multiply Normalization
PReLU Permute RMSNormalization ReLU Rescaling Reshape Resizing SeparableConv2D Softmax
SpatialDropout2D Subtract UnitNormalization UpSampling2D ZeroPadding2D
""".split()
)
_NUMPY = frozenset(
    """
Absolute Add Clip Concatenate Divide Exp ExpandDims GetItem Log Max Maximum Mean Min Minimum
Multiply Negative Pad Power Reshape Sqrt Square Squeeze Stack Subtract Sum Transpose TrueDivide
""".split()
)
_ACTIVATIONS = frozenset(
    """
celu elu exponential gelu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
log_softmax mish relu relu6 selu sigmoid silu softmax softplus softsign swish tanh
""".split()
)
_NN = frozenset(
    """
AveragePool Gelu HardSigmoid HardSilu LeakyRelu LogSoftmax MaxPool Relu Relu6 Sigmoid Silu Softmax
Softplus Tanh
""".split()
)


def _public(module) -> frozenset[str]:
    """The classes of a module of Keras that holds plain classes only."""
    return frozenset(name for name in dir(module) if isinstance(getattr(module, name), type))


# Module -> classes that a config may name. None of them reads a file, runs text as a program or
# loops as often as a config says.
_KERAS = {
    "keras": {"DTypePolicy", "Functional", "Model", "Sequential"},
    "keras.models": {"Functional", "Model", "Sequential"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.models.sequential": {"Sequential"},
    "keras.dtype_policies": {"DTypePolicy"},
    "keras.layers": _LAYERS,
    "keras.initializers": _public(keras.initializers),
    "keras.regularizers": _public(keras.regularizers),
    "keras.constraints": _public(keras.constraints),
    # Of `compile_config`, which is never used: models are read to be run, not to train further.
    "keras.optimizers": _public(keras.optimizers),
    "keras.optimizers.schedules": _public(keras.optimizers.schedules),
    "keras.losses": _public(keras.losses),
    "keras.metrics": _public(keras.metrics),
    "keras.src.ops.numpy": _NUMPY,
    "keras.src.ops.nn": _NN,
}
_VALUES = frozenset({"__keras_tensor__", "__slice__", "__ellipsis__"})


class Unknown(ValueError):
    """A config has something that is not on the list; the message says what and where."""


def check(config: object, allow: Collection[str] = ()):
    """Refuses a config with anything but known classes and plain values.

    Args:
        config: What `json.loads` made of `config.json`.
        allow: Modules of the user's own code; what they have registered with Keras is known, too.

    Raises:
        Unknown: The message names the class or value, and the layer.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise Unknown("its config describes no model")
    _Check(tuple(allow)).value(config, "the model")


def without_compilation(config: object) -> object:
    """A copy of a config in which no model, inner ones included, has optimizers or losses."""
    if isinstance(config, list):
        return [without_compilation(value) for value in config]
    if isinstance(config, dict):
        return {
            key: without_compilation(value)
            for key, value in config.items()
            if key != "compile_config"
        }
    return config


class _Check:
    """One walk through a config; `place` names the innermost layer, for messages."""

    def __init__(self, allow: tuple[str, ...]):
        self._allow = allow
        self._count = 0

    def value(self, value: object, place: str, depth: int = 0):
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_VALUES:
            raise Unknown(f"{place} has too many levels or values")
        if isinstance(value, str):
            self._text(value, place)
        elif isinstance(value, (int, float)):
            _number(value, place)
        elif isinstance(value, list):
            for inner in value:
                self.value(inner, place, depth + 1)
        elif isinstance(value, dict):
            self._dictionary(value, place, depth)

    def _dictionary(self, value: dict, place: str, depth: int):
        if "class_name" in value:
            self._class(value, place)
            inner = value.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            place = f"layer {name[:60]!r}" if isinstance(name, str) else place
        for key, inner in value.items():
            self._text(key, place)
            if "class_name" not in value or key not in ("module", "class_name", "registered_name"):
                self.value(inner, place, depth + 1)

    def _class(self, value: dict, place: str):
        module, name = value.get("module"), value["class_name"]
        registered = value.get("registered_name")
        if not all(each is None or isinstance(each, str) for each in (module, name, registered)):
            raise Unknown(f"{place} names a class by something that is no text")
        if name in _VALUES and module is None and registered is None:
            return
        if name == "function":
            function = value.get("config")
            known = module == "builtins" and isinstance(function, str)
            known = known and (function in _ACTIVATIONS or self._is_ours(function))
        elif registered in (None, name):
            known = name in _KERAS.get(module, ())
        else:
            known = self._is_ours(registered)
        if not known:
            what = value.get("config") if name == "function" else name
            raise Unknown(
                f"{place} names {str(module)[:60]}.{str(what)[:60]}, which is not on the list of "
                "plain layers"
            )

    def _is_ours(self, registered: str) -> bool:
        """Whether a name was registered with Keras by this package, or by the user's own code."""
        found = keras.saving.get_registered_object(registered)
        parts = str(getattr(found, "__module__", "")).split(".")
        modules = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        # Our BatchNormalization bears Keras's name, see `layers`; the files of 0.2.0 have ours.
        ours = registered.startswith(f"{_OURS}>")
        return found is not None and (ours or not modules.isdisjoint((_OURS, *self._allow)))

    def _text(self, text: str, place: str):
        """Refuses what could be a path, or the name of a registered function."""
        is_path = text in (".", "..") or text.startswith("~") or any(c in text for c in "/\\\0")
        if is_path or len(text) > _LONGEST:
            raise Unknown(f"{place} has the text {text[:60]!r}, which may be a path")
        if ">" in text.replace("->", "") and not self._is_ours(text):
            raise Unknown(f"{place} has the text {text[:60]!r}, the name of unknown code")


def _number(value: float, place: str):
    if not -(2**63) <= value < 2**64 or not math.isfinite(value):
        raise Unknown(f"{place} has the number {str(value)[:30]}, which no model needs")
