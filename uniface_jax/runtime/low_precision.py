"""Matrix products whose factors may have few bits: sums stay in the wide type.

In float32 or bfloat16 a factor is rounded and no more. Types of 8 bits have too small a range for
that: each row is first divided by a number of its own, so that its largest element is the type's
largest, and the product's rows and columns are multiplied by these numbers. A row's number cannot
be taken out of a sum over rows; there it goes into the other factor before that is rounded.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# By name, the largest number of each type of 8 bits.
LARGEST: Mapping[str, float] = {"float8_e4m3fn": 448.0, "int8": 127.0}


class Rows(NamedTuple):
    """Rows [N, D] in a low precision, and the number [N] that each is to be multiplied by.

    scale is None where that is 1.
    """

    values: jax.Array
    scale: jax.Array | None = None


def rows(x: jax.Array, dtype: DTypeLike) -> Rows:
    """Return x [N, D] in `dtype`; what is no finite number stays none in every product."""
    if jnp.dtype(dtype).name not in LARGEST:
        return Rows(x.astype(dtype))
    values, scale = _scaled(x, 1, jnp.dtype(dtype))
    return Rows(values, scale[:, 0])


def products(a: Rows, b: Rows, wide: jnp.dtype) -> jax.Array:
    """Return the products [N, M] of the rows of a [N, D] with those of b [M, D]."""
    found = _matmul(a.values, b.values, (1, 1), wide)
    if a.scale is None or b.scale is None:
        return found
    return found * a.scale[:, None] * b.scale[None]


def sums_of_rows(weights: jax.Array, axis: int, b: Rows, wide: jnp.dtype) -> jax.Array:
    """Return the sums [N, D] of b's rows [M, D] by weights [N, M], or [M, N] with axis 0."""
    low = b.values.dtype
    if b.scale is None:
        return _matmul(weights.astype(low), b.values, (axis, 0), wide)
    weights = weights * jnp.expand_dims(b.scale, 1 - axis)
    values, scale = _scaled(weights, axis, low)
    return _matmul(values, b.values, (axis, 0), wide) * scale.reshape(-1, 1)


def _scaled(x: jax.Array, axis: int, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Return x / scale in a type of 8 bits, with the scale, whose `axis` has one element."""
    largest = jnp.max(jnp.abs(x), axis, keepdims=True)
    scale = largest / LARGEST[dtype.name]
    scale = jnp.where(scale < jnp.finfo(x.dtype).tiny, 1, scale)  # of zeros, and what is next to it
    values = x / scale
    values = jnp.round(values) if dtype == jnp.int8 else values
    return values.astype(dtype), scale


def _matmul(a: jax.Array, b: jax.Array, axes: tuple[int, int], wide: jnp.dtype) -> jax.Array:
    """Return the product of a and b, summed over an axis of each, in `wide`."""
    sums = jnp.int32 if a.dtype == jnp.int8 else wide  # in which sums of whole numbers are exact
    found = jax.lax.dot_general(
        a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=sums
    )
    return found.astype(wide)
