"""IR-ResNets for 112x112 faces: the UniFace release's LResNet-E-IR and insightface's iresnet.

Both are one network: a 3x3 stem, four stages of blocks BN-conv-BN-PReLU-conv-BN plus shortcut
("improved residual", Deng et al., ArcFace, CVPR 2019), and a tail BN-dropout-linear-BN. They
differ in four numbers, which are fields here. Module names are those of the PyTorch release.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.models import folded
from uniface_jax.models.channels import Moments, Norm, affine, moments_of_sum
from uniface_jax.models.layers import BatchNorm, Kernel, PReLU, at_least_float32, conv

# Kaiming normal with the gain of a linear layer (PyTorch's a=1), fan-in: std = 1/sqrt(fan_in).
kaiming_linear = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def _sum(
    x: jax.Array, beside: jax.Array, factor: jax.Array, shift: jax.Array, *more: jax.Array
) -> jax.Array:
    """Return the sum at the end of a block, of what its last layers take; more: the shortcut's."""
    y = affine(x.astype(factor.dtype), factor, shift).astype(x.dtype)
    return y + (affine(beside.astype(factor.dtype), *more).astype(x.dtype) if more else beside)


class IRBlock(nn.Module):
    """One residual block: x [B, H, W, C] -> [B, H/stride, W/stride, channels].

    It takes the moments of x, or None, and returns those of what it returns, which take no pass of
    their own where they are taken as the sum is written; None where batch norm needs none.
    """

    channels: int
    stride: int
    strided_kernel: int
    shortcut_kernel: int
    zero_last_scale: bool
    kernel_init: nn.initializers.Initializer
    dtype: DTypeLike
    fold: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, known: Moments | None, train: bool
    ) -> tuple[jax.Array, Moments | None]:
        """Map x [B, H, W, C] -> [B, H/stride, W/stride, channels], rounded as PyTorch does."""

        def conv_(kernel: int, stride: int, name: str) -> Callable[[jax.Array], jax.Array]:
            return conv(self.channels, kernel, stride, self.dtype, self.kernel_init, name)

        last_scale = nn.initializers.zeros if self.zero_last_scale else nn.initializers.ones
        first, second = BatchNorm(self.dtype, name="bn0"), BatchNorm(self.dtype, name="bn1")
        slope = PReLU(name="prelu")(self.channels)
        if self.fold and train and min(x.shape[1:3]) > 1:
            out = self._folded(x, known, (first, second), slope)
        else:
            out = second(conv_(3, 1, "conv1")(first(x, train, known=known)), train, slope)
        out = conv_(self.strided_kernel if self.stride > 1 else 3, self.stride, "conv2")(out)
        bn2 = BatchNorm(self.dtype, scale_init=last_scale, name="bn2").normalized(out, train)
        arrays, vectors, beside = [out, x], [bn2.factor, bn2.shift], x
        if self.stride > 1 or x.shape[-1] != self.channels:
            shortcut = conv_(self.shortcut_kernel, self.stride, "downsample_0")(x)
            norm = BatchNorm(self.dtype, name="downsample_1").normalized(shortcut, train)
            arrays, beside = [out, shortcut], norm.y
            vectors += [norm.factor, norm.shift]
        total = bn2.y + beside
        known = moments_of_sum(total, _sum, arrays, vectors) if train else None
        return total, known

    def _folded(
        self,
        x: jax.Array,
        known: Moments | None,
        norms: tuple[BatchNorm, BatchNorm],
        slope: jax.Array,
    ) -> jax.Array:
        """Return PReLU(bn1(conv1(bn0(x)))), both norms by this batch, computed as one function."""
        first, second = norms
        wide, count = at_least_float32(x.dtype), x.size // x.shape[-1]
        kernel = Kernel(self.channels, 3, self.kernel_init, name="conv1")(x.shape[-1])
        before = Norm(*first.parameters(x.shape[-1], wide), None)
        after = Norm(*second.parameters(self.channels, wide), slope)
        out = folded.head(x, kernel.astype(wide), before, after, known, first.epsilon)
        first.keep(out.first, count)
        second.keep(out.second, count)
        return out.y


class IResNet(nn.Module):
    """Images [B, S, S, 3] in [-1, 1] (RGB) -> features [B, embedding_size], float32 at least.

    stage_sizes: blocks in each stage; stage k has width * 2**k channels and halves the map.
    stem_stride: 1 as published; 2 quarters the cost (for small machines).
    strided_kernel, shortcut_kernel: of the stride-2 conv and of the shortcut in the first block of
        a stage: 2, 2 in the release; 3, 1 in insightface.
    tail_bias: whether the linear layer has a bias (insightface) or not (release).
    zero_last_scale: whether the last BN of a block starts with scale 0 (release).
    dropout: rate before the linear layer, drawn from the rng stream "dropout" when training.
    dtype: of the computation; parameters and statistics stay float32.
    remat: recompute each block in the backward pass instead of keeping its activations.
    frozen_statistics: batch norm normalizes by its running statistics in training too.
    fold: the first batch norm of a block goes into its convolution in training, see models.folded;
        not where a map is of one row or column.
    """

    stage_sizes: Sequence[int]
    width: int = 64
    embedding_size: int = 512
    stem_stride: int = 1
    strided_kernel: int = 2
    shortcut_kernel: int = 2
    tail_bias: bool = False
    zero_last_scale: bool = True
    kernel_init: nn.initializers.Initializer = kaiming_linear
    dropout: float = 0.4
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    frozen_statistics: bool = False
    fold: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Map images [B, S, S, 3] to features [B, embedding_size]; train: as in BatchNorm."""
        block = nn.remat(IRBlock, static_argnums=(3,)) if self.remat else IRBlock
        x, by_batch = images.astype(self.dtype), train and not self.frozen_statistics
        stem = conv(self.width, 3, self.stem_stride, self.dtype, self.kernel_init, "conv1")
        x = BatchNorm(self.dtype, name="bn1")(stem(x), by_batch, PReLU(name="prelu")(self.width))
        known = None
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                x, known = block(
                    self.width * 2**stage,
                    2 if index == 0 else 1,
                    self.strided_kernel,
                    self.shortcut_kernel,
                    self.zero_last_scale,
                    self.kernel_init,
                    self.dtype,
                    self.fold,
                    name=f"layer{stage + 1}_{index}",
                )(x, known, by_batch)
        x = BatchNorm(self.dtype, name="bn4")(x, by_batch, known=known)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        # The release writes this as a valid convolution over the whole map; it is a linear layer.
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(
            self.embedding_size,
            use_bias=self.tail_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="fc5",
        )(x)
        wide = at_least_float32(self.dtype)
        # The scale of the last BN is fixed at 1 in both families: only its bias trains.
        return BatchNorm(wide, use_scale=False, name="bn5")(x.astype(wide), by_batch)
