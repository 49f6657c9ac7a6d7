"""The operations of a StableHLO program as JAX's own, so that one program can train many runs.

`jax.vmap` has a rule for every one of them, which it has not for a program that is called as a
whole. A step needs some forty operations. A program with another one is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo

from dml_tf.export.checked import TYPES

_DTYPES = {short: name for name, short in TYPES.items()}
_CALLS = {
    "add": lax.add, "subtract": lax.sub, "multiply": lax.mul, "divide": lax.div,
    "maximum": lax.max, "minimum": lax.min, "power": lax.pow, "remainder": lax.rem,
    "negate": lax.neg, "abs": lax.abs, "sign": lax.sign, "floor": lax.floor, "ceil": lax.ceil,
    "exponential": lax.exp, "exponential_minus_one": lax.expm1, "log": lax.log,
    "log_plus_one": lax.log1p, "sqrt": lax.sqrt, "rsqrt": lax.rsqrt, "tanh": lax.tanh,
    "logistic": lax.logistic, "is_finite": lax.is_finite, "select": lax.select,
    "clamp": lax.clamp, "and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor,
    "not": lax.bitwise_not, "shift_left": lax.shift_left,
    "shift_right_logical": lax.shift_right_logical,
    "shift_right_arithmetic": lax.shift_right_arithmetic,
}  # fmt: skip
_COMPARISONS = {
    "EQ": lax.eq, "NE": lax.ne, "LT": lax.lt, "LE": lax.le, "GT": lax.gt, "GE": lax.ge,
}  # fmt: skip


def as_function(artifact: bytes) -> Callable[..., list]:
    """The `main` of a program in StableHLO's portable form as a JAX function.

    Args:
        artifact: The program.

    Returns:
        A function that `jax.jit` and `jax.vmap` take.

    Raises:
        ValueError: Names an operation that is not known here.
    """
    module = stablehlo.deserialize_portable_artifact(ir.Context(), artifact)
    functions = {}
    for function in [each.operation for each in module.body.operations]:
        functions[ir.StringAttr(function.attributes["sym_name"]).value] = function
    for function in functions.values():
        _refuse_unknown(function)

    def call(name: str, arguments: Sequence, owner=module) -> list:  # which lives as long as this
        return _run(functions[name].regions[0].blocks[0], arguments, call)

    return lambda *arguments: call("main", arguments)


def _refuse_unknown(function):
    unknown = []

    def see(op):
        name = _short(op)
        if name not in {*_CALLS, *_OPERATIONS, *_OF_FUNCTIONS}:
            unknown.append(name)
        return ir.WalkResult.ADVANCE

    function.walk(see)
    if unknown:
        raise ValueError(f"the operation {unknown[0]} has no form in JAX here")


def _short(op) -> str:
    return op.name.removeprefix("stablehlo.")


def _run(block, arguments: Sequence, call: Callable) -> list:
    """Values that a block returns."""
    known = dict(zip(block.arguments, arguments, strict=True))
    for op in [each.operation for each in block.operations]:
        name, operands = _short(op), [known[operand] for operand in op.operands]
        if name in ("func.return", "return"):
            return operands
        if name == "func.call":
            values = call(ir.FlatSymbolRefAttr(op.attributes["callee"]).value, operands)
        elif name in ("reduce", "reduce_window"):
            values = _reduced(op, name, operands, call)
        else:
            value = _CALLS[name](*operands) if name in _CALLS else _OPERATIONS[name](op, *operands)
            values = value if isinstance(value, tuple | list) else [value]
        known.update(zip(op.results, values, strict=True))
    raise ValueError("a function returns nothing")


_OF_FUNCTIONS = ("func.func", "func.call", "func.return", "return", "reduce", "reduce_window")


def _reduced(op, name: str, operands: Sequence, call: Callable) -> Sequence:
    block = op.regions[0].blocks[0]
    half = len(operands) // 2
    values, starts = operands[:half], operands[half:]
    if name == "reduce" and half > 1:
        return lax.reduce(values, starts, _reducer(block, call), _ints(op, "dimensions"))
    (value,), (start,) = values, starts
    if name == "reduce":
        return [lax.reduce(value, start, _reducer(block, call), _ints(op, "dimensions"))]
    rank = value.ndim
    return [
        lax.reduce_window(
            value,
            start,
            _reducer(block, call),
            _ints(op, "window_dimensions"),
            _ints(op, "window_strides", (1,) * rank),
            _pairs(op, rank),
            _ints(op, "base_dilations", (1,) * rank),
            _ints(op, "window_dilations", (1,) * rank),
        )
    ]


def _reducer(block, call: Callable) -> Callable:
    """The function of a reduction; JAX knows sums and maxima by the function that they call."""
    first, *others = (_short(each.operation) for each in block.operations)
    if others == ["return"] and first in _CALLS:
        return _CALLS[first]

    def reduce(values, starts):
        values, starts = jax.tree.leaves(values), jax.tree.leaves(starts)
        found = _run(block, [*values, *starts], call)
        return found if len(found) > 1 else found[0]

    return reduce


def _ints(op, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    return tuple(op.attributes[name]) if name in op.attributes else default


def _pairs(op, rank: int) -> tuple[tuple[int, int], ...]:
    if "padding" not in op.attributes:
        return ((0, 0),) * rank
    return tuple(map(tuple, _array(op.attributes["padding"]).tolist()))


def _int(op, name: str) -> int:
    return ir.IntegerAttr(op.attributes[name]).value


def _type_of(op) -> tuple[tuple[int, ...], np.dtype]:
    found = ir.RankedTensorType(op.results[0].type)
    return tuple(found.shape), jnp.dtype(_DTYPES[str(found.element_type)])


def _array(attribute) -> np.ndarray:
    found = ir.RankedTensorType(attribute.type)
    shape, dtype = tuple(found.shape), jnp.dtype(_DTYPES[str(found.element_type)])
    if attribute.is_splat:  # one value for all places, of any type
        return np.full(shape, attribute.get_splat_value().value, dtype)
    return np.array(attribute).astype(dtype).reshape(shape)


def _compare(op, first, second):
    direction = stablehlo.ComparisonDirectionAttr(op.attributes["comparison_direction"])
    return _COMPARISONS[direction.value](first, second)


def _slice(op, x):
    bounds = (_ints(op, name) for name in ("start_indices", "limit_indices", "strides"))
    return lax.slice(x, *bounds)


def _pad(op, x, value):
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    return lax.pad(x, value, list(zip(*(_ints(op, name) for name in names), strict=True)))


def _precision(op):
    if "precision_config" not in op.attributes:
        return None
    values = [stablehlo.PrecisionAttr(each).value for each in op.attributes["precision_config"]]
    return tuple(lax.Precision[value] for value in values)


def _dot(op, first, second):
    return lax.dot_general(
        first, second, (((first.ndim - 1,), (0,)), ((), ())), precision=_precision(op),
        preferred_element_type=_type_of(op)[1],
    )  # fmt: skip


def _dot_general(op, first, second):
    sides = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    numbers = (
        (sides.lhs_contracting_dimensions, sides.rhs_contracting_dimensions),
        (sides.lhs_batching_dimensions, sides.rhs_batching_dimensions),
    )
    return lax.dot_general(
        first, second, numbers, precision=_precision(op), preferred_element_type=_type_of(op)[1]
    )


def _batch_norm_training(op, x, scale, offset):
    axes, spread = _statistics(op, x)
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axes)
    variance = jnp.mean(jnp.square(x32 - spread(mean)), axes)
    inverse = scale * lax.rsqrt(variance + _epsilon(op))
    y = (x32 - spread(mean)) * spread(inverse) + spread(offset)
    return y.astype(x.dtype), mean.astype(scale.dtype), variance.astype(scale.dtype)


def _batch_norm_inference(op, x, scale, offset, mean, variance):
    _, spread = _statistics(op, x)
    inverse = scale * lax.rsqrt(variance + _epsilon(op))
    return ((x - spread(mean)) * spread(inverse) + spread(offset)).astype(x.dtype)


def _batch_norm_grad(op, x, scale, mean, variance, slope):
    """Gradients of the input, the scale and the offset."""
    axes, spread = _statistics(op, x)
    slope32 = slope.astype(jnp.float32)
    inverse = lax.rsqrt(variance + _epsilon(op))
    normalised = (x.astype(jnp.float32) - spread(mean)) * spread(inverse)
    of_offset = jnp.sum(slope32, axes)
    of_scale = jnp.sum(slope32 * normalised, axes)
    count = x.size // mean.size
    rest = slope32 - (spread(of_offset) + normalised * spread(of_scale)) / count
    of_x = spread(scale * inverse) * rest
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_offset.astype(scale.dtype)


def _epsilon(op) -> np.float32:
    return np.float32(ir.FloatAttr(op.attributes["epsilon"]).value)


def _statistics(op, x) -> tuple[tuple[int, ...], Callable]:
    """The axes of the mean, and what spreads a value of each feature over the input."""
    feature = _int(op, "feature_index")
    axes = tuple(axis for axis in range(x.ndim) if axis != feature)
    return axes, lambda each: lax.expand_dims(each, axes)


def _convolution(op, images, kernel):
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    places = list(numbers.kernel_spatial_dimensions)
    flipped = tuple(op.attributes["window_reversal"]) if "window_reversal" in op.attributes else ()
    if any(flipped):
        kernel = lax.rev(kernel, [i for i, turn in zip(places, flipped, strict=True) if turn])
    rank, (shape, dtype) = len(places), _type_of(op)
    settings: dict[str, Any] = {
        "window_strides": _ints(op, "window_strides", (1,) * rank),
        "padding": _pairs(op, rank),
        "lhs_dilation": _ints(op, "lhs_dilation", (1,) * rank),
        "rhs_dilation": _ints(op, "rhs_dilation", (1,) * rank),
        "dimension_numbers": lax.ConvDimensionNumbers(
            (numbers.input_batch_dimension, numbers.input_feature_dimension,
             *numbers.input_spatial_dimensions),
            (numbers.kernel_output_feature_dimension, numbers.kernel_input_feature_dimension,
             *places),
            (numbers.output_batch_dimension, numbers.output_feature_dimension,
             *numbers.output_spatial_dimensions),
        ),
        "precision": _precision(op),
        "preferred_element_type": dtype,
    }  # fmt: skip
    groups = {n: _int(op, n) for n in ("feature_group_count", "batch_group_count")}
    made = [shape[i] for i in numbers.output_spatial_dimensions]
    of_kernel = [kernel.shape[i] for i in places] > made
    return _convolve(images, kernel, settings, groups, of_kernel)


def _convolve(images, kernel, settings: dict, groups: dict[str, int], of_kernel: bool):
    """A convolution that `jax.vmap` turns into one with groups, each run being a group.

    The gradient of a kernel is a convolution with a window as large as the image. GPU libraries
    have it with groups of the batch only.
    """
    numbers = settings["dimension_numbers"]
    by_batch = groups["batch_group_count"] > 1 or (of_kernel and groups["feature_group_count"] == 1)

    @jax.custom_batching.custom_vmap
    def convolve(images, kernel):
        return lax.conv_general_dilated(images, kernel, **settings, **groups)

    @convolve.def_vmap
    def convolve_many(runs, batched, images, kernel):
        pairs = zip((images, kernel), batched, strict=True)
        images, kernel = (x if many else jnp.broadcast_to(x, (runs, *x.shape)) for x, many in pairs)
        name = "batch_group_count" if by_batch else "feature_group_count"
        more = groups | {name: runs * groups[name]}
        images = _merge(images, numbers.lhs_spec[0 if by_batch else 1])
        kernel = _merge(kernel, numbers.rhs_spec[0])
        made = lax.conv_general_dilated(images, kernel, **settings, **more)
        return _split(made, numbers.out_spec[1], runs), True

    return convolve(images, kernel)


def _merge(x, axis: int):
    """Puts the runs, axis 0, before another axis and makes the two one."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _split(x, axis: int, runs: int):
    x = x.reshape(*x.shape[:axis], runs, -1, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


_OPERATIONS: dict[str, Callable] = {
    "constant": lambda op: _array(op.attributes["value"]),
    "iota": lambda op: lax.broadcasted_iota(
        _type_of(op)[1], _type_of(op)[0], _int(op, "iota_dimension")
    ),
    "compare": _compare,
    "convert": lambda op, x: lax.convert_element_type(x, _type_of(op)[1]),
    "bitcast_convert": lambda op, x: lax.bitcast_convert_type(x, _type_of(op)[1]),
    "broadcast_in_dim": lambda op, x: lax.broadcast_in_dim(
        x, _type_of(op)[0], _ints(op, "broadcast_dimensions")
    ),
    "reshape": lambda op, x: lax.reshape(x, _type_of(op)[0]),
    "transpose": lambda op, x: lax.transpose(x, _ints(op, "permutation")),
    "reverse": lambda op, x: lax.rev(x, _ints(op, "dimensions")),
    "concatenate": lambda op, *xs: lax.concatenate(xs, _int(op, "dimension")),
    "slice": _slice,
    "pad": _pad,
    "dot": _dot,
    "dot_general": _dot_general,
    "convolution": _convolution,
    "batch_norm_training": _batch_norm_training,
    "batch_norm_inference": _batch_norm_inference,
    "batch_norm_grad": _batch_norm_grad,
    "optimization_barrier": lambda op, *xs: list(xs),  # it stands for a copy
}
