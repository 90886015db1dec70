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
from uniface_jax.models.channels import Norm, Normalized, affine, moments_of_sum
from uniface_jax.models.layers import BatchNorm, Kernel, PReLU, at_least_float32, conv

# Kaiming normal with the gain of a linear layer (PyTorch's a=1), fan-in: std = 1/sqrt(fan_in).
kaiming_linear = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def _sum(
    x: jax.Array, beside: jax.Array, factor: jax.Array, shift: jax.Array, *more: jax.Array
) -> jax.Array:
    """Return the sum at the end of a block, of what its last layers take; more: the shortcut's."""
    y = affine(x.astype(factor.dtype), factor, shift).astype(x.dtype)
    return y + (affine(beside.astype(factor.dtype), *more).astype(x.dtype) if more else beside)


def _end(
    last: BatchNorm,
    given: tuple[jax.Array, jax.Array | None],
    beside: jax.Array | None,
    train: bool,
    fold: bool,
) -> tuple[folded.Map, Normalized]:
    """Return the map at the end of a block, or of the stem, and the results of its last norm.

    given: what that norm takes, and the slope of the PReLU after it; beside: the shortcut's map.
    """
    x, slope = given
    if train and fold:
        norm = Norm(*last.parameters(x.shape[-1], at_least_float32(x.dtype)), slope)
        joined = folded.join(x, norm, beside, last.epsilon)
        last.keep((joined.norm.mean, joined.norm.variance), x.size // x.shape[-1])
        between = folded.Map(joined.y, joined.again, joined.along, joined.level, None)
        return between, joined.norm
    out = last.normalized(x, train, slope)
    y = out.y if beside is None else out.y + beside
    return folded.Map(y, y, None, None, None), out


class IRBlock(nn.Module):
    """One residual block: a map [B, H, W, C] -> [B, H/stride, W/stride, channels].

    The map comes and goes with its moments where batch norm needs them, which take no pass of their
    own where they are taken as the sum is written.
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
    def __call__(self, between: folded.Map, train: bool) -> folded.Map:
        """Map a map to the next, rounded as PyTorch does."""

        def conv_(kernel: int, stride: int, name: str) -> Callable[[jax.Array], jax.Array]:
            return conv(self.channels, kernel, stride, self.dtype, self.kernel_init, name)

        last_scale = nn.initializers.zeros if self.zero_last_scale else nn.initializers.ones
        first, second = BatchNorm(self.dtype, name="bn0"), BatchNorm(self.dtype, name="bn1")
        slope, x = PReLU(name="prelu")(self.channels), between.again
        assert x is not None
        if self.fold and train and min(x.shape[1:3]) > 1:
            out = self._folded(between, (first, second), slope)
        else:
            out = first(between.y, train, known=between.known)
            out = second(conv_(3, 1, "conv1")(out), train, slope)
        out = conv_(self.strided_kernel if self.stride > 1 else 3, self.stride, "conv2")(out)
        arrays, vectors, beside = [out, x], list[jax.Array](), x
        if self.stride > 1 or x.shape[-1] != self.channels:
            shortcut = conv_(self.shortcut_kernel, self.stride, "downsample_0")(x)
            by = BatchNorm(self.dtype, name="downsample_1").normalized(shortcut, train)
            arrays, vectors, beside = [out, shortcut], [by.factor, by.shift], by.y
        last = BatchNorm(self.dtype, scale_init=last_scale, name="bn2")
        total, norm = _end(last, (out, None), beside, train, self.fold)
        if not train:
            return total
        vectors = [norm.factor, norm.shift, *vectors]
        return total._replace(known=moments_of_sum(total.y, _sum, arrays, vectors))

    def _folded(
        self, between: folded.Map, norms: tuple[BatchNorm, BatchNorm], slope: jax.Array
    ) -> jax.Array:
        """Return PReLU(bn1(conv1(bn0(x)))), both norms by this batch, computed as one function."""
        (first, second), x = norms, between.y
        wide, count = at_least_float32(x.dtype), x.size // x.shape[-1]
        kernel = Kernel(self.channels, 3, self.kernel_init, name="conv1")(x.shape[-1])
        before = Norm(*first.parameters(x.shape[-1], wide), None)
        after = Norm(*second.parameters(self.channels, wide), slope)
        out = folded.head(between, kernel.astype(wide), before, after, first.epsilon)
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
        block = nn.remat(IRBlock, static_argnums=(2,)) if self.remat else IRBlock
        x, by_batch = images.astype(self.dtype), train and not self.frozen_statistics
        stem = conv(self.width, 3, self.stem_stride, self.dtype, self.kernel_init, "conv1")
        first, slope = BatchNorm(self.dtype, name="bn1"), PReLU(name="prelu")(self.width)
        between, _ = _end(first, (stem(x), slope), None, by_batch, self.fold)
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                between = block(
                    self.width * 2**stage,
                    2 if index == 0 else 1,
                    self.strided_kernel,
                    self.shortcut_kernel,
                    self.zero_last_scale,
                    self.kernel_init,
                    self.dtype,
                    self.fold,
                    name=f"layer{stage + 1}_{index}",
                )(between, by_batch)
        x = BatchNorm(self.dtype, name="bn4")(between.y, by_batch, known=between.known)
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
