"""The layers that differ from Flax's own: batch norm with PyTorch's statistics, PReLU a channel."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

BN_EPSILON = 1e-5
PRELU_START = 0.25


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Float32 for half precisions, the dtype itself for float32 and float64."""
    return jnp.promote_types(dtype, jnp.float32)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, in PyTorch's sense.

    With `train`, x [..., C] is normalised by the mean and the biased variance of this batch, and
    the collection `batch_stats` is set to this batch's mean and unbiased variance n/(n-1): the
    caller folds them into the running averages (step.running_statistics), so that micro-batches
    and devices can be folded in a fixed order. Otherwise `batch_stats` holds the running averages
    and they normalise. Statistics are computed in float32 at least, whatever `dtype` x has.
    """

    dtype: DTypeLike = jnp.float32
    use_scale: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [..., C] -> the same shape, in `dtype`."""
        channels = x.shape[-1]
        mean_state = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var_state = self.variable("batch_stats", "var", jnp.ones, (channels,))
        wide = x.astype(at_least_float32(x.dtype))
        if train:
            axes = tuple(range(x.ndim - 1))
            count = x.size // channels
            mean = jnp.mean(wide, axes)
            # One pass over x gives both moments; XLA fuses them, a centred second pass it cannot.
            var = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0)
            mean_state.value = mean
            var_state.value = var * (count / max(count - 1, 1))
        else:
            mean, var = mean_state.value, var_state.value
        scale = jax.lax.rsqrt(var + BN_EPSILON)
        if self.use_scale:
            scale = scale * self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,)) - mean * scale
        broadcast = (1,) * (x.ndim - 1) + (channels,)
        return (wide * scale.reshape(broadcast) + bias.reshape(broadcast)).astype(self.dtype)


class PReLU(nn.Module):
    """max(x, 0) + slope * min(x, 0) with one slope a channel, starting at 0.25."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., C] -> the same shape and dtype."""
        slope = self.param("slope", nn.initializers.constant(PRELU_START), x.shape[-1:])
        slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x >= 0, x, slope * x)


def conv(
    features: int,
    kernel: int,
    stride: int,
    dtype: DTypeLike,
    kernel_init: nn.initializers.Initializer,
    name: str,
) -> Callable[[jax.Array], jax.Array]:
    """A convolution without bias, as in PyTorch: odd kernels padded by half, even ones never."""
    padding = kernel // 2 if kernel % 2 else 0
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )
