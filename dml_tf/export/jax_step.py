"""An exported training step in JAX: the compiled program, and its batches made on the device.

Imports NumPy, JAX and the parts of the package that need no TensorFlow.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend.mlir.dialects import stablehlo

from dml_tf.data.draws import EpochDraws, crop_pad
from dml_tf.export import folder as exported

jax.config.update("jax_enable_x64", True)  # labels and step counters have 64 bits

State = tuple[jax.Array, ...]
Step = Callable[[State, jax.Array, jax.Array], State]


class Data(NamedTuple):
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


def load_step(folder: Path, manifest: dict, precision: str = "default") -> Step:
    """Makes a JAX function of an exported program.

    JAX exports a function of the same signature, whose body is then replaced by the program.

    Args:
        folder: What `dml_tf.export_step` wrote.
        manifest: What `dml_tf.exported.read_manifest` returned.
        precision: Of products: `default`, the device's own (TF32 on a GPU, bfloat16 on a TPU), or
            `highest`, float32.

    Returns:
        A function `(state, images, labels) -> state` for use under `jax.jit`; images are
        normalised, shape `(batch, height, width, channels)`, float32, and labels int64.

    Raises:
        FileNotFoundError: There is no program.
        ValueError: It is damaged.
    """
    file = folder / exported.PROGRAM
    text = file.read_text(encoding="utf-8")
    if precision == "highest":
        text = text.replace("precision DEFAULT", "precision HIGHEST")
        text = text.replace("[DEFAULT, DEFAULT]", "[HIGHEST, HIGHEST]")
    batch_size = manifest["config"]["batch_size"]
    variables = manifest["variables"]
    updated = [i for i, variable in enumerate(variables) if variable["updated"]]

    def same_signature(images, labels, *state):
        return [state[i] for i in updated]

    function = jax.export.export(
        jax.jit(same_signature, keep_unused=True),
        # The program names no device; whether it may run on one is the compiler's to say.
        disabled_checks=[jax.export.DisabledSafetyCheck.platform()],
    )(
        jax.ShapeDtypeStruct((batch_size, *manifest["images"]["shape"]), np.float32),
        jax.ShapeDtypeStruct((batch_size,), np.int64),
        *(jax.ShapeDtypeStruct(tuple(v["shape"]), v["dtype"]) for v in variables),
    )
    try:
        program = stablehlo.serialize_portable_artifact_str(text, stablehlo.get_current_version())
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}): export the step again.") from error
    function = dataclasses.replace(function, mlir_module_serialized=program)

    def step(state, images, labels):
        state = list(state)
        for i, value in zip(updated, function.call(images, labels, *state), strict=True):
            state[i] = value
        return tuple(state)

    return step


def to_device(images: np.ndarray, labels: np.ndarray, manifest: dict, device: jax.Device) -> Data:
    """Brings a training set to a device, as bytes.

    The normalised values are NumPy's, looked up on the device: no compiler can round them in
    another way (a fused multiply-add would), and batches equal those of `tf.data` bit for bit.

    Args:
        images: Pixels, shape `(images, height, width, channels)`, uint8.
        labels: Classes, shape `(images,)`, int64.
        manifest: What `dml_tf.exported.read_manifest` returned.
        device: Where to.

    Returns:
        The training set.
    """
    mean, std = (np.array(manifest["images"][key], np.float32) for key in ("mean", "std"))
    levels = np.arange(256, dtype=np.float32)[:, np.newaxis] * (1 / (255 * std)) - mean / std
    return Data(*jax.device_put((images, labels, levels), device))


def batch(data: Data, draws: EpochDraws) -> tuple[jax.Array, jax.Array]:
    """Cuts, mirrors and normalises a mini-batch, as `dml_tf.data.train_batches` does.

    Args:
        data: The training set.
        draws: One batch of draws, each of shape `(batch,)`.

    Returns:
        Images, shape `(batch, height, width, channels)`, float32, and labels, shape `(batch,)`.
    """
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


Advance = Callable[[State, Data, EpochDraws, int, int], State]


def one_by_one(step: Step) -> Advance:
    """Steps in a dispatch of their own each, for CPUs.

    XLA's CPU compiler runs convolutions inside a loop many times slower.

    Args:
        step: What `load_step` returned.

    Returns:
        A function `(state, data, draws, first, last) -> state` that does the steps from `first`
        to before `last` of an epoch with these draws, of shape `(steps, batch)`. It uses up the
        state that it is given.
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
    """All steps in one dispatch, for accelerators.

    Args:
        step: What `load_step` returned.

    Returns:
        A function like `one_by_one`'s. One compilation serves any number of steps.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state, data, draws, first, last):
        def body(i, state):
            return step(state, *batch(data, _at(draws, i)))

        return jax.lax.fori_loop(first, last, body, state)

    return advance


def _at(draws: EpochDraws, i: int) -> EpochDraws:
    return EpochDraws(*(array[i] for array in draws))


class Trainer:
    """A run's program and its images on one device.

    Args:
        folder: What `dml_tf.export_step` wrote.
        manifest: What `dml_tf.exported.read_manifest` returned.
        images: Training pixels, shape `(images, height, width, channels)`, uint8.
        labels: Their classes, shape `(images,)`, int64.
        device: Where to train.
        precision: As for `load_step`.
        dispatch: `one_by_one` or `in_one_dispatch`; by default what suits the device.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict,
        images: np.ndarray,
        labels: np.ndarray,
        device: jax.Device,
        precision: str = "default",
        dispatch: Callable[[Step], Advance] | None = None,
    ):
        self._device = device
        self._manifest = manifest
        self._data = to_device(images, labels, self._manifest, device)
        if dispatch is None:
            dispatch = one_by_one if device.platform == "cpu" else in_one_dispatch
        self._advance = dispatch(load_step(folder, self._manifest, precision))
        self._draws = functools.lru_cache(1)(self._draw)

    def advance(self, state: State, epoch: int, first: int, last: int) -> State:
        """Does some steps of an epoch; those from its first begin its metrics anew.

        Args:
            state: The program's variables, NumPy's or JAX's; it is used up.
            epoch: Index of the epoch.
            first: Index of the first step in the epoch.
            last: Index behind the last step.

        Returns:
            The new state, on the device; it may still be under way.
        """
        if first == 0:
            state = reset_metrics(state, self._manifest)
        rate = self._manifest["learning_rate"]
        state = _replace(state, rate["places"], rate["by_epoch"][epoch])
        # JAX compiles anew for arguments that are not bound to a device by name.
        state = jax.device_put(tuple(state), self._device)
        return self._advance(state, self._data, self._draws(epoch), first, last)

    def _draw(self, epoch: int) -> EpochDraws:
        return jax.device_put(exported.epoch_draws(self._manifest, epoch), self._device)


def metrics(state: State, manifest: dict) -> dict[str, float]:
    """The metrics' values so far, as Keras's `Mean` gives them.

    Args:
        state: The program's variables.
        manifest: What `dml_tf.exported.read_manifest` returned.

    Returns:
        Name -> mean since `reset_metrics`; 0 where nothing was counted.
    """
    places = manifest["metrics"]
    values = jax.device_get({name: [state[i] for i in pair] for name, pair in places.items()})
    return {name: float(total / count) if count else 0.0 for name, (total, count) in values.items()}


def reset_metrics(state: State, manifest: dict) -> State:
    """Sets the metrics to nothing counted, as Keras does when an epoch starts.

    Args:
        state: The program's variables.
        manifest: What `dml_tf.exported.read_manifest` returned.

    Returns:
        The new state.
    """
    return _replace(state, [i for pair in manifest["metrics"].values() for i in pair], 0)


def _replace(state: State, places: Sequence[int], value: float) -> State:
    return tuple(
        np.full(v.shape, value, v.dtype) if i in places else v for i, v in enumerate(state)
    )
