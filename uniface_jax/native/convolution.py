"""Convolutions and their gradients: arrays to arrays, on the CPU, float32, kernels square.

x [B, H, W, C], kernel [h, h, C, O], y [B, H', W', O] with H' = (H + 2 padding - h) // stride + 1.
The last axis of the result must divide by build.vector_width(), and build.available() be true.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.native import build

# Sums of the kernel's gradient that threads have for themselves, and the largest kernel, in floats,
# that has them: a core's cache holds one beside the maps.
PARTS, LARGEST_PART_FLOATS = 8, 2**17
# Positions of a map from where on Winograd's tiles are of 4x4 outputs: more of each hangs over the
# borders of smaller ones, and their kernels, which have more channels, grow by more (measured).
FEWEST_BY_FOUR = 14 * 14


def divides(channels: int) -> bool:
    """Return True where results may have so many channels."""
    return channels % build.vector_width() == 0


def is_winograd(kernel_shape: tuple[int, ...], stride: int, padding: int) -> bool:
    """Return True where Winograd's F(2x2, 3x3) or F(4x4, 3x3) computes it, with fewer products."""
    sizes = (*kernel_shape[:2], stride) == (3, 3, 1) and padding <= 2
    return sizes and divides(kernel_shape[2]) and divides(kernel_shape[3])


def winograd_tile(height: int, width: int) -> int:
    """Return the outputs along a side of Winograd's tiles, for maps of outputs of this size."""
    return 4 if height * width >= FEWEST_BY_FOUR else 2


def call(
    name: str, shape: tuple[int, ...], scratch: int | None, *arrays: jax.Array, **attributes: int
) -> jax.Array:
    """Call a kernel whose result has `shape`, with `scratch` floats to work in if it takes any."""
    shapes = [tuple(shape), *([] if scratch is None else [(max(scratch, 1),)])]
    results = [jax.ShapeDtypeStruct(of, jnp.float32) for of in shapes]
    called = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    result: jax.Array = called(*arrays, **{key: np.int32(n) for key, n in attributes.items()})[0]
    return result


def forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Return y, the convolution of x with the kernel."""
    side, _, channels, outputs = kernel.shape
    height, width = ((size + 2 * padding - side) // stride + 1 for size in x.shape[1:3])
    shape = (x.shape[0], height, width, outputs)
    if is_winograd(kernel.shape, stride, padding):
        tile = winograd_tile(height, width)
        size = build.scratch("UnifaceWinogradScratch", channels, outputs, tile)
        return call("uniface_winograd", shape, size, x, kernel, padding=padding, tile=tile)
    return call(
        "uniface_convolution", shape, kernel.size + channels, x, kernel,
        stride=stride, padding=padding,
    )  # fmt: skip


def input_gradient(
    y_bar: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the gradient with respect to x, of `shape`."""
    side, _, _, outputs = kernel.shape
    transposed = kernel.transpose(0, 1, 3, 2)
    if stride == 1 and padding < side:
        return forward(y_bar, transposed[::-1, ::-1], 1, side - 1 - padding)
    return call(
        "uniface_input_gradient", shape, kernel.size + outputs, y_bar, transposed,
        stride=stride, padding=padding,
    )  # fmt: skip


def kernel_gradient(
    x: jax.Array, y_bar: jax.Array, shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Return the gradient with respect to the kernel, of `shape`."""
    if is_winograd(shape, stride, padding):
        batch, height, width, _ = y_bar.shape
        tile = winograd_tile(height, width)
        tiles = batch * -(-height // tile) * -(-width // tile)
        size = build.scratch("UnifaceWinogradKernelScratch", *shape[2:], tiles, tile)
        return call(
            "uniface_winograd_kernel_gradient", shape, size, x, y_bar, padding=padding, tile=tile
        )
    size = math.prod(shape)
    parts = PARTS if size <= LARGEST_PART_FLOATS else 0
    return call(
        "uniface_kernel_gradient", shape, parts * size, x, y_bar,
        stride=stride, padding=padding, parts=parts,
    )  # fmt: skip
