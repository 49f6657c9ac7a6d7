"""How this machine is shared among runs: its GPUs or its cores.

TensorFlow is not asked, because it would take memory on each GPU.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from dml_tf.paper.estimate import CPU
from dml_tf.paper.workers import NO_GPU

_GPU = re.compile(r"GPU (\d+): (.+) \(UUID: (\S+)\)")
_PART = re.compile(r"\s+(MIG \S+)\s+Device\s+\d+: \(UUID: (\S+)\)")  # of a GPU
_UUIDS = ("GPU-", "MIG-")


class Machine(NamedTuple):
    """How many runs this machine trains at a time, and on what.

    Attributes:
        kind: `estimate.CPU`, or the name of its GPUs.
        gpus: The workers' GPUs, in turn, as for `workers.run_tasks`.
        jobs: Runs at a time.
        threads: TensorFlow's threads in each of them.
    """

    kind: str
    gpus: tuple[str | None, ...]
    jobs: int
    threads: int


def share(found: Mapping[str, str], cores: int, *, jobs: int | None, gpu_jobs: int) -> Machine:
    """Shares GPUs, as `find` returns them, or else cores.

    Args:
        found: The GPUs.
        cores: Cores of the processor.
        jobs: Runs at a time; None for `gpu_jobs` on each GPU or, without GPUs, one on each core.
        gpu_jobs: Runs at a time on each GPU; 0 leaves the GPUs alone.

    Returns:
        The shares. With GPUs the runs share the cores; otherwise each has one thread.
    """
    if not found or not gpu_jobs:
        return Machine(CPU, (NO_GPU if found else None,), jobs or cores, 1)
    jobs = jobs or gpu_jobs * len(found)
    return Machine(next(iter(found.values())), tuple(found), jobs, max(1, cores // jobs))


def find() -> dict[str, str]:
    """The GPUs that programs may use: what `CUDA_VISIBLE_DEVICES` calls them, and their names.

    Returns:
        Name for `CUDA_VISIBLE_DEVICES` -> model, such as `NVIDIA A100-SXM4-40GB`. Empty where
        there is no NVIDIA driver, or where the environment hides all GPUs.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return visible(listed.stdout, os.environ)


def visible(listing: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The GPUs of `nvidia-smi -L` that the environment leaves visible, as `find` returns them."""
    whole = [match.groups() for match in map(_GPU.match, listing.splitlines()) if match]
    parts = [match.groups() for match in map(_PART.match, listing.splitlines()) if match]
    if "CUDA_VISIBLE_DEVICES" not in environment:
        return {uuid: model for _, model, uuid in whole}
    chosen = {}
    for name in map(str.strip, environment["CUDA_VISIBLE_DEVICES"].split(",")):
        models = [
            model
            for number, model, uuid in [*whole, *(("", *part) for part in parts)]
            if name and (name == number or (name[:4] in _UUIDS and uuid.startswith(name)))
        ]
        if not models:  # CUDA ignores what follows
            break
        chosen[name] = models[0]
    return chosen
