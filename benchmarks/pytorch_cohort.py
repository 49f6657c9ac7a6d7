"""Deep mutual learning in plain PyTorch, with which `pytorch_step` compares.

ResNet, Wide ResNet and MobileNet for small images have the layers and parameter counts of
`dml_tf.networks`. The step of K peers has the paper's settings for CIFAR-100 (Sec. 4.1). This
module needs PyTorch.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Call

Peers = Sequence[tuple[nn.Module, torch.optim.Optimizer]]


class Block(nn.Module):
    """Residual block: two convolutions, and a shortcut without parameters (option A)."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.new, self.stride = filters - channels, stride
        self.first = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images `(batch, channels, height, width)` to maps of the block's size."""
        residual = F.relu(self.first_norm(self.first(x)))
        residual = self.second_norm(self.second(residual))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return F.relu(x + residual)


def resnet(depth: int, width: int, classes: int) -> nn.Sequential:
    """ResNet of depth 6n + 2."""
    layers = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage in range(3):
        for block in range((depth - 2) // 6):
            filters = width * 2**stage
            layers.append(Block(channels, filters, stride=2 if stage and not block else 1))
            channels = filters
    return _classified(layers, channels, classes)


def mobilenet(width: float, classes: int) -> nn.Sequential:
    """MobileNet with the strides that `dml_tf.networks` uses for small images."""
    blocks = [(64, 1), (128, 1), (128, 1), (256, 2), (256, 1), (512, 2)]
    blocks += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]

    def scaled(filters: int) -> int:
        return max(8, int(filters * width))

    def normed(convolution: nn.Conv2d) -> list[nn.Module]:
        return [convolution, nn.BatchNorm2d(convolution.out_channels, eps=1e-3), nn.ReLU6()]

    channels = scaled(32)
    layers = normed(nn.Conv2d(3, channels, 3, padding=1, bias=False))
    for filters, stride in blocks:
        depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        layers += normed(depthwise)
        layers += normed(nn.Conv2d(channels, scaled(filters), 1, bias=False))
        channels = scaled(filters)
    return _classified(layers, channels, classes)


class WideBlock(nn.Module):
    """Residual block of a Wide ResNet: BatchNorm before each convolution, projected shortcut."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.first_norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.shortcut = None
        if channels != filters:
            self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images `(batch, channels, height, width)` to maps of the block's size."""
        active = F.relu(self.first_norm(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.second(F.relu(self.second_norm(self.first(active))))


def wide_resnet(depth: int, factor: int, classes: int) -> nn.Sequential:
    """WRN-depth-factor, of depth 6n + 4."""
    layers, channels = [nn.Conv2d(3, 16, 3, padding=1, bias=False)], 16
    for stage in range(3):
        for block in range((depth - 4) // 6):
            filters = 16 * factor * 2**stage
            layers.append(WideBlock(channels, filters, 2 if stage and not block else 1))
            channels = filters
    return _classified([*layers, nn.BatchNorm2d(channels), nn.ReLU()], channels, classes)


def _classified(layers: list[nn.Module], channels: int, classes: int) -> nn.Sequential:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers, *head)


def build(name: str, classes: int) -> nn.Sequential:
    """A network by its name in `dml_tf.networks`, such as `resnet8:4` or `mobilenet:0.5`."""
    if name.startswith("wrn-"):
        return wide_resnet(*map(int, name.split("-")[1:]), classes)
    label, _, width = name.partition(":")
    if label == "mobilenet":
        return mobilenet(float(width or 1), classes)
    return resnet(int(label.removeprefix("resnet")), int(width or 16), classes)


def sgd(network: nn.Module) -> torch.optim.SGD:
    """Nesterov SGD; weight decay on convolution and dense kernels only."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": others}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)


def loss(logits: Tensor, peers: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy, plus the mean divergence of the peers, Eq. (10), if there are any."""
    value = F.cross_entropy(logits, labels)
    if peers:
        log_q = F.log_softmax(logits, dim=1)
        log_ps = [F.log_softmax(peer, dim=1) for peer in peers]
        kls = [F.kl_div(log_q, p, reduction="batchmean", log_target=True) for p in log_ps]
        value = value + sum(kls) / len(kls)
    return value


def independent(peers: Peers, images: Tensor, labels: Tensor):
    """A step of every peer, without mutual learning."""
    for network, optimizer in peers:
        _update(optimizer, loss(network(images), [], labels))


def plain(peers: Peers, images: Tensor, labels: Tensor):
    """Algorithm 1, the obvious way: for each student's update all peers are run again."""
    for k, (network, optimizer) in enumerate(peers):
        logits = network(images)
        with torch.no_grad():
            others = [other(images) for other, _ in (*peers[:k], *peers[k + 1 :])]
        _update(optimizer, loss(logits, others, labels))


def cheap(peers: Peers, images: Tensor, labels: Tensor):
    """Algorithm 1 as in `dml_tf.Cohort`: recorded passes, and a refresh after each update."""
    recorded = [network(images) for network, _ in peers]
    current = [logits.detach() for logits in recorded]
    for k, (network, optimizer) in enumerate(peers):
        _update(optimizer, loss(recorded[k], current[:k] + current[k + 1 :], labels))
        if k + 1 < len(peers):
            with torch.no_grad(), _fixed_averages(network):
                current[k] = network(images)


def _update(optimizer: torch.optim.Optimizer, value: Tensor):
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


@contextlib.contextmanager
def _fixed_averages(network: nn.Module) -> Iterator[None]:
    """Context in which BatchNorm uses batch statistics and does not change its averages."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


STEPS: dict[str, Callable[[Peers, Tensor, Tensor], None]] = {
    "independent": independent,
    "cheap": cheap,
    "plain": plain,
}


# Suffix of a contender -> memory format, and whether it runs under bfloat16 autocast.
FORMS = {
    "": (torch.contiguous_format, False),
    "_nhwc": (torch.channels_last, False),
    "_bfloat16": (torch.channels_last, True),
}


def prepare(
    name: str, *, peers: int, batch_size: int, image_size: int, classes: int, threads: int
) -> tuple[int, dict[str, Call]]:
    """Parameters of a network, and functions that make one step, of each kind and form."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    labels = torch.randint(classes, (batch_size,))
    calls = {}
    for suffix, (layout, autocast) in FORMS.items():
        images = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=layout)
        for kind, step in STEPS.items():
            nets = [build(name, classes).to(memory_format=layout) for _ in range(peers)]
            pairs = [(net, sgd(net)) for net in nets]
            calls[f"torch_{kind}{suffix}"] = _call(step, pairs, images, labels, autocast)
    return sum(p.numel() for p in nets[0].parameters()), calls


def _call(step: Callable, pairs: Peers, images: Tensor, labels: Tensor, autocast: bool) -> Call:
    def call():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            step(pairs, images, labels)

    return call
