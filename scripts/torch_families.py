"""arcface_torch's ViT and MobileFaceNet in plain PyTorch, to compare times with.

Layers, sizes and formulas are those of uniface_jax.models, attention is PyTorch's fused
scaled_dot_product_attention. Nothing else in the project imports this.
"""

import torch
from torch import nn
from torch.nn import functional

from uniface_jax.models import MobileFaceNet, ViT


class Attention(nn.Module):
    """Self-attention: x [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens x [B, N, D] to as many of the same size."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))


class DropPath(nn.Module):
    """A branch that training leaves out of some images."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map a branch x [B, N, D]; in training, some images' are 0."""
        if not (self.training and self.rate):
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class Block(nn.Module):
    """Attention and MLP behind layer norms, added to their input."""

    def __init__(self, network: ViT, rate: float) -> None:
        super().__init__()
        dim, hidden = network.dim, network.mlp_ratio * network.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, network.heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU6(), nn.Linear(hidden, dim))
        self.path = DropPath(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens x [B, N, D] to as many of the same size."""
        x = x + self.path(self.attention(self.norm1(x)))
        return x + self.path(self.mlp(self.norm2(x)))


class TorchViT(nn.Module):
    """Images [B, 3, 112, 112] -> features [B, embedding_size], of a ViT's sizes and rates."""

    def __init__(self, network: ViT) -> None:
        super().__init__()
        dim, size = network.dim, network.embedding_size
        self.ratio, self.tokens = network.mask_ratio, (112 // network.patch) ** 2
        self.patches = nn.Conv2d(3, dim, network.patch, network.patch)
        self.positions = nn.Parameter(torch.randn(1, self.tokens, dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        steps = max(network.depth - 1, 1)
        rates = [network.drop_path * index / steps for index in range(network.depth)]
        self.blocks = nn.Sequential(*(Block(network, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim)
        self.tail = nn.Sequential(
            nn.Linear(self.tokens * dim, dim, bias=False), nn.BatchNorm1d(dim, 2e-5),
            nn.Linear(dim, size, bias=False), nn.BatchNorm1d(size, 2e-5),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [B, 3, 112, 112] to features [B, embedding_size]."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        keep = int(self.tokens * (1 - self.ratio)) if self.training else self.tokens
        if keep == self.tokens:
            return self.tail(self.norm(self.blocks(x)).flatten(1))
        by_noise = torch.rand(x.shape[:2], device=x.device).argsort(1)
        width = x.shape[2]
        x = x.gather(1, by_noise[:, :keep, None].expand(-1, -1, width))
        x = self.norm(self.blocks(x))
        masked = self.mask_token.to(x.dtype).expand(len(x), self.tokens - keep, -1)
        order = by_noise.argsort(1)[..., None].expand(-1, -1, width)
        return self.tail(torch.cat([x, masked], 1).gather(1, order).flatten(1))


def conv_norm(inputs: int, outputs: int, kernel: int = 1, **options: int) -> list[nn.Module]:
    """Convolution, batch norm and PReLU; options: of nn.Conv2d."""
    conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
    return [conv, nn.BatchNorm2d(outputs), nn.PReLU(outputs)]


class DepthWise(nn.Module):
    """Widening, depthwise and narrowing convolution."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.layers = nn.Sequential(
            *conv_norm(inputs, width),
            *conv_norm(width, width, 3, stride=stride, padding=1, groups=width),
            *conv_norm(width, outputs)[:2],  # without PReLU
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B, C, H, W]."""
        return self.layers(x) + x if self.residual else self.layers(x)


def mobilefacenet(network: MobileFaceNet) -> nn.Module:
    """Images [B, 3, 112, 112] -> features [B, embedding_size], of a MobileFaceNet's sizes."""
    channels, blocks = 64 * network.scale, network.blocks

    def residual(channels: int, width: int, count: int) -> list[nn.Module]:
        return [DepthWise(channels, channels, width, 1) for _ in range(count)]

    first = conv_norm(channels, channels, 3, padding=1, groups=64)
    return nn.Sequential(
        *conv_norm(3, channels, 3, stride=2, padding=1),
        *(first if blocks[0] == 1 else residual(channels, 128, blocks[0])),
        DepthWise(channels, channels, 128, 2), *residual(channels, 128, blocks[1]),
        DepthWise(channels, 2 * channels, 256, 2), *residual(2 * channels, 256, blocks[2]),
        DepthWise(2 * channels, 2 * channels, 512, 2), *residual(2 * channels, 256, blocks[3]),
        *conv_norm(2 * channels, 512),
        *conv_norm(512, 512, 7, groups=512)[:2],
        nn.Flatten(), nn.Linear(512, network.embedding_size, bias=False),
        nn.BatchNorm1d(network.embedding_size),
    )  # fmt: skip
