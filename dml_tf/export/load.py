"""The ways to load an exported program into JAX; everything that depends on JAX's version."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dml_tf.errors import FlagError
from dml_tf.export import TESTED_JAX, TRIED_JAX
from dml_tf.export.checked import check_program
from dml_tf.export.folder import PROGRAM, Export

jax.config.update("jax_enable_x64", True)  # labels and step counters have 64 bits

State = tuple[jax.Array, ...]
Step = Callable[[State, jax.Array, jax.Array], State]


def load_step(export: Export, precision: str = "default", loader: str | None = None) -> Step:
    """The exported program as a function `(state, images, labels) -> state` for `jax.jit`.

    Args:
        export: The exported run.
        precision: Of products; as for `jax_step.Trainer`.
        loader: One of `LOADERS`. By default they are tried in order.

    Raises:
        FlagError: There is no such loader.
        FileNotFoundError: There is no program.
        ValueError: The program is damaged, or can be loaded in no way; says why for each.
    """
    if loader not in (None, *LOADERS):
        raise FlagError(f"--loader={loader}: choose from {', '.join(LOADERS)}.")
    text = export.read_program()
    if precision == "highest":
        text = text.replace("precision DEFAULT", "precision HIGHEST")
        text = text.replace("[DEFAULT, DEFAULT]", "[HIGHEST, HIGHEST]")
    size, variables = export.config.batch_size, export.manifest["variables"]
    updated = [i for i, variable in enumerate(variables) if variable["updated"]]
    arguments = [
        jax.ShapeDtypeStruct((size, *export.manifest["images"]["shape"]), np.float32),
        jax.ShapeDtypeStruct((size,), np.int64),
        *(jax.ShapeDtypeStruct(tuple(v["shape"]), v["dtype"]) for v in variables),
    ]
    try:
        artifact = _artifact(text)
        check_program(artifact, arguments, [arguments[2 + i] for i in updated])
    except Exception as error:  # MLIR raises types of its own
        file = export.folder / PROGRAM
        raise ValueError(f"{file} is damaged ({_short(error)}): export the step again.") from error
    program = _load(artifact, arguments, [2 + i for i in updated], loader)

    def step(state, images, labels):
        state = list(state)
        for i, value in zip(updated, program(images, labels, *state), strict=True):
            state[i] = value
        return tuple(state)

    return step


def _artifact(text: str) -> bytes:
    from jax.extend.mlir.dialects import stablehlo

    return stablehlo.serialize_portable_artifact_str(text, stablehlo.get_current_version())


def _load(
    artifact: bytes, arguments: Sequence, like: Sequence[int], loader: str | None
) -> Callable[..., Any]:
    """The program, by the first loader that can; result i is like argument `like[i]`."""
    failed = []
    for name in [loader] if loader else LOADERS:
        try:
            program = LOADERS[name](artifact, arguments, like)
            jax.eval_shape(program, *arguments)
            return program
        except Exception as error:  # what another version of JAX raises is not known
            failed.append(f"by {name}: {_short(error)}")
    raise ValueError(
        f"JAX {jax.__version__} cannot load the step ({'; '.join(failed)}). JAX {TRIED_JAX} could: "
        f"use one of them, as by `pip install {TESTED_JAX}`."
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _by_export(artifact: bytes, arguments: Sequence, like: Sequence[int]) -> Callable[..., Any]:
    """JAX exports a function of the same signature, and the program takes the place of its body."""
    import jax.export

    def same_signature(*values):
        return [values[i] for i in like]

    exported = jax.export.export(
        jax.jit(same_signature, keep_unused=True),
        # The program names no device; the compiler decides whether it can run on one.
        disabled_checks=[jax.export.DisabledSafetyCheck.platform()],
    )(*arguments)
    return dataclasses.replace(exported, mlir_module_serialized=artifact).call


def _by_operations(artifact: bytes, arguments: Sequence, like: Sequence[int]) -> Callable[..., Any]:
    """JAX makes each operation anew."""
    from dml_tf.export import operations

    return operations.as_function(artifact)


# Name -> function (artifact, arguments, like) -> the program. `jax.vmap` takes the second only.
LOADERS = {"export": _by_export, "operations": _by_operations}
