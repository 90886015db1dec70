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
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from uniface_jax.models.gradient_terms import (
    Counts,
    Remake,
    before_prelu,
    slope_terms,
    terms,
    whole,
)
from uniface_jax.models.pair_sums import by_pairs as _by_pairs
from uniface_jax.native import batch_norm as native
from uniface_jax.runtime.tracing import shared_partial

# Elements of the block that the CPU loop adds up. Best measured: 256 KiB of float32, so that the
# sums and two blocks stay in a core's second-level cache. Smaller than the second, where the
# number of rows has no good divisor, a turn of the loop costs more than it saves.
BLOCK_ELEMENTS, FEWEST_ELEMENTS = 2**16, 2**11

# Means of a map and of its squares by channel, [C] each.
Moments = tuple[jax.Array, jax.Array]
Term = Callable[..., tuple[jax.Array, ...]]


class Norm(NamedTuple):
    """Parameters of a batch norm [C]; slope: of the PReLU after it, or None."""

    scale: jax.Array
    bias: jax.Array
    slope: jax.Array | None


class Saved(NamedTuple):
    """Values that the backward pass of batch_norm needs.

    x, its mean, 1/deviation, and what each image's x lacks.
    """

    x: jax.Array
    norm: Norm
    mean: jax.Array
    inverse: jax.Array
    plus: jax.Array | None


def channel_sums(
    term: Term,
    arrays: Sequence[jax.Array],
    vectors: Sequence[jax.Array] = (),
    shared: bool = False,
) -> tuple[jax.Array, ...]:
    """Sum what `term` makes of the arrays, by element, over all axes but the last.

    arrays are [..., C], all of one shape; vectors are [C]. term(*arrays, *vectors) gives a tuple
    of arrays of that shape and may be called on any rows [R, C] of them, with vectors [1, C]; see
    shared_partial for what it may not do.
    shared: the first sum is of the very values that another pass writes, which can take it then.
    Returns a tuple of [C].
    """
    channels = arrays[0].shape[-1]
    rows = [x.reshape(-1, channels) for x in arrays]
    wide = [v.reshape(1, channels) for v in vectors]
    sums: tuple[jax.Array, ...] = jax.lax.platform_dependent(
        rows,
        wide,
        cpu=shared_partial(_by_blocks, term),
        cuda=shared_partial(_by_pairs, term, shared=shared),
        default=shared_partial(_plainly, term),
    )
    return sums


def _plainly(
    term: Term, rows: Sequence[jax.Array], vectors: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    return tuple(jnp.sum(x, 0) for x in term(*rows, *vectors))


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


def moments(x: jax.Array, wide: jnp.dtype, plus: jax.Array | None = None) -> Moments:
    """Return the means of x [..., C] and of its squares over all axes but the last, in `wide`.

    plus [H, W, C]: what each image's x lacks.
    """
    # One pass over x gives both moments; a centered second pass would read it again.
    count = x.size // x.shape[-1]
    mean, square = channel_sums(shared_partial(_powers, wide), [x, *_all(plus, x)])
    return mean / count, square / count


def moments_of_sum(
    total: jax.Array, remake: Remake, arrays: Sequence[jax.Array], vectors: Sequence[jax.Array]
) -> Moments:
    """Return the moments of total [..., C], which remake(*arrays, *vectors) makes once more.

    arrays are of total's shape, vectors [C]; remake may be called on any rows. On GPUs the sums are
    made of what total is made of, so that the compiler takes them in the pass that writes it: of
    total itself it takes them in another. Nothing is differentiated through the moments.
    """
    wide = jnp.promote_types(total.dtype, jnp.float32)
    count = total.size // total.shape[-1]
    given = jax.lax.stop_gradient((total, list(arrays), list(vectors)))
    sums = jax.lax.platform_dependent(
        *given,
        cuda=shared_partial(_powers_again, wide, remake),
        default=shared_partial(_powers_of_sum, wide),
    )
    return sums[0] / count, sums[1] / count


def _powers_again(
    wide: jnp.dtype,
    remake: Remake,
    total: jax.Array,
    arrays: Sequence[jax.Array],
    vectors: Sequence[jax.Array],
) -> tuple[jax.Array, ...]:
    rows = [x.reshape(-1, total.shape[-1]) for x in arrays]
    return _by_pairs(lambda *parts: _powers(wide, remake(*parts)), rows, vectors, alone=True)


def _powers_of_sum(
    wide: jnp.dtype, total: jax.Array, *_: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    return channel_sums(shared_partial(_powers, wide), [total])


def _powers(wide: jnp.dtype, *parts: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = whole(wide, *parts)
    return x, jnp.square(x)


class Normalized(NamedTuple):
    """Batch norm's results: y [..., C], and by channel statistics to keep and what y was made of.

    mean and biased variance [C] of x; y is x * factor + shift [C], before a PReLU.
    """

    y: jax.Array
    mean: jax.Array
    variance: jax.Array
    factor: jax.Array
    shift: jax.Array


class HasY(Protocol):
    """Cotangents of results of which y alone is differentiated."""

    @property
    def y(self) -> jax.Array:
        """Return the cotangent of y."""


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: jax.Array, norm: Norm, known: Moments | None, epsilon: float, dtype: jnp.dtype
) -> Normalized:
    """Normalize x [..., C] by this batch, times scale + bias; results: see Normalized.

    y is in `dtype`. With a slope, y is the PReLU of that. Statistics are over all axes but
    the last, in the dtype of `scale`; nothing is differentiated through them as outputs. known: the
    moments of x, where they have been taken.
    """
    return _forward(x, norm, known, epsilon, dtype)[0]


def _kept(y: jax.Array) -> jax.Array:
    """Return y, which XLA's CPU backend then computes once.

    An affine map alone it takes to be cheap, computes it again inside of the transpose in front of
    the next convolution's kernel gradient, and makes that transpose up to five times as slow. What
    is used twice it keeps; optimization_barrier is gone before fusion. Elsewhere y as it is.
    """
    kept: jax.Array = jax.lax.platform_dependent(y, cpu=_used_twice, default=_as_it_is)
    return kept


def _used_twice(y: jax.Array) -> jax.Array:
    return jnp.where(y == y, y, jnp.nan)


def _as_it_is(y: jax.Array) -> jax.Array:
    return y


def forward(
    x: jax.Array,
    norm: Norm,
    known: Moments | None,
    epsilon: float,
    dtype: jnp.dtype,
    plus: jax.Array | None = None,
) -> tuple[Normalized, Saved]:
    """Return what batch_norm does, and what its gradient needs.

    plus [H, W, C]: what each image's x lacks; x + plus is normalized and is in no memory.
    """
    scale, bias, slope = norm
    mean, square = known or moments(x, scale.dtype, plus)
    variance = jnp.maximum(square - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    factor, shift = scale * inverse, bias - mean * scale * inverse

    y = affine(whole(scale.dtype, x, *_all(plus, x)), factor, shift).astype(dtype)
    y = _kept(y) if slope is None else prelu(y, slope)
    result = Normalized(y, mean, variance, factor, shift)
    return result, Saved(x, norm, mean, inverse, plus)


def _all(plus: jax.Array | None, x: jax.Array) -> list[jax.Array]:
    """Return [] or [plus for each image of x]."""
    return [] if plus is None else [jnp.broadcast_to(plus, x.shape)]


def backward(
    epsilon: float, dtype: jnp.dtype, saved: Saved, cotangents: HasY
) -> tuple[jax.Array, Norm, None]:
    """Return the gradients of batch_norm's x, norm and known, of what forward saved."""
    x_bar, norm_bar = gradients(dtype, saved, Made(cotangents.y, [], [], _as_it_is))
    return x_bar, norm_bar, None


class Made(NamedTuple):
    """Gradient y [..., C], and what it is made of.

    remake(y's arrays [..., C], their vectors [C]) makes it once more, of any rows too: GPUs take
    sums of it in the pass that writes it, of what it is made of. Without arrays it is y itself.
    """

    y: jax.Array
    arrays: Sequence[jax.Array]
    vectors: Sequence[jax.Array]
    remake: Remake


def gradients(dtype: jnp.dtype, saved: Saved, made: Made) -> tuple[jax.Array, Norm]:
    """Return the gradients of batch_norm's x and norm, of what forward saved and that of its y."""
    x, (scale, bias, slope), mean, inverse, plus = saved
    y_bar, wide, of_y = made.y, scale.dtype, made.arrays or [made.y]
    factor, shift = scale * inverse, bias - mean * scale * inverse
    lacks, shared = _all(plus, x), bool(made.arrays)
    vectors = [mean] if slope is None else [mean, factor, shift, slope]
    counts = Counts(len(lacks), len(of_y), len(made.vectors))
    term = shared_partial(terms, dtype, made.remake, counts, shared)
    sums = channel_sums(term, [x, *lacks, *of_y], [*made.vectors, *vectors], shared)
    total, centered, *by_slope = sums
    if shared and slope is not None:  # taken with the gradient, of y as it was written
        by_slope = [*channel_sums(shared_partial(slope_terms, dtype), [x, y_bar], vectors[1:])]
    x_whole = whole(wide, x, *lacks)
    if slope is None:
        z_bar = y_bar.astype(wide)
    else:
        broadcast = (1,) * (x.ndim - 1) + (-1,)
        z_bar, _ = before_prelu(dtype, x_whole, y_bar, *(v.reshape(broadcast) for v in vectors[1:]))
    x_bar: jax.Array = jax.lax.platform_dependent(
        *(x_whole, z_bar, (mean, inverse, factor), (total, centered)),
        cuda=_by_channels if slope is not None else _by_elements,
        default=_by_channels,
    )
    slope_bar = None if slope is None else by_slope[0].astype(slope.dtype)
    return x_bar.astype(x.dtype), Norm(centered * inverse, total, slope_bar)


def _by_channels(
    x: jax.Array, z_bar: jax.Array, vectors: Sequence[jax.Array], sums: Sequence[jax.Array]
) -> jax.Array:
    """Return the gradient of batch_norm's x, with all that is the same for a channel together.

    dx = factor * (dz - mean(dz) - (x - mean) * inverse^2 * mean(dz * (x - mean))). z_bar is dz,
    before a PReLU; vectors: mean, inverse and factor; sums: of the two means.
    """
    count, (mean, inverse, factor), (total, centered) = x.size // x.shape[-1], vectors, sums
    along = -factor * jnp.square(inverse) * centered / count
    x_bar = affine(x, along, -factor * total / count - along * mean)
    return x_bar + affine(z_bar, factor, jnp.zeros_like(factor))


def _by_elements(
    x: jax.Array, z_bar: jax.Array, vectors: Sequence[jax.Array], sums: Sequence[jax.Array]
) -> jax.Array:
    """Return what _by_channels does, by element, of which XLA for GPUs makes a kernel less.

    With slopes it would take their sum in a pass of its own then.
    """
    count, shape = x.size // x.shape[-1], (1,) * (x.ndim - 1) + (-1,)
    mean, inverse, factor = (v.reshape(shape) for v in vectors)
    total, centered = (v.reshape(shape) / count for v in sums)
    return (z_bar - total - (x - mean) * inverse * inverse * centered) * factor


def _forward(
    x: jax.Array, norm: Norm, known: Moments | None, epsilon: float, dtype: jnp.dtype
) -> tuple[Normalized, Saved]:
    """Return what forward does, on CPUs by the native kernel, which takes the moments itself."""
    plainly = shared_partial(_normalized, epsilon=epsilon, dtype=dtype)
    if native.suits(x, dtype):
        by_kernel = shared_partial(_normalized_by_kernel, epsilon=epsilon)
        found = jax.lax.platform_dependent(x, norm, known, cpu=by_kernel, default=plainly)
    else:
        found = plainly(x, norm, known)
    result, inverse = found
    return result, Saved(x, norm, result.mean, inverse, None)


def _normalized(
    x: jax.Array, norm: Norm, known: Moments | None, epsilon: float, dtype: jnp.dtype
) -> tuple[Normalized, jax.Array]:
    result, saved = forward(x, norm, known, epsilon, dtype)
    return result, saved.inverse


def _normalized_by_kernel(
    x: jax.Array, norm: Norm, _: Moments | None, epsilon: float
) -> tuple[Normalized, jax.Array]:
    y, mean, variance, inverse = native.forward(x, norm, epsilon)
    factor = norm.scale * inverse
    return Normalized(y, mean, variance, factor, norm.bias - mean * factor), inverse


def _backward(
    epsilon: float, dtype: jnp.dtype, saved: Saved, cotangents: HasY
) -> tuple[jax.Array, Norm, None]:
    """Return what backward does, on CPUs by the native kernel."""
    if not native.suits(saved.x, dtype):
        return backward(epsilon, dtype, saved, cotangents)
    gradients: tuple[jax.Array, Norm, None] = jax.lax.platform_dependent(
        *(saved, cotangents),
        cpu=_gradients_by_kernel,
        default=shared_partial(backward, epsilon, dtype),
    )
    return gradients


def _gradients_by_kernel(saved: Saved, cotangents: HasY) -> tuple[jax.Array, Norm, None]:
    statistics = saved.mean, saved.inverse
    x_bar, by_norm = native.gradient(saved.x, cotangents.y, saved.norm, *statistics)
    return x_bar, Norm(*by_norm), None


batch_norm.defvjp(_forward, _backward)
