"""An exported training step in JAX: the compiled program, and its batches made on the device.

Imports NumPy, JAX and the parts of the package that need no TensorFlow.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dml_tf.data import EpochDraws, Split
from dml_tf.data.draws import crop_pad
from dml_tf.errors import RunFailed
from dml_tf.export.checked import check_program
from dml_tf.export.folder import PROGRAM, Export

jax.config.update("jax_enable_x64", True)  # labels and step counters have 64 bits

State = tuple[jax.Array, ...]
Step = Callable[[State, jax.Array, jax.Array], State]
Advance = Callable[[State, "DeviceData", EpochDraws, int, int], State]


def find_device(platform: str | None = None) -> jax.Device:
    """JAX's first device of a platform, such as `cpu`; by default of its preferred platform."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError as error:
        raise RunFailed(f"JAX finds no device ({error}). Check JAX_PLATFORMS.") from error


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """Context that turns a failure of the device, as a lack of memory, into a failed run."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise RunFailed(f"The device failed: {error}") from error


class DeviceData(NamedTuple):
    """The training set on a device.

    Attributes:
        images: Pixels, shape `(images, height, width, channels)`, uint8.
        labels: Classes, shape `(images,)`, int64, -1 where unlabelled.
        levels: Normalised value of each of a channel's 256 levels, shape `(256, channels)`,
            float32.
    """

    images: jax.Array
    labels: jax.Array
    levels: jax.Array


class Trainer:
    """The program and the images of an exported run, on one device.

    Args:
        export: The exported run.
        train: Its training images.
        device: Where to train.
        precision: Of products: `default`, the device's own (TF32 on a GPU, bfloat16 on a TPU), or
            `highest`, float32.
        dispatch: `one_by_one` or `in_one_dispatch`; by default what suits the device.

    Raises:
        FileNotFoundError: There is no program.
        ValueError: The program is damaged.
    """

    def __init__(
        self,
        export: Export,
        train: Split,
        device: jax.Device,
        precision: str = "default",
        dispatch: Callable[[Step], Advance] | None = None,
    ):
        self._export = export
        self._device = device
        self._data = to_device(train, export, device)
        if dispatch is None:
            dispatch = one_by_one if device.platform == "cpu" else in_one_dispatch
        self._advance = dispatch(load_step(export, precision))
        self._draws = functools.lru_cache(1)(self._draw)

    def advance(self, state: State, epoch: int, first: int, last: int) -> State:
        """Does some steps of an epoch. The first step of the epoch resets the metrics.

        Args:
            state: The program's variables, of NumPy or JAX. Do not use it again.
            epoch: Index of the epoch.
            first: Index of the first step in the epoch.
            last: Index behind the last step.

        Returns:
            The new state, on the device; it may still be computed.
        """
        if first == 0:
            state = self.reset_metrics(state)
        rate = self._export.manifest["learning_rate"]
        state = _replace(state, rate["places"], rate["by_epoch"][epoch])
        # JAX compiles anew for arguments that are not bound to a device by name.
        state = jax.device_put(tuple(state), self._device)
        return self._advance(state, self._data, self._draws(epoch), first, last)

    def metrics(self, state: State) -> dict[str, float]:
        """Mean of each metric since `reset_metrics`; 0 where nothing was counted."""
        values = jax.device_get(
            {name: [state[i] for i in pair] for name, pair in self._metric_places.items()}
        )
        return {
            name: float(total / count) if count else 0.0 for name, (total, count) in values.items()
        }

    def reset_metrics(self, state: State) -> State:
        """The state with all metrics' totals and counts at 0, as at the start of an epoch."""
        return _replace(state, [i for pair in self._metric_places.values() for i in pair], 0)

    @property
    def _metric_places(self) -> dict[str, Sequence[int]]:
        return self._export.manifest["metrics"]

    def _draw(self, epoch: int) -> EpochDraws:
        return jax.device_put(self._export.epoch_draws(epoch), self._device)


def _replace(state: State, places: Sequence[int], value: float) -> State:
    return tuple(
        np.full(v.shape, value, v.dtype) if i in places else v for i, v in enumerate(state)
    )


def load_step(export: Export, precision: str = "default") -> Step:
    """The exported program as a function `(state, images, labels) -> state` for `jax.jit`."""
    file = export.folder / PROGRAM
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
        program = _function_of(text, arguments, [2 + i for i in updated])
    except Exception as error:  # MLIR raises types of its own
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} is damaged ({reason}): export the step again.") from error

    def step(state, images, labels):
        state = list(state)
        for i, value in zip(updated, program(images, labels, *state), strict=True):
            state[i] = value
        return tuple(state)

    return step


def _function_of(text: str, arguments: Sequence, like: Sequence[int]) -> Callable[..., Any]:
    """A JAX function that runs a StableHLO program; result i is like argument `like[i]`.

    Everything that depends on JAX's exact version is in here. JAX exports a function of the same
    signature, and the program takes the place of its body.
    """
    import jax.export
    from jax.extend.mlir.dialects import stablehlo

    def same_signature(*values):
        return [values[i] for i in like]

    exported = jax.export.export(
        jax.jit(same_signature, keep_unused=True),
        # The program names no device; the compiler decides whether it can run on one.
        disabled_checks=[jax.export.DisabledSafetyCheck.platform()],
    )(*arguments)
    program = stablehlo.serialize_portable_artifact_str(text, stablehlo.get_current_version())
    check_program(program, arguments, [arguments[i] for i in like])
    return dataclasses.replace(exported, mlir_module_serialized=program).call


def to_device(train: Split, export: Export, device: jax.Device) -> DeviceData:
    """Copies a training set to a device, as bytes.

    The normalised values are NumPy's, looked up on the device. No compiler can round them in
    another way (a fused multiply-add would), and batches equal those of `tf.data` bit for bit.
    """
    images = export.manifest["images"]
    mean, std = (np.array(images[key], np.float32) for key in ("mean", "std"))
    levels = np.arange(256, dtype=np.float32)[:, np.newaxis] * (1 / (255 * std)) - mean / std
    return DeviceData(*jax.device_put((train.images, train.labels, levels), device))


def batch(data: DeviceData, draws: EpochDraws) -> tuple[jax.Array, jax.Array]:
    """Cuts, mirrors and normalises a mini-batch, as `dml_tf.data.train_batches` does."""
    _, height, width, channels = data.images.shape
    pad = crop_pad(height)
    rows = _reflect(draws.top[:, None] - pad + np.arange(height, dtype=np.int32), height)
    columns = _reflect(draws.left[:, None] - pad + np.arange(width, dtype=np.int32), width)
    columns = jnp.where(draws.flip[:, None], columns[:, ::-1], columns)
    place = (draws.index[:, None, None], rows[:, :, None], columns[:, None, :])
    return data.levels[data.images[place], np.arange(channels)], data.labels[draws.index]


def _reflect(place: jax.Array, size: int) -> jax.Array:
    """Places outside `[0, size)` mirrored at the first and last pixel, which are not repeated."""
    return (size - 1) - jnp.abs((size - 1) - jnp.abs(place))


def one_by_one(step: Step) -> Advance:
    """Steps in a dispatch of their own each, for CPUs.

    XLA's CPU compiler runs convolutions inside a loop many times slower. The result takes the
    draws of an epoch, and does its steps from `first` to before `last`.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, data, draws, i):
        return step(state, *batch(data, _at(draws, i)))

    def advance(state, data, draws, first, last):
        for i in range(first, last):
            state = train_step(state, data, draws, i)
        return state

    return advance


def in_one_dispatch(step: Step) -> Advance:
    """All steps in one dispatch, for accelerators; one compilation serves any number of them."""

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state, data, draws, first, last):
        def body(i, state):
            return step(state, *batch(data, _at(draws, i)))

        return jax.lax.fori_loop(first, last, body, state)

    return advance


def _at(draws: EpochDraws, i: int) -> EpochDraws:
    return EpochDraws(*(array[i] for array in draws))
