"""Sums a channel in as few passes as XLA's compiler for GPUs can be brought to: by pairs."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Term = Callable[..., tuple[jax.Array, ...]]


def by_pairs(
    term: Term,
    rows: Sequence[jax.Array],
    vectors: Sequence[jax.Array],
    shared: bool = False,
) -> tuple[jax.Array, ...]:
    """Return the sums with as few bytes read as XLA's compiler for GPUs can be brought to.

    What several sums share it writes to memory first and reads for each: so each sum is made of
    vectors of its own, equal ones that the compiler cannot see to be equal, after which it takes
    two sums in one pass. Partial sums are added as pairs too, in one kernel instead of two.
    """
    count, channels = rows[0].shape
    parts = _parts(count)
    split = [x.reshape(parts, count // parts, channels) for x in rows]
    apart, partial_sums = [v.reshape(1, 1, channels) for v in vectors], []
    for index in range(len(jax.eval_shape(term, *split, *apart))):
        if index or not shared:
            apart = [_apart(v) for v in apart]
        partial_sums.append(jnp.sum(term(*split, *apart)[index], 1))
    pairs = [partial_sums[at : at + 2] for at in range(0, len(partial_sums), 2)]
    return tuple(total for pair in pairs for total in reduced(pair, (0,)))


def _parts(rows: int) -> int:
    """Return the most parts, a power of two of at most the root of `rows`, that divide `rows`."""
    return max(1 << n for n in range(rows.bit_length()) if rows % (1 << n) == 0 and 4**n <= rows)


def _apart(vector: jax.Array) -> jax.Array:
    """Return the vector as another value to the compiler, which has to allow for NaN."""
    return jnp.where(vector == vector, vector, jnp.nan)


def reduced(arrays: Sequence[jax.Array], axes: Sequence[int]) -> tuple[jax.Array, ...]:
    """Return the sums of arrays of one shape over these axes, as one reduction."""

    def add(before: tuple[jax.Array, ...], more: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(a + b for a, b in zip(before, more, strict=True))

    zeros = tuple(jnp.zeros((), x.dtype) for x in arrays)
    sums: tuple[jax.Array, ...] = jax.lax.reduce(tuple(arrays), zeros, add, tuple(axes))
    return sums
