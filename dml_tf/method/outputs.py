"""What a network must return to be a peer: one logit for each class, and no probabilities."""

import warnings
from collections.abc import Mapping, Sequence

import keras

_PASSED_ON = ("Identity", "Cast")  # TensorFlow operations that leave values as they are
_REMEDY = (
    "A peer returns logits of shape (batch, classes), or a dict with 'logits' and, if it has any, "
    "'features'."
)


def as_outputs(name: str, outputs) -> dict:
    """The outputs of a peer by name; refuses what gives no logits.

    It looks at shapes and at the last operation, so in a compiled step it costs nothing.
    """
    if isinstance(outputs, Mapping):
        if outputs and "logits" not in outputs:
            raise ValueError(
                f"Peer {name!r} returns a dict with {', '.join(map(repr, outputs))}, without "
                f"'logits'. {_REMEDY}"
            )
    elif isinstance(outputs, (list, tuple)):
        raise ValueError(f"Peer {name!r} returns a list of {len(outputs)} outputs. {_REMEDY}")
    else:
        outputs = {"logits": outputs}
    if outputs:
        _refuse_no_logits(name, outputs["logits"])
    return dict(outputs)


def _refuse_no_logits(name: str, logits):
    shape = tuple(logits.shape)
    if len(shape) != 2:
        raise ValueError(
            f"Peer {name!r} returns an output of shape {shape}, not (batch, classes). If these are "
            "maps, add GlobalAveragePooling2D() and Dense(classes)."
        )
    if shape[1] == 1:
        raise ValueError(
            f"Peer {name!r} has a single output, and a posterior over one class is always 1. For "
            "two classes, end it in Dense(2) without an activation, with labels 0 and 1."
        )
    operation = getattr(logits, "op", None)  # only tensors of a graph have one
    while operation is not None and operation.type in _PASSED_ON:
        operation = operation.inputs[0].op
    if operation is not None and operation.type in ("Softmax", "Sigmoid"):
        raise ValueError(
            f"Peer {name!r} ends in {operation.type.lower()}: it returns probabilities, which "
            "would be trained as if they were logits. Leave that operation out."
        )


def prepared(networks: Sequence[keras.Model], names: Sequence[str]) -> list[keras.Model]:
    """The networks without a last softmax, as far as they are known before they are called.

    Raises:
        ValueError: A network returns something else than logits, or two networks do not fit.
    """
    found = [_without_softmax(*pair) for pair in zip(networks, names, strict=True)]
    known = {name: net for name, net in zip(names, found, strict=True) if _is_functional(net)}
    logits = {name: as_outputs(name, _output(net))["logits"] for name, net in known.items()}
    check_classes(logits)
    _check_inputs({name: [tuple(i.shape[1:]) for i in net.inputs] for name, net in known.items()})
    return found


def check_classes(logits: Mapping[str, object]):
    """Refuses peers that tell different numbers of classes apart."""
    counts = {name: z.shape[-1] for name, z in logits.items() if z.shape[-1] is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise ValueError(
            f"All peers must have the same classes, and {listed}. Give each the same number of "
            "outputs."
        )


def _check_inputs(shapes: Mapping[str, list]):
    """Refuses networks that cannot take the same batch; an unknown size fits every size."""
    (first, wanted), *others = shapes.items() or [("", [])]
    for name, shape in others:
        if len(shape) != len(wanted) or not all(map(_fits, shape, wanted)):
            raise ValueError(
                f"All peers see the same images, and {first!r} takes {_listed(wanted)} where "
                f"{name!r} takes {_listed(shape)}. Give each the same input shape; a layer such "
                "as keras.layers.Resizing can adapt one of them."
            )


def _fits(shape: Sequence, other: Sequence) -> bool:
    pairs = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in pairs)


def _listed(shapes: Sequence) -> str:
    return " and ".join(map(str, shapes))


def _is_functional(network: keras.Model) -> bool:
    """Whether a network's graph of layers is known, as of functional and sequential models."""
    return network.built and bool(getattr(network, "outputs", None))


def _output(network: keras.Model):
    """The outputs of a functional or sequential model as it returns them."""
    return network.outputs[0] if isinstance(network, keras.Sequential) else network.output


def _without_softmax(network: keras.Model, name: str) -> keras.Model:
    """The network, or its logits if it ends in softmax."""
    if not _is_functional(network):
        return network
    output = as_outputs(name, _output(network))["logits"]
    layer, nested = output._keras_history.operation, False
    tensor = output
    while isinstance(layer, keras.Model) and _is_functional(layer):
        tensor, nested = layer.outputs[tensor._keras_history.tensor_index], True
        layer = tensor._keras_history.operation
    activation = getattr(layer, "activation", None)
    if activation is keras.activations.sigmoid or type(layer).__name__ == "Sigmoid":
        raise ValueError(
            f"Peer {name!r} ends in sigmoid, which gives each class a probability of its own. A "
            "cohort learns one class for each image: end the network in Dense(classes) without an "
            "activation."
        )
    if activation is keras.activations.softmax:
        layer.activation = keras.activations.linear
        network.train_function = network.test_function = network.predict_function = None
    elif type(layer).__name__ == "Softmax":
        if nested:
            raise ValueError(
                f"Peer {name!r} ends in the softmax of a model inside it. Give the network without "
                "it, or with Dense(classes) in its place."
            )
        network = _cut(network, output, _source(layer, output))
    else:
        return network
    warnings.warn(
        f"Peer {name!r} ends in softmax. A cohort trains logits, so the softmax was taken off: "
        "cohort.predict still gives probabilities, the network alone now gives logits.",
        stacklevel=5,
    )
    return network


def _source(layer: keras.Operation, output: keras.KerasTensor) -> keras.KerasTensor:
    """What a layer of one input made an output from."""
    return layer._inbound_nodes[output._keras_history.node_index].input_tensors[0]


def _cut(network: keras.Model, output: keras.KerasTensor, source: keras.KerasTensor) -> keras.Model:
    """The same layers with `source` in the place of `output`."""
    outputs = keras.tree.map_structure(lambda t: source if t is output else t, _output(network))
    inputs = network.inputs[0] if isinstance(network, keras.Sequential) else network.input
    return keras.Model(inputs, outputs, name=network.name)
