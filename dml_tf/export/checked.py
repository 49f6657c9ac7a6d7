"""Checks of an exported run that may come from elsewhere, before anything of it is compiled.

A program that XLA compiles can call functions of the process, wait for ever or take all memory. So
it must have the signature that the manifest gives it, and use arithmetic only.
"""

import math
import os
from collections.abc import Callable, Sequence

from dml_tf.runs.config import Config

TYPES = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "bool": "i1",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "ui8", "uint16": "ui16", "uint32": "ui32", "uint64": "ui64",
}  # fmt: skip
MOST_PROGRAM = 256 << 20  # bytes of text
_OTHER_WORLDS = frozenset(
    """
custom_call infeed outfeed send recv while case if all_gather all_reduce all_to_all
collective_broadcast collective_permute reduce_scatter partition_id replica_id create_token
after_all rng composite
""".split()
)


def check_manifest(manifest: dict, config: Config):
    """Refuses a manifest whose parts have other types or sizes than its run.

    Args:
        manifest: As `json.loads` gave it, with a `config` that has been made into `config`.
        config: The run's settings.

    Raises:
        ValueError: Names the part.
    """
    for name, is_right in _PARTS.items():
        try:
            right = is_right(manifest, config)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            right = False
        if not right:
            raise ValueError(f"its {name!r} is missing, or not what its run needs")


def _is_run_id(manifest: dict, config: Config) -> bool:
    run_id = manifest["run_id"]
    return run_id.isprintable() and "/" not in run_id and len(run_id) < 1000


def _are_places_on_disk(manifest: dict, config: Config) -> bool:
    return isinstance(manifest["data_dir"], str) and isinstance(manifest["results_dir"], str)


def _are_images(manifest: dict, config: Config) -> bool:
    images = manifest["images"]
    shape, count = images["shape"], images["count"]
    levels = [images["mean"], images["std"]]
    return (
        _are_sizes([count, *shape], least=1)
        and len(shape) == 3
        and all(len(each) == shape[2] and _are_finite(each) for each in levels)
        and min(images["std"]) > 0
        and all(len(images[key]) == 64 for key in ("labels_sha256", "pixels_sha256"))
    )


def _is_schedule(manifest: dict, config: Config) -> bool:
    planned = config.schedule(manifest["images"]["count"])._asdict()
    return {name: manifest[name] for name in planned} == planned


def _are_variables(manifest: dict, config: Config) -> bool:
    return bool(manifest["variables"]) and all(
        isinstance(variable["name"], str)
        and variable["dtype"] in TYPES
        and isinstance(variable["updated"], bool)
        and _are_sizes(variable["shape"], least=0)
        for variable in manifest["variables"]
    )


def _are_rates(manifest: dict, config: Config) -> bool:
    rate = manifest["learning_rate"]
    per_epoch = rate["by_epoch"]
    return (
        _are_places(rate["places"], manifest)
        and len(per_epoch) == config.schedule(manifest["images"]["count"]).epochs
        and _are_finite(per_epoch)
        and min(per_epoch) >= 0
    )


def _are_metrics(manifest: dict, config: Config) -> bool:
    pairs = manifest["metrics"].values()
    return all(len(pair) == 2 and _are_places(pair, manifest) for pair in pairs)


_PARTS: dict[str, Callable[[dict, Config], bool]] = {
    "run_id": _is_run_id,
    "data_dir": _are_places_on_disk,
    "images": _are_images,
    "steps": _is_schedule,
    "variables": _are_variables,
    "learning_rate": _are_rates,
    "metrics": _are_metrics,
}


def _are_sizes(values: Sequence, least: int) -> bool:
    return all(type(value) is int and least <= value < 2**40 for value in values)


def _are_finite(values: Sequence) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _are_places(places: Sequence, manifest: dict) -> bool:
    """Whether numbers are places of scalars among the variables."""
    variables = manifest["variables"]
    return all(
        type(i) is int and 0 <= i < len(variables) and variables[i]["shape"] == [] for i in places
    )


def check_progress(progress: dict, config: Config, images: int):
    """Refuses a state whose progress is no number of steps of the run's schedule; ValueError."""
    schedule = config.schedule(images)
    try:
        epoch, step, history = progress["epoch"], progress["step"], progress["history"]
        right = (
            type(step) is int
            and 0 <= step <= schedule.steps
            and epoch
            in {step // schedule.steps_per_epoch, math.ceil(step / schedule.steps_per_epoch)}
            and all(isinstance(n, str) and _are_finite(v) for n, v in history.items())
            and _are_finite([progress["wall_clock_s"], progress["cpu_s"]])
            and all(isinstance(entry["machine"], str) for entry in progress["trained_on"])
        )
    except (TypeError, KeyError, AttributeError):
        right = False
    if not right:
        raise ValueError("its progress is not one of this run")


def check_program(artifact: bytes, arguments: Sequence, results: Sequence):
    """Refuses a program of another signature, or with more than arithmetic; it is not compiled.

    Args:
        artifact: The program as StableHLO's portable form.
        arguments: Shape and type of each argument, with `shape` and `dtype`.
        results: The same of each result.

    Raises:
        ValueError: Names what is wrong.
    """
    from jax.extend.mlir import ir
    from jax.extend.mlir.dialects import stablehlo

    with ir.Context() as context:
        module = stablehlo.deserialize_portable_artifact(context, artifact)
        operations = [op.operation for op in module.body.operations]
        functions = {_symbol(op): op for op in operations if op.name == "func.func"}
        if "main" not in functions:
            raise ValueError("it has no function main")
        found = ir.FunctionType(ir.TypeAttr(functions["main"].attributes["function_type"]).value)
        for what, types, expected in (
            ("arguments", found.inputs, arguments),
            ("results", found.results, results),
        ):
            wanted = [_tensor(each.shape, each.dtype) for each in expected]
            if [str(each) for each in types] != wanted:
                raise ValueError(f"main has other {what} than its manifest says")
        _check_operations(module)


def _check_operations(module):
    """Refuses operations that do more than arithmetic, and tensors that fit no memory."""
    from jax.extend.mlir import ir

    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    problems = []

    def see(op):
        dialect, _, name = op.name.partition(".")
        if name in _OTHER_WORLDS or dialect not in ("stablehlo", "func", "builtin"):
            problems.append(f"it uses {op.name}, which is more than arithmetic")
        for result in op.results:
            if not _fits(result.type, most):
                problems.append(f"it makes a {str(result.type)[:80]}, larger than the memory")
        return ir.WalkResult.INTERRUPT if problems else ir.WalkResult.ADVANCE

    module.operation.walk(see)
    if problems:
        raise ValueError(problems[0])
    _refuse_calls_in_a_circle(module)


def _fits(type_, most: int) -> bool:
    from jax.extend.mlir import ir

    if isinstance(type_, ir.TupleType):
        return all(_fits(type_.get_type(i), most) for i in range(type_.num_types))
    if not isinstance(type_, ir.RankedTensorType) or not type_.has_static_shape:
        return False
    return 8 * math.prod(type_.shape) <= 4 * most


def _refuse_calls_in_a_circle(module):
    from jax.extend.mlir import ir

    calls = {}
    for function in [op.operation for op in module.body.operations]:
        called = calls.setdefault(_symbol(function), set())

        def see(op, called=called):
            if op.name == "func.call":
                called.add(ir.FlatSymbolRefAttr(op.attributes["callee"]).value)
            return ir.WalkResult.ADVANCE

        function.walk(see)
    while done := [name for name, called in calls.items() if not called & calls.keys()]:
        for name in done:
            del calls[name]
    if calls:
        raise ValueError(f"its function {sorted(calls)[0][:80]!r} calls itself")


def _symbol(op) -> str:
    from jax.extend.mlir import ir

    return ir.StringAttr(op.attributes["sym_name"]).value


def _tensor(shape: Sequence[int], dtype) -> str:
    """A tensor's type as StableHLO prints it."""
    return f"tensor<{''.join(f'{size}x' for size in shape)}{TYPES[str(dtype)]}>"
