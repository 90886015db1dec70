"""Terms of the sums that the gradient of batch norm takes, by element of maps."""

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp

Remake = Callable[..., jax.Array]


def whole(dtype: jnp.dtype, x: jax.Array, *plus: jax.Array) -> jax.Array:
    """Return x in `dtype`, with what it lacks."""
    wide = x.astype(dtype)
    return wide + plus[0] if plus else wide


def before_prelu(
    dtype: jnp.dtype, x: jax.Array, y_bar: jax.Array, *vectors: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the gradient with respect to PReLU's input in the vectors' dtype, and that input.

    vectors: factor and shift that make the input of x, and slope.
    """
    factor, shift, slope = vectors
    z = (x * factor + shift).astype(dtype)
    return jnp.where(z >= 0, y_bar, slope.astype(dtype) * y_bar).astype(factor.dtype), z


class Counts(NamedTuple):
    """Numbers of the arrays that terms is given."""

    lacks: int
    of_y: int
    vectors_of_y: int


def terms(
    dtype: jnp.dtype, remake: Remake, counts: Counts, shared: bool, x: jax.Array, *more: jax.Array
) -> tuple[jax.Array, ...]:
    """Return what is summed for the gradients: that before a PReLU, and it times x - mean.

    And times that PReLU's input, where it is negative, unless the sums are shared. more: by
    `counts`, then the mean, and what before_prelu takes if there is a PReLU.
    """
    parts = iter(more)
    lacks, of_y, vectors_of_y = ([*islice(parts, count)] for count in counts)
    mean, *of_prelu = parts
    y_bar, x = remake(*of_y, *vectors_of_y), whole(mean.dtype, x, *lacks)
    if not of_prelu:
        z_bar = y_bar.astype(mean.dtype)
        return z_bar, z_bar * (x - mean)
    z_bar, z = before_prelu(dtype, x, y_bar, *of_prelu)
    by_slope = [] if shared else [_slope_term(z, y_bar, mean.dtype)]
    return z_bar, z_bar * (x - mean), *by_slope


def slope_terms(
    dtype: jnp.dtype, x: jax.Array, y_bar: jax.Array, *vectors: jax.Array
) -> tuple[jax.Array]:
    """Return what is summed for the slope's gradient; vectors: see before_prelu."""
    wide = vectors[0].dtype
    _, z = before_prelu(dtype, x.astype(wide), y_bar, *vectors)
    return (_slope_term(z, y_bar, wide),)


def _slope_term(z: jax.Array, y_bar: jax.Array, wide: jnp.dtype) -> jax.Array:
    return jnp.where(z < 0, z * y_bar, 0).astype(wide)
