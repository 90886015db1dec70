"""Convolutions in groups of few channels, and gradients: arrays to arrays, on the CPU, float32.

x [B, H, W, C], kernel [h, h, D, C], y [B, H', W', C] with H' = (H + 2 padding - h) // stride + 1:
groups of D channels in and out, 1 for a depthwise convolution. suits() must be true of the kernel.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.native import build
from uniface_jax.native.convolution import PARTS, call, divides

GROUPS, MOST_TAPS = (1, 2, 4), 7  # channels of a group, and taps of a side, that the kernels know


def suits(kernel_shape: tuple[int, ...]) -> bool:
    """Return True where the kernels can compute it, and are there."""
    height, width, channels, outputs = kernel_shape
    known = channels in GROUPS and height == width <= MOST_TAPS
    return known and build.available() and divides(outputs)


def _by_diagonals(kernel: jax.Array) -> jax.Array:
    """Return the weights [h, w, D, C] that output channel c has for input channel c ^ d.

    That is its own inverse.
    """
    channels, outputs = kernel.shape[2:]
    if channels == 1:
        return kernel
    number = np.arange(outputs)[None] % channels ^ np.arange(channels)[:, None]
    return jnp.take_along_axis(kernel, number[None, None], axis=2)


def _transposed(kernel: jax.Array) -> jax.Array:
    """Return the kernel whose inputs are this one's outputs."""
    height, width, channels, outputs = kernel.shape
    if channels == 1:
        return kernel
    by_group = kernel.reshape(height, width, channels, outputs // channels, channels)
    return by_group.swapaxes(2, 4).reshape(kernel.shape)


def forward(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: int,
    after: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Return y, the convolution of x with the kernel.

    after: bias and slopes [C] of a PReLU that are applied to y before it is written, for features
    alone: there is no gradient.
    """
    side = kernel.shape[0]
    height, width = ((size + 2 * padding - side) // stride + 1 for size in x.shape[1:3])
    shape = (x.shape[0], height, width, x.shape[3])
    name = "uniface_depthwise" if after is None else "uniface_fused_grouped"
    arrays = (x, _by_diagonals(kernel), *(() if after is None else (jnp.stack(after),)))
    return call(name, shape, None, *arrays, stride=stride, padding=padding)


def input_gradient(
    y_bar: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the gradient with respect to x, of `shape`."""
    side, transposed = kernel.shape[0], _transposed(kernel)
    if stride == 1 and padding < side:
        return forward(y_bar, transposed[::-1, ::-1], 1, side - 1 - padding)
    return call(
        "uniface_depthwise_input_gradient", shape, None, y_bar, _by_diagonals(transposed),
        stride=stride, padding=padding,
    )  # fmt: skip


def kernel_gradient(
    x: jax.Array, y_bar: jax.Array, shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the gradient with respect to the kernel, of `shape`."""
    weights = call(
        "uniface_depthwise_kernel_gradient", shape, PARTS * math.prod(shape), x, y_bar,
        stride=stride, padding=padding, parts=PARTS,
    )  # fmt: skip
    return _by_diagonals(weights)
