"""Batch norm and PReLU with gradients written by hand, and the sums a channel both are made of.

Without the YNNPACK kernels, which xla_flags.py turns off, XLA's CPU backend takes a sum over batch
and positions of [B, H, W, C] by a tree of windows, 5 to 18 times slower than a loop that adds
blocks of rows element by element. On the CPU the sums are taken by such a loop, chosen when the
program is lowered; TPUs reduce plainly, GPUs by pairs of sums. Batch norm and the PReLU after it
are one function here, so that its backward pass reads the input and the incoming gradient and
nothing else: the normalized map is not kept.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

# Elements of the block that the CPU loop adds up. Best measured: 256 KiB of float32, so that the
# sums and two blocks stay in a core's second-level cache. Smaller than the second, where the
# number of rows has no good divisor, a turn of the loop costs more than it saves.
BLOCK_ELEMENTS, FEWEST_ELEMENTS = 2**16, 2**11

Term = Callable[..., tuple[jax.Array, ...]]
# What the backward pass of batch_norm needs: x, scale, bias, slope, mean, 1/deviation.
Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


def channel_sums(
    term: Term, arrays: Sequence[jax.Array], vectors: Sequence[jax.Array] = ()
) -> tuple[jax.Array, ...]:
    """Sum what `term` makes of the arrays, by element, over all axes but the last.

    arrays are [..., C], all of one shape; vectors are [C]. term(*arrays, *vectors) gives a tuple
    of arrays of that shape and may be called on any rows [R, C] of them, with vectors [1, C].
    Returns a tuple of [C].
    """
    channels = arrays[0].shape[-1]
    rows = [x.reshape(-1, channels) for x in arrays]
    wide = [v.reshape(1, channels) for v in vectors]

    def plain(rows: Sequence[jax.Array], vectors: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(jnp.sum(x, 0) for x in term(*rows, *vectors))

    sums: tuple[jax.Array, ...] = jax.lax.platform_dependent(
        rows, wide, cpu=partial(_by_blocks, term), cuda=partial(_by_pairs, term), default=plain
    )
    return sums


def _by_pairs(
    term: Term, rows: Sequence[jax.Array], vectors: Sequence[jax.Array]
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
        partial_sums.append(jnp.sum(term(*split, *apart)[index], 1))
        apart = [_apart(v) for v in apart]
    pairs = [partial_sums[at : at + 2] for at in range(0, len(partial_sums), 2)]
    return tuple(total for pair in pairs for total in _reduced(pair))


def _parts(rows: int) -> int:
    """Return the most parts, a power of two of at most the root of `rows`, that divide `rows`."""
    return max(1 << n for n in range(rows.bit_length()) if rows % (1 << n) == 0 and 4**n <= rows)


def _apart(vector: jax.Array) -> jax.Array:
    """Return the vector as another value to the compiler, which has to allow for NaN."""
    return jnp.where(vector == vector, vector, jnp.nan)


def _reduced(arrays: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Return the sums of arrays of one shape over their first axis, as one reduction."""

    def add(before: tuple[jax.Array, ...], more: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(a + b for a, b in zip(before, more, strict=True))

    zeros = tuple(jnp.zeros((), x.dtype) for x in arrays)
    sums: tuple[jax.Array, ...] = jax.lax.reduce(tuple(arrays), zeros, add, (0,))
    return sums


def block_rows(rows: int, channels: int) -> int:
    """Return the rows of a block: the most that divide `rows` within BLOCK_ELEMENTS elements."""
    most = max(min(BLOCK_ELEMENTS // channels, rows), 1)
    return next(size for size in range(most, 0, -1) if rows % size == 0)


def _by_blocks(
    term: Term, rows: Sequence[jax.Array], vectors: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    count, channels = rows[0].shape
    size = block_rows(count, channels)

    def block(index: jax.Array | int) -> tuple[jax.Array, ...]:
        parts = [jax.lax.dynamic_slice_in_dim(x, index * size, size) for x in rows]
        return term(*parts, *vectors)

    if size < count and size * channels >= FEWEST_ELEMENTS:
        like = jax.eval_shape(lambda: block(0))
        zeros = tuple(jnp.zeros(x.shape, x.dtype) for x in like)

        def add(index: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return tuple(a + b for a, b in zip(sums, block(index), strict=True))

        summed = jax.lax.fori_loop(0, count // size, add, zeros)
    else:
        summed = term(*rows, *vectors)
    # The rows that are left are summed as a product, which is no tree of windows either.
    return tuple((jnp.ones((1, x.shape[0]), x.dtype) @ x)[0] for x in summed)


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """Compute max(x, 0) + slope * min(x, 0) for x [..., C], slope [C], in x's shape and dtype."""
    slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.where(x >= 0, x, slope * x)


def affine(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Compute x * scale + bias with scale and bias [C]: x [..., C] -> the same shape."""
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    return x * scale.reshape(broadcast) + bias.reshape(broadcast)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array | None,
    epsilon: float,
    dtype: jnp.dtype,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return (y, mean, variance): y [..., C] is x normalized by this batch, times scale + bias.

    y is in `dtype`; scale, bias [C]. With a `slope` [C], y is the PReLU of that. mean and the
    biased variance [C] are over all axes but the last, in the dtype of `scale`; nothing is
    differentiated through them as outputs (they are statistics to keep).
    """
    return _forward(x, scale, bias, slope, epsilon, dtype)[0]


def _kept(y: jax.Array) -> jax.Array:
    """Return y, which XLA's CPU backend then computes once.

    An affine map alone it takes to be cheap, computes it again inside of the transpose in front of
    the next convolution's kernel gradient, and makes that transpose up to five times as slow. What
    is used twice it keeps; optimization_barrier is gone before fusion. Elsewhere y as it is.
    """

    def used_twice(y: jax.Array) -> jax.Array:
        return jnp.where(y == y, y, jnp.nan)

    kept: jax.Array = jax.lax.platform_dependent(y, cpu=used_twice, default=lambda y: y)
    return kept


def _forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array | None,
    epsilon: float,
    dtype: jnp.dtype,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Saved]:
    count = x.size // x.shape[-1]

    def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        wide = x.astype(scale.dtype)
        return wide, jnp.square(wide)

    # One pass over x gives both moments; a centered second pass would read it again.
    mean, square = (total / count for total in channel_sums(moments, [x]))
    variance = jnp.maximum(square - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = affine(x.astype(scale.dtype), scale * inverse, bias - mean * scale * inverse).astype(dtype)
    y = _kept(y) if slope is None else prelu(y, slope)
    return (y, mean, variance), (x, scale, bias, slope, mean, inverse)


def _backward(
    epsilon: float,
    dtype: jnp.dtype,
    saved: Saved,
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    x, scale, bias, slope, mean, inverse = saved
    y_bar = cotangents[0]
    count = x.size // x.shape[-1]
    factor, shift = scale * inverse, bias - mean * scale * inverse

    def before_prelu(
        x: jax.Array, y_bar: jax.Array, factor: jax.Array, shift: jax.Array, slope: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the gradient with respect to PReLU's input, and that input."""
        z = (x.astype(factor.dtype) * factor + shift).astype(dtype)
        return jnp.where(z >= 0, y_bar, slope.astype(dtype) * y_bar).astype(factor.dtype), z

    def terms(
        x: jax.Array, y_bar: jax.Array, mean: jax.Array, *more: jax.Array
    ) -> tuple[jax.Array, ...]:
        if not more:
            wide = y_bar.astype(mean.dtype)
            return wide, wide * (x.astype(mean.dtype) - mean)
        wide, z = before_prelu(x, y_bar, *more)
        by_slope = jnp.where(z < 0, z * y_bar, 0).astype(mean.dtype)
        return wide, wide * (x.astype(mean.dtype) - mean), by_slope

    vectors = [mean] if slope is None else [mean, factor, shift, slope]
    total, centered, *by_slope = channel_sums(terms, [x, y_bar], vectors)
    if slope is None:
        z_bar = y_bar.astype(scale.dtype)
    else:
        broadcast = (1,) * (x.ndim - 1) + (-1,)
        z_bar, _ = before_prelu(x, y_bar, *(v.reshape(broadcast) for v in vectors[1:]))
    # dx = factor * (dz - mean(dz) - (x - mean) * inverse^2 * mean(dz * (x - mean)))
    along = -factor * jnp.square(inverse) * centered / count
    x_bar = affine(x.astype(scale.dtype), along, -factor * total / count - along * mean)
    x_bar += affine(z_bar, factor, jnp.zeros_like(factor))
    slope_bar = None if slope is None else by_slope[0].astype(slope.dtype)
    return x_bar.astype(x.dtype), centered * inverse, total, slope_bar


batch_norm.defvjp(_forward, _backward)
