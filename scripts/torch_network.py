"""The release's network, the UCE head and a training step in plain PyTorch, to compare times with.

Layers, sizes and formulas are those of uniface_jax.models (lresnet) and of the loss's paper; the
layout is PyTorch's default. Nothing else in the project imports this.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """BN-conv-BN-PReLU-conv-BN plus shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        last = nn.Conv2d(outputs, outputs, 2, 2, bias=False)
        if stride == 1:
            last = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs), nn.PReLU(outputs), last, nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Identity()
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 2, 2, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W]."""
        return self.residual(x) + self.shortcut(x)


def network(stage_sizes: Sequence[int], width: int = 64, dropout: float = 0.4) -> nn.Module:
    """Images [B, 3, 112, 112] -> features [B, 512]."""
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)]
    inputs = width
    for stage, size in enumerate(stage_sizes):
        for index in range(size):
            layers.append(Block(inputs, width * 2**stage, 2 if index == 0 else 1))
            inputs = width * 2**stage
    layers += [nn.BatchNorm2d(inputs), nn.Dropout(dropout), nn.Flatten()]
    layers += [nn.Linear(inputs * 49, 512, bias=False), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers)


def uce(
    net: nn.Module,
    prototypes: torch.Tensor,
    bias: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    precision: torch.dtype,
) -> torch.Tensor:
    """Return the loss of a batch; a lower precision is that of autocast."""

    def autocast() -> torch.autocast:
        return torch.autocast(images.device.type, precision, enabled=precision != torch.float32)

    with autocast():
        features = net(images)
    features, directions = (functional.normalize(x) for x in (features.float(), prototypes))
    with autocast():
        cos = functional.linear(features, directions)
    cos = cos.float()
    positive = torch.log(1 + torch.exp(-(64 * (cos - 0.4) - bias).clamp(-64, 64)))
    negative = torch.log(1 + torch.exp((64 * cos - bias).clamp(-64, 64)))
    one_hot = torch.zeros(cos.shape, dtype=torch.bool, device=images.device)
    one_hot.scatter_(1, labels[:, None], True)
    return torch.where(one_hot, positive, negative).sum(1).mean()


def training_step(
    net: nn.Module,
    classes: int,
    images: torch.Tensor,
    labels: torch.Tensor,
    precision: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Callable[[], torch.Tensor]:
    """A function that does one step of SGD on UCE with clipping and returns the loss.

    A lower precision is that of autocast, in the network and in the head's product, as
    insightface's arcface_torch has it; float16 with its scaled loss. compiled: network and loss,
    and so their gradients, are by torch.compile.
    """
    device = images.device
    prototypes = nn.Parameter(torch.randn(classes, 512, device=device) / math.sqrt(512))
    bias = nn.Parameter(torch.tensor(math.log(10 * classes), device=device))
    parameters = [*net.parameters(), prototypes, bias]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
    slopes = [m.weight for m in net.modules() if isinstance(m, nn.PReLU)]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    loss_of = torch.compile(uce) if compiled else uce

    def step() -> torch.Tensor:
        loss = loss_of(net, prototypes, bias, images, labels, precision)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        scaler.step(optimizer)
        scaler.update()
        if slopes:  # which a ViT has not
            with torch.no_grad():
                torch._foreach_clamp_min_(slopes, 0.01)
        return loss.detach()

    return step
