"""Batch norm, 3x3 convolution, batch norm and PReLU as one function that reads fewer maps.

Nothing but a linear map stands between the first batch norm and the convolution: with s x + t by
channel, conv(s x + t; W) = conv(x; W s) + T, where T, the convolution of t inside of the frame, is
one map for all images, constant but for the border. So the first norm's map is in no memory, and
its gradient needs no sums over maps: those for s and t follow from the gradient for W s, and from
that of T, whose sum over all positions is zero before the second batch norm.

In half precision T is made with the kernel as it was rounded, and what is the same at all positions
is given to the convolution as a bias, before it rounds; the border is added where the map is read.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.models import channels
from uniface_jax.models.channels import Moments, Norm
from uniface_jax.models.convolution import TO_CUDNN, TO_FLAX, plain, plain_gradients

_AXES = ((-1, 1, 1), (1, -1, 1))  # of rows and of columns in [H, W, O]


class Map(NamedTuple):
    """Map [B, H, W, C] between two blocks, twice: for a head, and again for the shortcut.

    along, level [C] are zeros for the head, that it gives a gradient for: that of y lacks
    along * y + level, which is then in no memory, but in the sum that `join` takes. known: the
    moments of y. Where nothing is folded along and level are None. As a head's gradient, `again`
    and `known` are.
    """

    y: jax.Array
    again: jax.Array | None
    along: jax.Array | None
    level: jax.Array | None
    known: Moments | None


class Joined(NamedTuple):
    """Map at the end of a block, as in Map, and the results of its batch norm: see Normalized."""

    y: jax.Array
    again: jax.Array
    along: jax.Array
    level: jax.Array
    norm: channels.Normalized


class Head(NamedTuple):
    """Map [B, H, W, O] after all four, and mean and biased variance of either norm's input."""

    y: jax.Array
    first: Moments
    second: Moments


class _Saved(NamedTuple):
    x: jax.Array
    kernel: jax.Array
    first: Norm
    mean: jax.Array
    inverse: jax.Array
    second: channels.Saved


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def join(x: jax.Array, norm: Norm, beside: jax.Array | None, epsilon: float) -> Joined:
    """Normalize x [B, H, W, C] as batch_norm does, and add `beside`, a map like it, or nothing."""
    return _join_forward(x, norm, beside, epsilon)[0]


def _join_forward(
    x: jax.Array, norm: Norm, beside: jax.Array | None, epsilon: float
) -> tuple[Joined, tuple[channels.Saved, jax.Array | None]]:
    out, saved = channels.forward(x, norm, None, epsilon, x.dtype)
    y, none = out.y if beside is None else out.y + beside, jnp.zeros_like(norm.scale)
    return Joined(y, y, none, none, out), (saved, None if beside is None else y)


def _join_backward(
    epsilon: float, kept: tuple[channels.Saved, jax.Array | None], cotangents: Joined
) -> tuple[jax.Array, Norm, jax.Array | None]:
    saved, y = kept
    x, norm, factor = saved.x, saved.norm, saved.norm.scale * saved.inverse
    arrays, vectors = [cotangents.y, cotangents.again], [cotangents.along, cotangents.level]
    if y is not None:
        arrays.append(y)
    else:  # which is made of x once more, instead of read
        arrays.append(x)
        vectors += [factor, norm.bias - saved.mean * factor]
        vectors += [] if norm.slope is None else [norm.slope]

    total = jax.lax.optimization_barrier(_total(*arrays, *vectors))
    made = channels.Made(total, arrays, vectors, _total)
    x_bar, norm_bar = channels.gradients(x.dtype, saved, made)
    return x_bar, norm_bar, None if y is None else total


def _total(
    y_bar: jax.Array, again: jax.Array, y: jax.Array, along: jax.Array, level: jax.Array,
    *of_x: jax.Array,
) -> jax.Array:  # fmt: skip
    """Return the gradient of a join's y, of which a head gave two parts, and what the third lacks.

    of_x: where y is the join's x, its factor and shift, and the slope if it has one.
    """
    if of_x:
        y = channels.affine(y.astype(along.dtype), *of_x[:2]).astype(y_bar.dtype)
        y = channels.prelu(y, *of_x[2:]) if of_x[2:] else y
    wide = y_bar.astype(along.dtype) + channels.affine(y.astype(along.dtype), along, level)
    return wide.astype(y_bar.dtype) + again


join.defvjp(_join_forward, _join_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def head(between: Map, kernel: jax.Array, first: Norm, second: Norm, epsilon: float) -> Head:
    """Compute PReLU(norm(conv(norm(x)))) of x = between.y, with this batch's statistics.

    x [B, H, W, C], H and W at least 2; kernel [3, 3, C, O] of stride 1, padded by one zero, and the
    norms' parameters are float32 at least. The gradient for x is in three parts, see Map. Nothing
    is differentiated through the statistics as outputs.
    """
    return _forward(between, kernel, first, second, epsilon)[0]


def _forward(
    between: Map, kernel: jax.Array, first: Norm, second: Norm, epsilon: float
) -> tuple[Head, _Saved]:
    x, known = between.y, between.known
    mean, square = known or channels.moments(x, kernel.dtype)
    variance = jnp.maximum(square - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    # Held as cuDNN takes it: nothing is transposed between here and the convolution.
    kernel = jax.lax.optimization_barrier(kernel.transpose(TO_CUDNN)).transpose(TO_FLAX)
    rounded = _scaled(kernel, first.scale * inverse, x.dtype)
    # What each tap makes of a map that is the shift everywhere, [3, 3, O].
    lost = rounded.astype(kernel.dtype) * _by_input(mean)
    taps = jax.lax.optimization_barrier(jnp.sum(kernel * _by_input(first.bias) - lost, 2))
    within = jnp.sum(taps, (0, 1))
    bias = within.astype(x.dtype)
    y = jax.lax.platform_dependent(x, rounded, bias, cuda=_by_cudnn, default=_rounded_once)
    cut = (within - bias.astype(within.dtype)).reshape(1, 1, -1)
    border = cut - _outside(taps, x.shape[1:3])
    out, saved = channels.forward(y, second, None, epsilon, x.dtype, border)
    result = Head(out.y, (mean, variance), (out.mean, out.variance))
    return result, _Saved(x, kernel, first, mean, inverse, saved)


def _backward(epsilon: float, saved: _Saved, cotangents: Head) -> tuple[Map, jax.Array, Norm, Norm]:
    x, kernel, first, mean, inverse, second = saved
    y_bar, second_bar, _ = channels.backward(epsilon, x.dtype, second, cotangents)
    scale = first.scale * inverse
    shift = first.bias - mean * scale
    x_bar, scaled_bar = plain_gradients(x, _scaled(kernel, scale, x.dtype), y_bar, 1, 1)
    scaled_bar, by_taps = scaled_bar.astype(kernel.dtype), _sums_by_tap(y_bar, kernel.dtype)
    kernel_bar = scaled_bar * _by_input(scale) + _by_input(shift) * by_taps[:, :, None]
    in_cudnn_order = [
        x.transpose(TO_CUDNN)
        for x in (kernel, scaled_bar, jnp.broadcast_to(by_taps[:, :, None], kernel.shape))
    ]
    shift_bar, by_scaled = channels.channel_sums(_by_kernel, in_cudnn_order)
    # Of the deviations from the mean: x's own gradient would be that of scale with shift's in it.
    scale_bar = by_scaled - mean * shift_bar
    count = x.size // x.shape[-1]
    along = -scale * jnp.square(inverse) * scale_bar / count
    level = -scale * shift_bar / count - along * mean
    first_bar = Norm(scale_bar * inverse, shift_bar, None)
    return Map(x_bar, None, along, level, None), kernel_bar, first_bar, second_bar


head.defvjp(_forward, _backward)


def _by_cudnn(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolve, plus a bias [O], as XLA hands it to cuDNN in one: it adds before it rounds."""
    return plain(x, kernel, 1, 1) + bias.reshape(1, 1, 1, -1)


def _rounded_once(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolve, plus a bias [O], rounded once where XLA would round twice."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y = _by_cudnn(*(array.astype(wide) for array in (x, kernel, bias)))
    return y.astype(x.dtype)


def _scaled(kernel: jax.Array, scale: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return (kernel * _by_input(scale)).astype(dtype)


def _by_input(vector: jax.Array) -> jax.Array:
    """Return a vector [C] as it goes with a kernel [3, 3, C, O]."""
    return vector.reshape(1, 1, -1, 1)


def _outside(taps: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Return [H, W, O]: at each position the sum of the taps [3, 3, O] outside of the frame."""
    row, column = (jnp.arange(n).reshape(shape) for n, shape in zip(size, _AXES, strict=True))
    above = (row == 0, jnp.zeros_like(row, bool), row == size[0] - 1)
    beside = (column == 0, jnp.zeros_like(column, bool), column == size[1] - 1)
    terms = [
        jnp.where(above[i] | beside[j], taps[i, j].reshape(1, 1, -1), 0)
        for i in range(3)
        for j in range(3)
        if (i, j) != (1, 1)
    ]
    return sum(terms[1:], terms[0])


def _sums_by_tap(y_bar: jax.Array, wide: jnp.dtype) -> jax.Array:
    """Return the sums [3, 3, O] of y_bar over the positions where each tap lies in the frame.

    That is minus the sums over the positions where it does not: the sum over all is zero, but for
    what rounding makes of it, since a batch norm follows.
    """
    batch, height, width, outputs = y_bar.shape
    lines = (y_bar[:, :: height - 1], y_bar[:, :, :: width - 1].swapaxes(1, 2))
    longest, terms = max(height, width), []
    for line, signs in zip(lines, _signs(height, width), strict=True):
        edges = jnp.sum(line.reshape(batch, -1, outputs).astype(wide), 0).reshape(line.shape[1:])
        signed = jnp.asarray(signs, wide)[..., None] * edges[:, None, None]
        padding = [(0, 0), (0, 0), (0, longest - signed.shape[3]), (0, 0)]
        terms += [jnp.pad(x, padding) for x in signed]
    taps: jax.Array = jax.lax.optimization_barrier(jnp.sum(sum(terms[1:], terms[0]), 2))
    return taps


def _by_kernel(
    kernel: jax.Array, scaled_bar: jax.Array, by_taps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return kernel * by_taps, kernel * scaled_bar


def _signs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each position of _sums_by_tap's lines counts for each tap, [2, 3, 3, P].

    The lines are the first and the last row, then the first and the last column: a corner is in
    two of them.
    """
    rows, columns = np.zeros((2, 3, 3, width)), np.zeros((2, 3, 3, height))
    for end in (0, 1):
        rows[end, 2 * end] -= 1
        columns[end, :, 2 * end] -= 1
        for side in (0, 1):
            rows[end, 2 * end, 2 * side, side * (width - 1)] += 1
    return rows, columns
