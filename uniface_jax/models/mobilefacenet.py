"""MobileFaceNet for 112x112 faces, as in insightface's arcface_torch (backbones/mobilefacenet.py).

Blocks of a 1x1 convolution that widens, a depthwise one and a 1x1 one that narrows (Chen et al.,
MobileFaceNets, CCBR 2018). Module names are those of the PyTorch code, whose Sequentials are
numbered: "layers_0" within a block is its first module.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.models.convolution import convolve
from uniface_jax.models.depthwise import convolve_grouped
from uniface_jax.models.layers import BatchNorm, PReLU, at_least_float32

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "mbf": dict(blocks=(1, 4, 6, 2), scale=2),
    "mbf_large": dict(blocks=(2, 8, 12, 4), scale=4),
}

_kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, with `act`, PReLU: [B, H, W, C] -> [B, H', W', O].

    H' = H / stride, or H - kernel + 1 where `padded` is not set. groups: of the convolution.
    """

    channels: int
    dtype: DTypeLike
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    padded: bool = True
    act: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map x [B, H, W, C]; train: as in BatchNorm."""
        padding = self.kernel // 2 if self.padded else 0

        def convolve_(x: jax.Array, weight: jax.Array, *_: Any, **__: Any) -> jax.Array:
            if self.groups == 1:
                return convolve(x, weight, self.stride, padding)
            return convolve_grouped(x, weight, self.stride, padding)

        x = nn.Conv(
            self.channels, (self.kernel, self.kernel), self.stride, padding=padding,
            feature_group_count=self.groups, use_bias=False, dtype=self.dtype,
            kernel_init=_kaiming_fan_out, conv_general_dilated=convolve_, name="layers_0",
        )(x)  # fmt: skip
        slope = PReLU(name="layers_2")(self.channels) if self.act else None
        return BatchNorm(self.dtype, name="layers_1")(x, train, slope)


class DepthWise(nn.Module):
    """Widening, depthwise and narrowing convolution: [B, H, W, C] -> [B, H/stride, W/stride, O].

    width: channels of the depthwise convolution. residual: the input is added.
    """

    channels: int
    width: int
    stride: int
    residual: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map x [B, H, W, C]; train: as in BatchNorm."""
        out = ConvNorm(self.width, self.dtype, name="layers_0")(x, train)
        out = ConvNorm(
            self.width, self.dtype, 3, self.stride, groups=self.width, name="layers_1"
        )(out, train)  # fmt: skip
        out = ConvNorm(self.channels, self.dtype, act=False, name="layers_2")(out, train)
        return out + x if self.residual else out


class Residual(nn.Module):
    """Blocks one behind the other, each with its input added: [B, H, W, C] -> the same shape."""

    blocks: int
    channels: int
    width: int
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map x [B, H, W, C]; train: as in BatchNorm."""
        block = nn.remat(DepthWise, static_argnums=(2,)) if self.remat else DepthWise
        for index in range(self.blocks):
            x = block(
                self.channels, self.width, 1, True, self.dtype, name=f"layers_{index}"
            )(x, train)  # fmt: skip
        return x


class MobileFaceNet(nn.Module):
    """Images [B, S, S, 3] in [-1, 1] (RGB) -> features [B, embedding_size], float32 at least.

    blocks: residual ones in each of the four stages. scale: of the channels, 64 * scale in the
    stem. dtype: of the computation; parameters and statistics stay float32.
    remat: recompute each residual block in the backward pass. frozen_statistics: batch norm
    normalizes by its running statistics in training too.
    """

    blocks: tuple[int, ...]
    scale: int
    embedding_size: int = 512
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    frozen_statistics: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Map images [B, S, S, 3] to features [B, embedding_size]; train: as in BatchNorm."""
        channels, dtype = 64 * self.scale, self.dtype

        def residual(stage: int, channels: int, width: int, number: int) -> Residual:
            blocks = self.blocks[stage]
            return Residual(blocks, channels, width, dtype, self.remat, name=f"layers_{number}")

        def halved(channels: int, width: int, number: int) -> DepthWise:
            return DepthWise(channels, width, 2, False, dtype, name=f"layers_{number}")

        first: ConvNorm | Residual
        if self.blocks[0] == 1:
            first = ConvNorm(channels, dtype, 3, groups=64, name="layers_1")
        else:
            first = residual(0, channels, 128, 1)
        layers: list[Callable[[jax.Array, bool], jax.Array]] = [
            ConvNorm(channels, dtype, 3, 2, name="layers_0"),
            first,
            halved(channels, 128, 2),
            residual(1, channels, 128, 3),
            halved(2 * channels, 256, 4),
            residual(2, 2 * channels, 256, 5),
            halved(2 * channels, 512, 6),
            residual(3, 2 * channels, 256, 7),
            ConvNorm(512, dtype, name="conv_sep"),
        ]
        x, by_batch = images.astype(dtype), train and not self.frozen_statistics
        for layer in layers:
            x = layer(x, by_batch)
        return GlobalFeatures(self.embedding_size, dtype, name="features")(x, by_batch)


class GlobalFeatures(nn.Module):
    """Depthwise convolution over the whole map, and a linear layer: [B, H, W, C] -> [B, D]."""

    embedding_size: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map x [B, H, W, C]; train: as in BatchNorm."""
        _, height, _, channels = x.shape
        whole = ConvNorm(
            channels, self.dtype, height, groups=channels, padded=False, act=False, name="layers_0"
        )
        x = whole(x, train).reshape(x.shape[0], -1)
        x = nn.Dense(
            self.embedding_size, use_bias=False, dtype=self.dtype, kernel_init=_kaiming_fan_out,
            name="layers_2",
        )(x)  # fmt: skip
        wide = at_least_float32(self.dtype)
        return BatchNorm(wide, name="layers_3")(x.astype(wide), train)


def create_mobilefacenet(name: str, **overrides: Any) -> MobileFaceNet:
    """Return the network `name` of VARIANTS with fields of MobileFaceNet replaced."""
    given = {key: value for key, value in overrides.items() if value is not None}
    return MobileFaceNet(**{**VARIANTS[name], **given})
