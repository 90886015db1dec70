"""Layers that differ from Flax's own: batch norm with PyTorch's statistics, PReLU a channel."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.models.channels import Measured, Normalized, affine, batch_norm, prelu
from uniface_jax.models.convolution import convolve

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
        self, x: jax.Array | Measured, train: bool, slope: jax.Array | None = None
    ) -> jax.Array:
        """Map x [..., C] -> the same shape, in `dtype`; with a `slope` [C], its PReLU."""
        return self.normalized(x, train, slope).y

    @nn.compact
    def normalized(
        self, x: jax.Array | Measured, train: bool, slope: jax.Array | None = None
    ) -> Normalized:
        """Do as a call does, and return what normalized beside the map."""
        plain = x.x if isinstance(x, Measured) else x
        channels = plain.shape[-1]
        mean_state = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var_state = self.variable("batch_stats", "var", jnp.ones, (channels,))
        wide = at_least_float32(plain.dtype)
        ones = jnp.ones(channels)
        scale = self.param("scale", self.scale_init, (channels,)) if self.use_scale else ones
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        scale, bias = scale.astype(wide), bias.astype(wide)
        if train:
            out = batch_norm(x, scale, bias, slope, self.epsilon, jnp.dtype(self.dtype))
            count = plain.size // channels
            mean_state.value = out.mean
            var_state.value = out.variance * (count / max(count - 1, 1))
            return out
        mean, variance = mean_state.value, var_state.value
        scale = jax.lax.rsqrt(variance + self.epsilon) * scale
        shift = bias - mean * scale
        y = affine(plain.astype(wide), scale, shift).astype(self.dtype)
        y = y if slope is None else prelu(y, slope)
        return Normalized(y, mean, variance, scale, shift)


class PReLU(nn.Module):
    """Slopes of a PReLU, one a channel, starting at 0.25: BatchNorm applies them."""

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        """Return the slopes [channels]."""
        return self.param("slope", nn.initializers.constant(PRELU_START), (channels,))


def conv(
    features: int,
    kernel: int,
    stride: int,
    dtype: DTypeLike,
    kernel_init: nn.initializers.Initializer,
    name: str,
) -> Callable[[jax.Array], jax.Array]:
    """Return a convolution without bias, as in PyTorch: odd kernels padded by half, even never."""
    padding = kernel // 2 if kernel % 2 else 0

    def convolve_(x: jax.Array, weight: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return convolve(x, weight, stride, padding)

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
