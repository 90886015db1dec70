"""Sums a channel in as few passes as XLA's compiler for GPUs can be brought to: by pairs."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import jax
import jax.numpy as jnp

LOOPED = 16  # partial sums that are added in a loop: XLA makes a kernel of a sum of 32 and more

Term = Callable[..., tuple[jax.Array, ...]]


def by_pairs(
    term: Term,
    rows: Sequence[jax.Array],
    vectors: Sequence[jax.Array],
    shared: bool = False,
    alone: bool = False,
) -> tuple[jax.Array, ...]:
    """Return the sums with as few bytes read as XLA's compiler for GPUs can be brought to.

    alone: they are taken for more than one thing, and so added in a kernel of their own.

    What several sums share it writes to memory first and reads for each: so each sum is made of
    vectors of its own, equal ones that the compiler cannot see to be equal, after which it takes
    two sums in one pass.
    """
    count, channels = rows[0].shape
    parts = _parts(count)
    split = [x.reshape(parts, count // parts, channels) for x in rows]
    apart, partial_sums = [v.reshape(1, 1, channels) for v in vectors], []
    for index in range(len(jax.eval_shape(term, *split, *apart))):
        if index or not shared:
            apart = _apart(apart)
        partial_sums.append(jnp.sum(term(*split, *apart)[index], 1))
    pairs = [partial_sums[at : at + 2] for at in range(0, len(partial_sums), 2)]
    return tuple(total for pair in pairs for total in _totals(pair, alone or not vectors))


def _parts(rows: int) -> int:
    """Return the most parts, a power of two of at most the root of `rows`, that divide `rows`."""
    return max(1 << n for n in range(rows.bit_length()) if rows % (1 << n) == 0 and 4**n <= rows)


def _totals(partial_sums: Sequence[jax.Array], alone: bool) -> Sequence[jax.Array]:
    """Return the sums over axis 0 of one or two [parts, C], in no kernel of their own or in one.

    Few numbers, or one array, are added in the kernel that takes the sum. Of more XLA would make a
    kernel for each piece, sooner where the sums are taken for more than one thing (alone).
    """
    parts = partial_sums[0].shape[0]
    if len(partial_sums) > 1 and parts > (2 if alone else 16) * LOOPED:
        zeros = tuple(jnp.zeros((), x.dtype) for x in partial_sums)
        sums: tuple[jax.Array, ...] = jax.lax.reduce(tuple(partial_sums), zeros, _added, (0,))
        return sums
    pieces = [jnp.split(x, max(parts // LOOPED, 1)) for x in partial_sums]
    if len(partial_sums) > 1:
        return [reduce(add, [jnp.sum(x, 0) for x in each]) for each in pieces]
    return [jnp.sum(reduce(add, each), 0) for each in pieces]


def _added(before: tuple[jax.Array, ...], more: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return tuple(a + b for a, b in zip(before, more, strict=True))


def _apart(vectors: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the vectors as other values to the compiler, which has to allow for NaN in the first.

    All depend on that one, so that they are made where it is, in one kernel.
    """
    return [jnp.where(vectors[0] == vectors[0], v, jnp.nan) for v in vectors]
