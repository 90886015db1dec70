"""Convolutions as in PyTorch, with gradients that are fast on CPUs as well.

On accelerators, and in whatever is exported, these are lax's convolutions. Where a CPU trains or
computes features (native_kernels), large maps go through the native kernels (uniface_jax.native),
if the machine could compile them; else strided convolutions have input gradients by products over
patches: XLA makes a convolution over a map with holes of them, of which it multiplies the zeros.
What measured best is chosen by shape (scripts/bench_conv.py), when the program is lowered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp

from uniface_jax.native import build
from uniface_jax.native import convolution as native
from uniface_jax.runtime.tracing import shared_partial

LAYOUT = ("NHWC", "HWIO", "NHWC")
TO_CUDNN, TO_FLAX = (3, 0, 1, 2), (1, 2, 3, 0)  # of kernels: [h, w, C, O] to [O, h, w, C], and back
# On smaller input maps XLA's own are no slower (measured).
FEWEST_POSITIONS, FEWEST_BY_WINOGRAD = 28 * 28, 7 * 7

_NATIVE = ContextVar("native kernels without training", default=False)

# (x, kernel, y_bar) -> the gradients with respect to x and kernel; None leaves the latter to lax.
Product = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolve x [B, H, W, C] with kernel [h, w, C, O] -> [B, H', W', O], padded by zeros.

    H' = (H + 2 padding - h) // stride + 1. No bias; x and kernel have one dtype.
    """
    return plain(x, kernel, stride, padding)


def plain(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolve as `convolve` does, by lax alone; in groups of the kernel's third axis."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=LAYOUT,
        feature_group_count=x.shape[3] // kernel.shape[2],
    )  # fmt: skip


@contextmanager
def native_kernels(wanted: bool = True) -> Iterator[None]:
    """Let networks traced inside the block convolve by the native kernels on CPUs, where `wanted`.

    For features that are computed here. What is traced outside of it, an export above all, holds
    lax's convolutions alone.
    """
    before = _NATIVE.set(wanted)
    try:
        yield
    finally:
        _NATIVE.reset(before)


def in_use(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolve as `convolve` does; inside native_kernels by these, and then without gradients."""
    if not _NATIVE.get():
        return convolve(x, kernel, stride, padding)
    y, _ = _forward(x, kernel, stride, padding)
    return y


def plain_gradients(
    x: jax.Array, kernel: jax.Array, y_bar: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of `plain` with respect to x and kernel."""
    convolved = partial(plain, stride=stride, padding=padding)
    by_x, by_kernel = jax.vjp(convolved, x, kernel)[1](y_bar)
    return by_x, by_kernel


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    suited = _native(x, kernel, stride, padding) and stride == 1
    if not (suited and native.divides(kernel.shape[3])):
        return plain(x, kernel, stride, padding), (x, kernel)
    ours, lax = (shared_partial(f, stride=stride, padding=padding) for f in (native.forward, plain))
    return jax.lax.platform_dependent(x, kernel, cpu=ours, default=lax), (x, kernel)


def _native(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> bool:
    """Return True where the native kernels can take part and are faster for the map."""
    if x.dtype != jnp.float32 or kernel.dtype != jnp.float32 or not build.available():
        return False
    fewest = FEWEST_POSITIONS
    if native.is_winograd(kernel.shape, stride, padding):
        fewest = FEWEST_BY_WINOGRAD
    elif kernel.shape[0] == stride == 1:
        fewest = 1  # XLA transposes both maps for a product over all positions
    return bool(x.shape[1] * x.shape[2] >= fewest and kernel.shape[0] == kernel.shape[1])


def _backward(
    stride: int, padding: int, saved: tuple[jax.Array, jax.Array], y_bar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    sizes = {"stride": stride, "padding": padding}
    product, ours = _gradients(x.shape, kernel.shape, **sizes), _native(x, kernel, **sizes)
    by_x, by_kernel = jax.lax.platform_dependent(
        *(x, kernel, y_bar),
        cpu=shared_partial(_gradients_on_cpu, (product, ours), **sizes),
        default=shared_partial(plain_gradients, **sizes),
    )
    return by_x, by_kernel


def _gradients_on_cpu(
    forms: tuple[Product | None, bool],
    x: jax.Array,
    kernel: jax.Array,
    y_bar: jax.Array,
    stride: int,
    padding: int,
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients by the first of `forms`, if any, in its place by ours if the second."""
    product, ours = forms
    by_x, by_kernel = plain_gradients(x, kernel, y_bar, stride, padding)
    if product is not None:
        faster_x, faster_kernel = product(x, kernel, y_bar)
        by_x, by_kernel = faster_x, by_kernel if faster_kernel is None else faster_kernel
    if ours and native.divides(kernel.shape[2]):
        by_x = native.input_gradient(y_bar, kernel, x.shape, stride, padding)
    if ours and native.divides(kernel.shape[3]):
        by_kernel = native.kernel_gradient(x, y_bar, kernel.shape, stride, padding)
    return by_x, by_kernel


convolve.defvjp(_forward, _backward)


def _gradients(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int, padding: int
) -> Product | None:
    """Return the gradients as products for these shapes; None where lax's own are as fast."""
    height, width = shape[1:3]
    square = kernel_shape[0] == kernel_shape[1]
    even = height % 2 == width % 2 == 0
    if not square or stride != 2 or not even or height * width < FEWEST_POSITIONS:
        return None
    match kernel_shape[0], padding:
        case 1, 0:
            return _of_one
        case 2, 0:
            return _of_two
        case 3, 1:
            return _of_three
    return None


def _of_one(x: jax.Array, kernel: jax.Array, y_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute kernel 1, stride 2: every other row and column takes part, in one product each."""
    taken = x[:, ::2, ::2]
    by_taken = jnp.einsum("bhwo,co->bhwc", y_bar, kernel[0, 0])
    by_x = jax.lax.pad(
        by_taken, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0)]
    )
    rows = y_bar.reshape(-1, y_bar.shape[-1])
    by_kernel = taken.reshape(-1, taken.shape[-1]).T @ rows
    return by_x, by_kernel[None, None]


def _of_two(x: jax.Array, kernel: jax.Array, y_bar: jax.Array) -> tuple[jax.Array, None]:
    """Compute kernel 2, stride 2: patches do not overlap, so that each is one product's row."""
    channels, outputs = kernel.shape[2:]
    batch, height, width = y_bar.shape[:3]
    patches = y_bar.reshape(-1, outputs) @ kernel.reshape(-1, outputs).T
    patches = patches.reshape(batch, height, width, 2, 2, channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape), None


def _of_three(x: jax.Array, kernel: jax.Array, y_bar: jax.Array) -> tuple[jax.Array, None]:
    """Compute kernel 3, stride 2, padding 1: a dense convolution of y_bar, 4 times the channels.

    Over patches of 2x2 of x the convolution is one of kernel 2 and stride 1, with taps of zero
    where the 3x3 kernel does not reach; this is that convolution's gradient.
    """
    batch, height, width = y_bar.shape[:3]
    channels, outputs = kernel.shape[2:]
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    taps = taps.reshape(2, 2, 2, 2, channels, outputs).transpose(0, 2, 1, 3, 4, 5)
    taps = taps.reshape(2, 2, 4 * channels, outputs)[::-1, ::-1].transpose(0, 1, 3, 2)
    patches = jax.lax.conv_general_dilated(
        y_bar, taps, (1, 1), ((0, 1), (0, 1)), dimension_numbers=LAYOUT
    )
    patches = patches.reshape(batch, height, width, 2, 2, channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape), None
