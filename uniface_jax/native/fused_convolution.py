"""Convolutions with batch norm, PReLU and a residual's addition in one kernel, for features alone.

Arrays to arrays, on the CPU, float32, without gradients; build.available() must be true.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from uniface_jax.native import build, depthwise
from uniface_jax.native.convolution import call, divides

# On smaller maps more time goes into the kernel's transformation than its fewer products save.
FEWEST_POSITIONS = 14 * 14


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

    before: of x, inside of its frame: the zeros of the padding stay.
    after: of y. slope [O]: of the PReLU behind that, none where None. added: [B, H', W', O], added
    to that.
    """

    after: Affine
    before: Affine | None = None
    slope: jax.Array | None = None
    added: jax.Array | None = None


def is_winograd(shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Return True where Winograd's F(4x4, 3x3) computes it; else products over all taps.

    It does not depend on the number of images, so that an image's result does not.
    """
    suited = (*kernel_shape[:2], stride) == (3, 3, 1) and divides(kernel_shape[2])
    return suited and shape[1] * shape[2] >= FEWEST_POSITIONS


def forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, around: Around
) -> jax.Array:
    """Return the convolution of x [B, H, W, C] with kernel [h, h, C, O], O a multiple of a vector.

    H' = (H + 2 padding - h) // stride + 1. A kernel [h, h, D, C] of fewer channels convolves in
    groups: depthwise.suits() must be true of it, and `after` and `slope` alone be around.
    """
    if kernel.shape[2] != x.shape[3]:
        return _in_groups(x, kernel, stride, padding, around)
    side, _, channels, outputs = kernel.shape
    height, width = ((size + 2 * padding - side) // stride + 1 for size in x.shape[1:3])
    shape = (x.shape[0], height, width, outputs)
    before, after = around.before, around.after
    winograd = is_winograd(x.shape, kernel.shape, stride)
    size = build.scratch("UnifaceFusedScratch", side, channels, outputs, int(winograd))
    if before is not None and not winograd:
        scale, shift = (v.reshape(1, 1, 1, -1) for v in (before.scale, before.shift))
        x, before = x * scale + shift, None
    nothing = jnp.zeros((0,), jnp.float32)
    slope = jnp.ones(outputs, jnp.float32) if around.slope is None else around.slope
    return call(
        "uniface_fused_convolution", shape, size, x, kernel,
        nothing if before is None else jnp.stack([before.scale, before.shift]),
        jnp.stack([after.scale, after.shift, slope]),
        nothing if around.added is None else around.added,
        stride=stride, padding=padding, winograd=int(winograd),
    )  # fmt: skip


def _in_groups(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, around: Around
) -> jax.Array:
    assert around.before is None
    assert around.added is None
    after = around.after
    slope = jnp.ones_like(after.shift) if around.slope is None else around.slope
    scaled = kernel * after.scale.reshape(1, 1, 1, -1)
    return depthwise.forward(x, scaled, stride, padding, (after.shift, slope))
