"""Convolutions with batch norm, PReLU and a residual's addition in one kernel, for features alone.

Arrays to arrays, on the CPU, float32, without gradients; build.available() must be true.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from uniface_jax.native.convolution import call, divides

TILE = 6  # positions of a side that a tile of Winograd's F(4x4, 3x3) reads


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Affine:
    """Map x [..., C] -> x * scale + shift, both [C]."""

    scale: jax.Array
    shift: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Around:
    """All that is computed with a convolution y = conv(x) [B, H', W', O].

    before: of x, inside of its frame: the zeros of the padding stay. Only where is_winograd().
    after: of y. slope [O]: of the PReLU behind that, none where None. added: [B, H', W', O], added
    to that.
    """

    after: Affine
    before: Affine | None = None
    slope: jax.Array | None = None
    added: jax.Array | None = None


def is_winograd(kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Return True where Winograd's F(4x4, 3x3) computes it; else products over all taps."""
    return (*kernel_shape[:2], stride) == (3, 3, 1) and divides(kernel_shape[2])


def forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, around: Around
) -> jax.Array:
    """Return the convolution of x [B, H, W, C] with kernel [h, h, C, O], O a multiple of a vector.

    H' = (H + 2 padding - h) // stride + 1.
    """
    side, _, channels, outputs = kernel.shape
    height, width = ((size + 2 * padding - side) // stride + 1 for size in x.shape[1:3])
    shape = (x.shape[0], height, width, outputs)
    taps = TILE**2 if is_winograd(kernel.shape, stride) else side**2
    nothing = jnp.zeros((0,), jnp.float32)
    before, after = around.before, around.after
    slope = jnp.ones(outputs, jnp.float32) if around.slope is None else around.slope
    return call(
        "uniface_fused_convolution", shape, taps * channels * outputs + channels, x, kernel,
        nothing if before is None else jnp.stack([before.scale, before.shift]),
        jnp.stack([after.scale, after.shift, slope]),
        nothing if around.added is None else around.added,
        stride=stride, padding=padding,
    )  # fmt: skip
