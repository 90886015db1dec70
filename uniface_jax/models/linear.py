"""Linear layers whose gradients are written out, since XLA's CPU backend is slow at its own.

It transposes what comes in before it multiplies for the kernel's gradient, and takes the bias's by
a tree of windows (models/channels.py). Elsewhere these are the same products and sums.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.models.channels import channel_sums
from uniface_jax.runtime.low_precision import products, rows
from uniface_jax.runtime.tracing import shared_partial


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
    tokens, by_tokens = x.reshape(-1, x.shape[-1]), y_bar.reshape(-1, y_bar.shape[-1])
    by_x = jax.lax.dot_general(by_tokens, kernel, (((1,), (1,)), ((), ())))
    by_kernel = jax.lax.dot_general(tokens, by_tokens, (((0,), (0,)), ((), ())))
    return by_x.reshape(x.shape), by_kernel, _by_bias(bias, y_bar)


def _by_bias(bias: jax.Array | None, y_bar: jax.Array) -> jax.Array | None:
    """Return the gradient of the bias, of which only the dtype counts; None where there is none."""
    if bias is None:
        return None
    wide = jnp.promote_types(bias.dtype, jnp.float32)
    (total,) = channel_sums(shared_partial(_widened, wide), [y_bar])
    return total.astype(bias.dtype)


def _widened(wide: jnp.dtype, y: jax.Array) -> tuple[jax.Array]:
    return (y.astype(wide),)


linear.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear_in_8_bits(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype: str
) -> jax.Array:
    """Return what linear does, with both factors of its product in `dtype`, in x's own dtype.

    dtype: one of low_precision.LARGEST. Each row that is summed over has a scale of its own, and
    sums are float32 at least. The products of both gradients are taken the same way.
    """
    y = _product(x.reshape(-1, x.shape[-1]), kernel.T, dtype).astype(x.dtype)
    y = y.reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _product(a: jax.Array, b: jax.Array, dtype: str) -> jax.Array:
    """Return the products [N, M] of the rows of a [N, D] with those of b [M, D]."""
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    return products(rows(a.astype(wide), dtype), rows(b.astype(wide), dtype), wide)


def _forward_in_8_bits(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype: str
) -> tuple[jax.Array, Saved]:
    return linear_in_8_bits(x, kernel, bias, dtype), (x, kernel, bias)


def _backward_in_8_bits(
    dtype: str, saved: Saved, y_bar: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    x, kernel, bias = saved
    tokens, by_tokens = x.reshape(-1, x.shape[-1]), y_bar.reshape(-1, y_bar.shape[-1])
    by_x = _product(by_tokens, kernel, dtype).astype(x.dtype)
    by_kernel = _product(tokens.T, by_tokens.T, dtype).astype(kernel.dtype)
    return by_x.reshape(x.shape), by_kernel, _by_bias(bias, y_bar)


linear_in_8_bits.defvjp(_forward_in_8_bits, _backward_in_8_bits)


class Linear(nn.Module):
    """Linear layer as flax's Dense, with the same parameters: x [..., I] -> [..., features].

    dtype: of the computation; parameters stay float32. product_dtype: as linear_in_8_bits has it;
    None is `dtype`.
    """

    features: int
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer
    use_bias: bool = True
    product_dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., I] to [..., features] in `dtype`."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), jnp.float32).astype(self.dtype)
        if self.product_dtype is not None:  # which rounds the kernel itself, so not twice
            return linear_in_8_bits(x.astype(self.dtype), kernel, bias, self.product_dtype)
        y: jax.Array = linear(x.astype(self.dtype), kernel.astype(self.dtype), bias)
        return y
