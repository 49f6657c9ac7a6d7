"""Exported training steps in JAX: one run or many at once, on one device.

Imports NumPy, JAX and the parts of the package that need no TensorFlow.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dml_tf.data import EpochDraws, Split
from dml_tf.errors import RunFailed
from dml_tf.export.device_data import DeviceData, batch, to_device
from dml_tf.export.folder import Export
from dml_tf.export.load import State, Step, load_step


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


class Places(NamedTuple):
    """Where some runs are in their data.

    Attributes:
        data: The training set of each run, or one for all.
        draws: Order and augmentation of each run's epoch.
        first: Each run's next step in its epoch.
    """

    data: tuple[DeviceData, ...]
    draws: tuple[EpochDraws, ...]
    first: tuple[int, ...]


# (states, places, steps) -> states
Advance = Callable[[tuple[State, ...], Places, int], tuple[State, ...]]


class Trainer:
    """The program and the images of an exported run, on one device.

    Args:
        export: The exported run.
        train: Its training images.
        device: Where to train.
        precision: Of products: `default`, the device's own (TF32 on a GPU, bfloat16 on a TPU), or
            `highest`, float32.
        dispatch: `one_by_one` or `in_one_dispatch`; by default what suits the device.
        form: How several runs are one program: `calls` or `batched`.
        loader: One of `load.LOADERS`; by default the first that works, for `batched`
            `operations`.
        beside: The trainer of a run that trains together with this one. It has the same program.

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
        dispatch: Callable | None = None,
        form: Callable | None = None,
        loader: str | None = None,
        beside: "Trainer | None" = None,
    ):
        self._export = export
        self._device = device
        self._train = train
        shares = beside is not None and _are_equal(train, beside._train)
        self._data = beside._data if shares else to_device(train, export, device)
        self._draws = functools.lru_cache(2)(self._draw)
        if beside is not None:
            self._advance = beside._advance
            return
        if dispatch is None:
            dispatch = one_by_one if device.platform == "cpu" else in_one_dispatch
        form = form or calls
        loader = "operations" if form is batched else loader
        self._advance = dispatch(functools.partial(form, load_step(export, precision, loader)))

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
        (state,) = advance_together([(self, state, epoch, first)], last - first)
        return state

    def prepare_epoch(self, epoch: int):
        """Draws order and augmentation of an epoch, while the device still computes."""
        if epoch < self._export.schedule.epochs:
            self._draws(epoch)

    def metrics(self, state: State) -> dict[str, float]:
        """Mean of each metric since `reset_metrics`; 0 where nothing was counted."""
        return metrics_of([(self, state)])[0]

    def reset_metrics(self, state: State) -> State:
        """The state with all metrics' totals and counts at 0, as at the start of an epoch."""
        return _replace(state, [i for pair in self._metric_places.values() for i in pair], 0)

    @property
    def _metric_places(self) -> dict[str, Sequence[int]]:
        return self._export.manifest["metrics"]

    def _started(self, state: State, epoch: int, first: int) -> State:
        """The state on the device, with the epoch's learning rate."""
        if first == 0:
            state = self.reset_metrics(state)
        rate = self._export.manifest["learning_rate"]
        state = _replace(state, rate["places"], rate["by_epoch"][epoch])
        # JAX compiles anew for arguments that are not bound to a device by name.
        on_device = iter(
            jax.device_put([v for v in state if not isinstance(v, jax.Array)], self._device)
        )
        return tuple(v if isinstance(v, jax.Array) else next(on_device) for v in state)

    def _draw(self, epoch: int) -> EpochDraws:
        return jax.device_put(self._export.epoch_draws(epoch), self._device)


def advance_together(
    runs: Sequence[tuple[Trainer, State, int, int]], steps: int
) -> tuple[State, ...]:
    """Does the next steps of several runs that have the same program, in one dispatch.

    Args:
        runs: Trainer, state, epoch and next step in it, of each run.
        steps: How many steps each run does; its epoch must have as many left.

    Returns:
        The new states.
    """
    data = tuple({id(trainer._data): trainer._data for trainer, *_ in runs}.values())
    places = Places(
        data if len(data) == 1 else tuple(trainer._data for trainer, *_ in runs),
        tuple(trainer._draws(epoch) for trainer, _, epoch, _ in runs),
        tuple(first for *_, first in runs),
    )
    states = tuple(trainer._started(*place) for trainer, *place in runs)
    return runs[0][0]._advance(states, places, steps)


def metrics_of(runs: Sequence[tuple[Trainer, State]]) -> list[dict[str, float]]:
    """The metrics of several runs, fetched from the device at once; see `Trainer.metrics`."""
    found = jax.device_get(
        [
            {name: [state[i] for i in pair] for name, pair in trainer._metric_places.items()}
            for trainer, state in runs
        ]
    )
    return [
        {name: float(total / count) if count else 0.0 for name, (total, count) in values.items()}
        for values in found
    ]


def _replace(state: State, places: Sequence[int], value: float) -> State:
    return tuple(
        np.full(v.shape, value, v.dtype) if i in places else v for i, v in enumerate(state)
    )


def _are_equal(first: Split, second: Split) -> bool:
    pairs = ((first.images, second.images), (first.labels, second.labels))
    return all(a is b or np.array_equal(a, b) for a, b in pairs)


def calls(step: Step, states: tuple[State, ...], places: Places, repeat: Callable):
    """Several runs as one program that has the step once for each of them.

    Args:
        step: The training step of one run.
        states: The runs' variables.
        places: Where the runs are.
        repeat: Function (body, start) that applies `body(i, value)` for i = 0, 1, ...
    """

    def body(i, states):
        return tuple(map(step, states, *zip(*_batches(places, i), strict=True)))

    return repeat(body, states)


def batched(step: Step, states: tuple[State, ...], places: Places, repeat: Callable):
    """Several runs as one program whose every operation does the work of all; see `calls`."""
    many = jax.vmap(step)

    def body(i, stacked):
        images, labels = zip(*_batches(places, i), strict=True)
        return many(stacked, jnp.stack(images), jnp.stack(labels))

    stacked = repeat(body, tuple(map(jnp.stack, zip(*states, strict=True))))
    return tuple(tuple(value[run] for value in stacked) for run in range(len(states)))


FORMS = {"calls": calls, "batched": batched}


def _batches(places: Places, i: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """The mini-batch of each run, `i` steps after its first."""
    sets = places.data * (len(places.draws) // len(places.data))
    return [batch(*place) for place in zip(sets, _draws_at(places, i), strict=True)]


def _draws_at(places: Places, i: jax.Array) -> Iterator[EpochDraws]:
    for draws, first in zip(places.draws, places.first, strict=True):
        yield EpochDraws(*(array[first + i] for array in draws))


def one_by_one(train: Callable) -> Advance:
    """Steps in a dispatch of their own each, for CPUs.

    XLA's CPU compiler runs convolutions inside a loop many times slower.

    Args:
        train: `calls` or `batched`, of a step.

    Returns:
        Function (states, places, steps) -> states.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(states, places):
        return train(states, places, lambda body, start: body(0, start))

    def advance(states, places, steps):
        for i in range(steps):
            here = places._replace(first=tuple(first + i for first in places.first))
            states = train_step(states, here)
        return states

    return advance


def in_one_dispatch(train: Callable) -> Advance:
    """All steps in one dispatch, for accelerators; one compilation serves any number of them."""

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(states, places, steps):
        def repeat(body, start):
            return jax.lax.fori_loop(0, steps, body, start)

        return train(states, places, repeat)

    return advance
