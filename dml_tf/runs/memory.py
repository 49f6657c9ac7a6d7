"""The memory that a run needs, estimated before anything is loaded or built, and what there is.

The estimate counts what a run must hold at once: images, weights with gradients and optimizer
variables, and the outputs of convolutions and norms for one batch. It is a lower bound, so that no
run is refused that would fit.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from dml_tf import networks
from dml_tf.data.batches import evaluated_at_once
from dml_tf.data.sources.image_folder import pixel_bytes
from dml_tf.errors import FlagError
from dml_tf.networks import size
from dml_tf.runs import records
from dml_tf.runs.config import Config
from dml_tf.runs.parallel.placement import Placement
from dml_tf.runs.values import Size

GIGABYTE = 1e9
# Data set -> images, height, width, channels, classes, as published; no images: they stay on disk.
# A data set that is not listed has no estimate.
_SHAPES = {
    "cifar10": (60_000, 32, 32, 3, 10),
    "cifar100": (60_000, 32, 32, 3, 100),
    "fashion_mnist": (70_000, 28, 28, 1, 10),
    "digits": (1_797, 8, 8, 1, 10),
    "shapes100": (12_000, 32, 32, 3, 100),
    "image_folder": (0, 64, 64, 3, 2),
    "imagenet": (0, 224, 224, 3, 1000),
    "imagenet_mini": (0, 224, 224, 3, 20),
    "market1501": (36_036, 160, 64, 3, 751),
    "pedestrians": (1_000, 160, 64, 3, 100),
}
_IMAGES_OF_A_TEST = 10_000  # at the least, of the data sets that --train_images makes smaller
_TESTED = {"digits": 1_000, "shapes100": 2_000}
_SLOTS = {
    "sgd": 0,
    "adam": 2,
    "adamw": 2,
    "rmsprop": 1,
    "entropy_sgd": 2,
}  # as large as the weights


def refuse_too_large(config: Config, place: Placement | None = None):
    """Raises `FlagError` if a run needs more memory than there is, or than `--max_memory_gb`.

    Args:
        config: The run's settings.
        place: Where its peers are; default: all in this process.
    """
    if config.dataset not in _SHAPES:
        return
    place = place or Placement()
    limit = config.max_memory_gb * GIGABYTE or free_memory()
    shape, classes = _shape(config)
    needed = {"the images": _image_bytes(config, shape)}
    if not tf.config.list_physical_devices("GPU"):  # which has memory of its own
        for name in filter(_can_be_measured, dict.fromkeys(config.net)):
            peers = [k for k in range(config.cohort) if config.net[k] == name and place.trains(k)]
            if not peers:  # another process has it
                continue
            learning, frozen = _network_bytes(config, name, shape, classes, limit, place)
            needed[f"{len(peers)} x {name}"] = sum(
                frozen if k in config.teachers else learning for k in peers
            )
    total = sum(needed.values())
    if total > limit:
        listed = ", ".join(f"{what} {_gigabytes(n)}" for what, n in needed.items())
        raise FlagError(
            f"The run needs at least {_gigabytes(total)} of memory ({listed}), and there are "
            f"{_gigabytes(limit)}: give a smaller --batch_size, --image_size, --cohort or width, "
            "or set --max_memory_gb if this is wrong."
        )


def _can_be_measured(name: str) -> bool:
    """Whether a network is one of ours; another is known only when it has been built."""
    return networks.is_ours(name.partition(":")[0])


def free_memory() -> float:
    """Bytes that this process may still use, by the system and by its control group."""
    return min(_limits(), default=math.inf)


def _limits() -> Iterator[float]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024.0 * int(line.split()[1])
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # 'max' is no number: there is no limit
            held = int(Path(folder, used).read_text()) - _given_back(Path(folder, "memory.stat"))
            yield float(int(Path(folder, limit).read_text()) - held)


def _given_back(statistics: Path) -> int:
    """Bytes of files that were read, which the kernel gives back when memory is needed."""
    names = "inactive_file", "total_inactive_file"
    with contextlib.suppress(OSError, ValueError):
        found = [line.split() for line in statistics.read_text().splitlines()]
        return max((int(count) for name, count in found if name in names), default=0)
    return 0


def _shape(config: Config) -> tuple[tuple[int, int, int], int]:
    """Shape of an image as the networks see it, and the number of classes."""
    _, height, width, channels, classes = _SHAPES[config.dataset]
    if config.image_size:
        height, width = _sides(config.image_size)
    return (height, width, channels), classes


def _image_bytes(config: Config, shape: tuple[int, int, int]) -> int:
    """Bytes of the images in memory, of one byte a value."""
    count = _SHAPES[config.dataset][0]
    if config.dataset == "image_folder":
        parts = records.identify(config).get("parts", {})
        return pixel_bytes(config, sum(part["files"] for part in parts.values()))
    if config.train_images:
        count = min(count, config.train_images + _TESTED.get(config.dataset, _IMAGES_OF_A_TEST))
    return count * math.prod(
        (*_sides(config.stored_size), shape[2]) if config.stored_size else shape
    )


def _sides(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _network_bytes(
    config: Config,
    name: str,
    shape: tuple[int, int, int],
    classes: int,
    limit: float,
    place: Placement,
) -> tuple[float, float]:
    """Bytes of one peer that learns, in training or evaluation, and of one that is frozen."""
    bytes_each = 2 if config.precision.startswith("mixed") else 4
    try:
        found = size.measure(name, num_classes=classes, input_shape=shape, most=limit / bytes_each)
    except size.TooLarge as error:
        raise FlagError(
            f"--net={name} does not fit into {_gigabytes(limit)} of memory: {error}. Give a "
            "smaller network or --image_size, or set --max_memory_gb if this is wrong."
        ) from None
    except ValueError as error:  # of a network from outside, which is built to be measured
        raise FlagError(f"--net: {error}") from error
    if found.smallest_map * config.batch_size == 1:
        raise FlagError(
            f"--batch_size=1: the last map of {name} is a single pixel for images of {shape[0]}x"
            f"{shape[1]}, and BatchNorm needs more than one value. Use larger batches or images."
        )
    copies = (
        2 + _SLOTS[config.optimizer] + sum(1 for decay in (config.momentum, config.ema) if decay)
    )
    batch = config.batch_size // (place.cluster.size if place.kind == "data" else 1)
    training = batch * found.activations * bytes_each
    evaluation = evaluated_at_once(*shape[:2]) * found.largest * bytes_each
    learning = 4 * copies * found.parameters + max(training, evaluation)
    return learning, 4 * found.parameters + evaluation


def _gigabytes(count: float) -> str:
    return f"{count / GIGABYTE:,.3g} GB"
