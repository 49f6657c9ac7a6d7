"""Ways to get one good network from the same amount of computing, for `dml_tf advise`."""

import dataclasses
import math
import re
from collections.abc import Mapping

from dml_tf.errors import FlagError
from dml_tf.runs.config import Config


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
        name: What people read.
        net: Networks of the run; of a distillation the last one is the student.
        method: As the flag.
    """

    name: str
    net: tuple[str, ...]
    method: str

    def cost(self, sizes: Mapping[str, int]) -> int:
        """Multiply-adds that one image of one step costs, training of the teachers included.

        A forward pass counts once and its backward pass twice. Mutual learning refreshes all
        predictions but the last; a frozen teacher predicts in every step of its student.

        Args:
            sizes: Network -> multiply-adds of a forward pass.
        """
        forward = [sizes[name] for name in self.net]
        again = sum(forward[:-1]) if self.method in ("dml", "distill") else 0
        return 3 * sum(forward) + again

    def config(self, base: Config, seed: int, steps: int, steps_per_epoch: int) -> Config:
        """The run of one seed; its learning rate drops after a third and two thirds."""
        return base.replace(
            net=self.net,
            cohort=len(self.net),
            method=self.method,
            seed=seed,
            steps=steps,
            decay_epochs=math.ceil(steps / steps_per_epoch / 3),
        )


def candidates(net: str, partner: str, teacher: str) -> list[Candidate]:
    """The four ways to train `net`; the first is the one that others are compared with."""
    return [
        Candidate("independent", (net,), "independent"),
        Candidate(f"mutual learning with {partner}", (net, partner), "dml"),
        Candidate(f"student of a frozen {teacher}", (teacher, net), "distill"),
        Candidate("student of an ensemble of two", (net, net, net), "distill"),
    ]


def larger(net: str) -> str:
    """A network of the same kind with twice the width.

    Example:
        >>> larger("resnet20"), larger("mobilenet_short:0.5"), larger("wrn-16-2")
        ('resnet20:32', 'mobilenet_short:1', 'wrn-16-4')
    """
    label, _, width = net.partition(":")
    if match := re.fullmatch(r"(wrn-\d+-)(\d+)", label):
        return f"{match[1]}{2 * int(match[2])}"
    usual = 16 if label.startswith("resnet") else 1
    if not label.startswith(("resnet", "mobilenet")):
        raise FlagError(f"--teacher is missing: no larger network is known for {net}.")
    return f"{label}:{2 * float(width or usual):g}"
