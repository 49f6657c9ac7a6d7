"""Times a cohort's step in PyTorch on its GPU, channels last, and prints one line of JSON.

Example:
  python -m benchmarks.accelerator.pytorch --net=resnet32 --peers=2 --precision=tf32 --compiled=True
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks import pytorch_cohort

_BATCH, _SIZE, _CLASSES = 64, 32, 10
_SECONDS = 4.0


def main(argv: Sequence[str]) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", required=True)
    parser.add_argument("--peers", type=int, required=True)
    parser.add_argument("--precision", choices=("bfloat16", "tf32"), required=True)
    parser.add_argument("--compiled", choices=("True", "False"), default="True")
    asked = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = prepare(asked.net, asked.peers, asked.precision, device, asked.compiled == "True")
    print(json.dumps(time_of(step, device)))
    return 0


def prepare(
    net: str, peers: int, precision: str, device: torch.device, compiled: bool
) -> Callable[[], None]:
    """A step of Algorithm 1 with recorded passes, or of one network alone."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last
    networks = [
        pytorch_cohort.build(net, _CLASSES).to(device, memory_format=layout) for _ in range(peers)
    ]
    pairs = [(network, pytorch_cohort.sgd(network)) for network in networks]
    if compiled:
        for network in networks:
            network.compile()
    images = torch.randn(_BATCH, 3, _SIZE, _SIZE, device=device).to(memory_format=layout)
    labels = torch.randint(_CLASSES, (_BATCH,), device=device)

    def step():
        context = contextlib.nullcontext()
        if precision == "bfloat16":
            context = torch.autocast(device.type, torch.bfloat16)
        with context:
            pytorch_cohort.cheap(pairs, images, labels)

    return step


def time_of(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Mean seconds of a step after the first three, which compile."""

    def run(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    compile_s = run(3)
    once = run(1)
    steps = max(1, min(2000, round(_SECONDS / max(once, 1e-4))))
    step_s = run(steps) / steps
    return {"step_s": step_s, "images_per_s": _BATCH / step_s, "compile_s": compile_s}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
