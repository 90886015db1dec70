"""A batch in parts of few images, whose maps are small enough to stay in memory already touched."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def in_parts(function: Callable[..., jax.Array], most: int) -> Callable[..., jax.Array]:
    """Return `function` of arrays [B, ...] -> [B, ...], computed for at most so many B at a time.

    Every row of the result must depend on its own rows alone: what fills the last part up is left
    out again.

    Example:
        >>> import jax.numpy as jnp
        >>> in_parts(lambda x: 2 * x, most=2)(jnp.arange(5))
        Array([0, 2, 4, 6, 8], dtype=int32)
    """

    def parted(*arrays: jax.Array) -> jax.Array:
        count = arrays[0].shape[0]
        parts = -(-count // most)
        if parts <= 1:
            return function(*arrays)
        size = -(-count // parts)

        def split(array: jax.Array) -> jax.Array:
            edges = [(0, parts * size - count), *((0, 0) for _ in array.shape[1:])]
            return jnp.pad(array, edges).reshape(parts, size, *array.shape[1:])

        mapped = jax.lax.map(lambda some: function(*some), tuple(map(split, arrays)))
        together: jax.Array = mapped.reshape(parts * size, *mapped.shape[2:])[:count]
        return together

    return parted
