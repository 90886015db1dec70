"""arcface_torch's ViT and MobileFaceNet in plain PyTorch, to compare times and weights with.

Layers, sizes and formulas are those of uniface_jax.models, attention is PyTorch's fused
scaled_dot_product_attention. Parameters have arcface_torch's names: its weights load here, and what
loads here loads there. Benchmarks and tests alone import this; a Python without JAX can.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from uniface_jax.models import Network, ViT


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


class Mlp(nn.Module):
    """Two linear layers with ReLU6 between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens x [B, N, D] to as many of the same size."""
        return self.fc2(functional.relu6(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP behind layer norms, added to their input."""

    def __init__(self, network: "ViT", rate: float) -> None:
        super().__init__()
        dim = network.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, network.heads)
        self.mlp = Mlp(dim, network.mlp_ratio * dim)
        self.path = DropPath(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens x [B, N, D] to as many of the same size."""
        x = x + self.path(self.attn(self.norm1(x)))
        return x + self.path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Products of every patch of the images."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [B, 3, 112, 112] to tokens [B, N, D]."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TorchViT(nn.Module):
    """Images [B, 3, 112, 112] -> features [B, embedding_size], of a ViT's sizes and rates."""

    def __init__(self, network: "ViT") -> None:
        super().__init__()
        dim, size = network.dim, network.embedding_size
        self.ratio, self.tokens = network.mask_ratio, (112 // network.patch) ** 2
        self.patch_embed = PatchEmbed(dim, network.patch)
        self.pos_embed = nn.Parameter(torch.randn(1, self.tokens, dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        steps = max(network.depth - 1, 1)
        rates = [network.drop_path * index / steps for index in range(network.depth)]
        self.blocks = nn.Sequential(*(Block(network, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim)
        self.feature = nn.Sequential(
            nn.Linear(self.tokens * dim, dim, bias=False), nn.BatchNorm1d(dim, 2e-5),
            nn.Linear(dim, size, bias=False), nn.BatchNorm1d(size, 2e-5),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [B, 3, 112, 112] to features [B, embedding_size]."""
        x = self.patch_embed(x) + self.pos_embed
        keep = int(self.tokens * (1 - self.ratio)) if self.training else self.tokens
        if keep == self.tokens:
            return self.feature(self.norm(self.blocks(x)).flatten(1))
        by_noise = torch.rand(x.shape[:2], device=x.device).argsort(1)
        width = x.shape[2]
        x = x.gather(1, by_noise[:, :keep, None].expand(-1, -1, width))
        x = self.norm(self.blocks(x))
        masked = self.mask_token.to(x.dtype).expand(len(x), self.tokens - keep, -1)
        order = by_noise.argsort(1)[..., None].expand(-1, -1, width)
        return self.feature(torch.cat([x, masked], 1).gather(1, order).flatten(1))


class ConvNorm(nn.Module):
    """Convolution, batch norm and, with `act`, PReLU; options: of nn.Conv2d."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, act: bool = True, **options: int
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        last = [nn.PReLU(outputs)] if act else []
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(outputs), *last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B, C, H, W]."""
        return self.layers(x)


class DepthWise(nn.Module):
    """Widening, depthwise and narrowing convolution."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.layers = nn.Sequential(
            ConvNorm(inputs, width),
            ConvNorm(width, width, 3, stride=stride, padding=1, groups=width),
            ConvNorm(width, outputs, act=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B, C, H, W]."""
        return self.layers(x) + x if self.residual else self.layers(x)


class Residual(nn.Module):
    """Blocks of stride 1 one behind the other."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(DepthWise(channels, channels, width, 1) for _ in range(blocks))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B, C, H, W] to the same shape."""
        return self.layers(x)


class GlobalFeatures(nn.Module):
    """Depthwise convolution over the whole 7x7 map, and a linear layer."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(512, 512, 7, act=False, groups=512), nn.Flatten(),
            nn.Linear(512, embedding_size, bias=False), nn.BatchNorm1d(embedding_size),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B, 512, 7, 7] to features [B, embedding_size]."""
        return self.layers(x)


class TorchMobileFaceNet(nn.Module):
    """Images [B, 3, 112, 112] -> features [B, embedding_size], of a MobileFaceNet's sizes."""

    def __init__(self, blocks: Sequence[int], scale: int, embedding_size: int = 512) -> None:
        super().__init__()
        channels = 64 * scale
        single = blocks[0] == 1
        self.layers = nn.Sequential(
            ConvNorm(3, channels, 3, stride=2, padding=1),
            ConvNorm(channels, channels, 3, padding=1, groups=64)
            if single
            else Residual(channels, 128, blocks[0]),
            DepthWise(channels, channels, 128, 2),
            Residual(channels, 128, blocks[1]),
            DepthWise(channels, 2 * channels, 256, 2),
            Residual(2 * channels, 256, blocks[2]),
            DepthWise(2 * channels, 2 * channels, 512, 2),
            Residual(2 * channels, 256, blocks[3]),
        )
        self.conv_sep = ConvNorm(2 * channels, 512)
        self.features = GlobalFeatures(embedding_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [B, 3, 112, 112] to features [B, embedding_size]."""
        return self.features(self.conv_sep(self.layers(x)))


def in_torch(network: "Network") -> nn.Module:
    """Return a network of uniface_jax.models in plain PyTorch."""
    from torch_network import network as resnet

    from uniface_jax import models

    if isinstance(network, models.ViT):
        return TorchViT(network)
    if isinstance(network, models.MobileFaceNet):
        return TorchMobileFaceNet(network.blocks, network.scale, network.embedding_size)
    return resnet(network.stage_sizes, network.width)
