"""Linear layers whose gradients are written out, since XLA's CPU backend is slow at its own.

It transposes what comes in before it multiplies for the kernel's gradient, and takes the bias's by
a tree of windows (models/channels.py). Elsewhere these are the same products and sums.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.models.channels import channel_sums


@jax.custom_vjp
def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Return x [..., I] times kernel [I, O], plus bias [O] if there is one; all of one dtype."""
    y = jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


Saved = tuple[jax.Array, jax.Array, jax.Array | None]


def _forward(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, Saved]:
    return linear(x, kernel, bias), (x, kernel, bias)


def _backward(saved: Saved, y_bar: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    x, kernel, bias = saved
    rows, by_rows = x.reshape(-1, x.shape[-1]), y_bar.reshape(-1, y_bar.shape[-1])
    by_x = jax.lax.dot_general(by_rows, kernel, (((1,), (1,)), ((), ())))
    by_kernel = jax.lax.dot_general(rows, by_rows, (((0,), (0,)), ((), ())))
    by_bias = None
    if bias is not None:
        wide = jnp.promote_types(bias.dtype, jnp.float32)
        (total,) = channel_sums(lambda y: (y.astype(wide),), [y_bar])
        by_bias = total.astype(bias.dtype)
    return by_x.reshape(x.shape), by_kernel, by_bias


linear.defvjp(_forward, _backward)


class Linear(nn.Module):
    """Linear layer as flax's Dense, with the same parameters: x [..., I] -> [..., features].

    dtype: of the computation; parameters stay float32.
    """

    features: int
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., I] to [..., features] in `dtype`."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), jnp.float32).astype(self.dtype)
        y: jax.Array = linear(x.astype(self.dtype), kernel.astype(self.dtype), bias)
        return y
