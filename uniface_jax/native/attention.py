"""Self-attention and its gradient: arrays to arrays, on the CPU, float32.

qkv [B, N, 3 D] holds the queries, keys and values of a token's heads, of size d = D / heads;
softmax(q k' / sqrt(d)) v is [B, N, heads, d]. suits() must be true of it.
"""

import jax
import jax.numpy as jnp

from uniface_jax.native import build
from uniface_jax.native.convolution import call, divides

# The weights of one head, N^2 twice, and its tokens stay in a core's second-level cache.
MOST_TOKENS = 256


def suits(shape: tuple[int, ...], heads: int, dtype: jnp.dtype) -> bool:
    """Return True where the kernels can compute the attention of qkv, and are there."""
    if dtype != jnp.float32 or shape[1] > MOST_TOKENS or not build.available():
        return False
    return divides(shape[2] // 3 // heads)


def _by_head(qkv: jax.Array, heads: int) -> jax.Array:
    batch, tokens, width = qkv.shape
    return qkv.reshape(batch, tokens, 3, heads, width // 3 // heads)


def forward(qkv: jax.Array, heads: int) -> jax.Array:
    """Return softmax(q k' / sqrt(d)) v."""
    batch, tokens, _, _, size = (given := _by_head(qkv, heads)).shape
    return call("uniface_attention", (batch, tokens, heads, size), None, given)


def gradient(qkv: jax.Array, mixed_bar: jax.Array, heads: int) -> jax.Array:
    """Return the gradient with respect to qkv; the weights are computed again."""
    given = _by_head(qkv, heads)
    return call("uniface_attention_gradient", given.shape, None, given, mixed_bar).reshape(
        qkv.shape
    )
