"""Layers that differ from Flax's own: batch norm with PyTorch's statistics, PReLU a channel."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.models import convolution
from uniface_jax.models.channels import Moments, Norm, Normalized, affine, batch_norm, prelu

BN_EPSILON = 1e-5
PRELU_START = 0.25


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Return float32 for half precisions, the dtype itself for float32 and float64."""
    return jnp.promote_types(dtype, jnp.float32)


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last, in PyTorch's sense.

    With `train`, x [..., C] is normalized by the mean and the biased variance of this batch, and
    the collection `batch_stats` is set to this batch's mean and unbiased variance n/(n-1): the
    caller folds them into the running averages (train.step), so that micro-batches
    and devices can be folded in a fixed order. Otherwise `batch_stats` holds the running averages
    and they normalize. Statistics are computed in float32 at least, whatever `dtype` x has.
    """

    dtype: DTypeLike = jnp.float32
    use_scale: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    epsilon: float = BN_EPSILON

    def __call__(
        self,
        x: jax.Array,
        train: bool,
        slope: jax.Array | None = None,
        known: Moments | None = None,
    ) -> jax.Array:
        """Map x [..., C] -> the same shape, in `dtype`; with a `slope` [C], its PReLU.

        known: the moments of x, where they have been taken.
        """
        return self.normalized(x, train, slope, known).y

    def normalized(
        self,
        x: jax.Array,
        train: bool,
        slope: jax.Array | None = None,
        known: Moments | None = None,
    ) -> Normalized:
        """Do as a call does, and return the statistics that normalized too."""
        scale, bias = self.parameters(x.shape[-1], at_least_float32(x.dtype))
        if train:
            dtype = jnp.dtype(self.dtype)
            out = batch_norm(x, Norm(scale, bias, slope), known, self.epsilon, dtype)
            self.keep((out.mean, out.variance), x.size // x.shape[-1])
            return out
        mean: jax.Array = self.get_variable("batch_stats", "mean")
        variance: jax.Array = self.get_variable("batch_stats", "var")
        scale = jax.lax.rsqrt(variance + self.epsilon) * scale
        shift = bias - mean * scale
        y = affine(x.astype(scale.dtype), scale, shift).astype(self.dtype)
        y = y if slope is None else prelu(y, slope)
        return Normalized(y, mean, variance, scale, shift)

    @nn.compact
    def parameters(self, channels: int, wide: jnp.dtype) -> tuple[jax.Array, jax.Array]:
        """Return scale and bias [channels] in `wide`; see that there are statistics."""
        self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        self.variable("batch_stats", "var", jnp.ones, (channels,))
        ones = jnp.ones(channels)
        scale = self.param("scale", self.scale_init, (channels,)) if self.use_scale else ones
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return scale.astype(wide), bias.astype(wide)

    def keep(self, statistics: Moments, count: int) -> None:
        """Keep mean and biased variance of `count` values a channel as this batch's."""
        mean, variance = statistics
        self.put_variable("batch_stats", "mean", mean)
        self.put_variable("batch_stats", "var", variance * (count / max(count - 1, 1)))


class PReLU(nn.Module):
    """Slopes of a PReLU, one a channel, starting at 0.25: BatchNorm applies them."""

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        """Return the slopes [channels]."""
        return self.param("slope", nn.initializers.constant(PRELU_START), (channels,))


class Kernel(nn.Module):
    """Kernel of a square convolution as `conv` has it, without the convolution."""

    features: int
    size: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        """Return the kernel [size, size, channels, features]."""
        return self.param(
            "kernel", self.kernel_init, (self.size, self.size, channels, self.features)
        )


def padding_of(side: int) -> int:
    """Return the padding for a kernel of this side: half of an odd one, none of an even one."""
    return side // 2 if side % 2 else 0


def conv(
    features: int,
    kernel: int,
    stride: int,
    dtype: DTypeLike,
    kernel_init: nn.initializers.Initializer,
    name: str,
) -> Callable[[jax.Array], jax.Array]:
    """Return a convolution without bias, as in PyTorch: odd kernels padded by half, even never."""
    padding = padding_of(kernel)

    def convolve_(x: jax.Array, weight: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return convolution.in_use(x, weight, stride, padding)

    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=convolve_,
        name=name,
    )
