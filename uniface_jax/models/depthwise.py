"""Convolutions in groups as in PyTorch, in forms that are fast on CPUs as well.

XLA's CPU backend has a loop without any blocking for them, 20 to 300 times slower than one shifted
product a tap, which it fuses into a single loop (scripts/bench_conv.py). A convolution in many
groups of few channels is a sum of depthwise ones. Trained on a CPU in float32 they are native
kernels (uniface_jax.native), where the machine could compile them. Which form a program gets is
chosen when it is lowered.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp

from uniface_jax.models.channels import channel_sums
from uniface_jax.models.convolution import plain, plain_gradients
from uniface_jax.native import depthwise as native
from uniface_jax.runtime.tracing import shared_partial

# Depthwise convolutions that one in groups may be a sum of.
MOST_PARTS = 16


def convolve_grouped(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolve x [B, H, W, C] with kernel [h, w, C / groups, O] -> [B, H', W', O].

    H' = (H + 2 padding - h) // stride + 1; padded by zeros, no bias; x and kernel have one dtype.
    """
    inputs, outputs = _by_group(x, kernel)
    if inputs * outputs <= MOST_PARTS:
        return _grouped(x, kernel, stride, padding)
    return plain(x, kernel, stride, padding)


def _by_group(x: jax.Array, kernel: jax.Array) -> tuple[int, int]:
    """Return how many channels a group has in x and in the result."""
    inputs = kernel.shape[2]
    return inputs, kernel.shape[3] * inputs // x.shape[3]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _grouped(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    forms = (_by_parts, plain)
    parts, lax = (shared_partial(f, stride=stride, padding=padding) for f in forms)
    y: jax.Array = jax.lax.platform_dependent(x, kernel, cpu=parts, default=lax)
    return y


def _by_parts(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Add up depthwise convolutions of every input of a group with every output of it."""
    inputs, outputs = _by_group(x, kernel)
    # Not by indexing, see _shifted.
    maps = [jax.lax.slice_in_dim(x, i, None, inputs, axis=3) for i in range(inputs)]

    def output(o: int) -> jax.Array:
        weights = [kernel[:, :, i : i + 1, o::outputs] for i in range(inputs)]
        terms = [_by_taps(m, w, stride, padding) for m, w in zip(maps, weights, strict=True)]
        return sum(terms[1:], terms[0])

    return _interleaved([output(o) for o in range(outputs)])


def _interleaved(parts: list[jax.Array]) -> jax.Array:
    """Return [..., G n] of n arrays [..., G], whose element g is followed by the next one's."""
    if len(parts) == 1:
        return parts[0]
    return jnp.stack(parts, -1).reshape(*parts[0].shape[:-1], -1)


def _shifted(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> list[tuple[tuple[int, int], jax.Array]]:
    """List for every tap (i, j) the pixels [B, H', W', C] that it meets in x [B, H, W, C]."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((x.shape[1 + i] - kernel.shape[i]) // stride + 1 for i in (0, 1))

    def met(i: int, j: int) -> jax.Array:
        # Not by indexing, which becomes a gather where the batch is symbolic, as in exports.
        rows = jax.lax.slice_in_dim(x, i, i + (height - 1) * stride + 1, stride, axis=1)
        return jax.lax.slice_in_dim(rows, j, j + (width - 1) * stride + 1, stride, axis=2)

    taps = itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))
    return [((i, j), met(i, j)) for i, j in taps]


def _by_taps(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    if kernel.shape[:2] == x.shape[1:3] and not padding:
        return jnp.sum(x * kernel[None, :, :, 0], (1, 2), keepdims=True)
    met = _shifted(x, kernel, stride, padding)
    terms = [part * kernel[None, None, i, j] for (i, j), part in met]
    return sum(terms[1:], terms[0])


def _native(x: jax.Array, kernel: jax.Array) -> bool:
    """Return True where the native kernels can take part and are faster."""
    whole = kernel.shape[:2] == x.shape[1:3]
    single = x.dtype == kernel.dtype == jnp.float32
    return single and not whole and kernel.shape[3] == x.shape[3] and native.suits(kernel.shape)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    if not _native(x, kernel):
        return _grouped(x, kernel, stride, padding), (x, kernel)
    forms = (native.forward, plain)
    ours, lax = (shared_partial(f, stride=stride, padding=padding) for f in forms)
    return jax.lax.platform_dependent(x, kernel, cpu=ours, default=lax), (x, kernel)


def _backward(
    stride: int, padding: int, saved: tuple[jax.Array, jax.Array], y_bar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    forms = (_native_gradients if _native(*saved) else _gradients_by_parts, plain_gradients)
    cpu, lax = (shared_partial(f, stride=stride, padding=padding) for f in forms)
    by_x, by_kernel = jax.lax.platform_dependent(*saved, y_bar, cpu=cpu, default=lax)
    return by_x, by_kernel


def _native_gradients(
    x: jax.Array, kernel: jax.Array, y_bar: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    return (
        native.input_gradient(y_bar, kernel, x.shape, stride, padding),
        native.kernel_gradient(x, y_bar, kernel.shape, stride, padding),
    )


def _gradients_by_parts(
    x: jax.Array, kernel: jax.Array, y_bar: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of _by_parts by x and by kernel."""
    inputs, outputs = _by_group(x, kernel)
    by_x, by_kernel = [], []
    for i in range(inputs):
        each = [
            _gradients_by_taps(
                x[..., i::inputs], kernel[:, :, i : i + 1, o::outputs], y_bar[..., o::outputs],
                stride, padding,
            )
            for o in range(outputs)
        ]  # fmt: skip
        of_map, of_weights = zip(*each, strict=True)
        by_x.append(sum(of_map[1:], of_map[0]))
        by_kernel.append(_interleaved(list(of_weights)))
    return _interleaved(by_x), jnp.concatenate(by_kernel, 2)


def _gradients_by_taps(
    x: jax.Array, kernel: jax.Array, y_bar: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of _by_taps by x and by kernel."""
    taps = kernel.shape[0]
    if kernel.shape[:2] == x.shape[1:3] and not padding:
        return y_bar * kernel[None, :, :, 0], jnp.sum(x * y_bar, 0)[:, :, None]
    # The transpose is a convolution of y_bar, with zeros between the strides, with the kernel
    # turned round.
    height, width = x.shape[1:3]
    zero = jnp.zeros((), y_bar.dtype)
    before = taps - 1 - padding
    spread = [(size - 1) * stride + 1 for size in y_bar.shape[1:3]]
    behind = [n + taps - 1 - before - size for n, size in zip((height, width), spread, strict=True)]
    edges = [(0, 0, 0), *((before, after, stride - 1) for after in behind), (0, 0, 0)]
    by_x = _by_taps(jax.lax.pad(y_bar, zero, edges), kernel[::-1, ::-1], 1, 0)
    met = _shifted(x, kernel, stride, padding)
    sums = channel_sums(_products, [y_bar, *(part for _, part in met)])
    return by_x, jnp.stack(sums).reshape(kernel.shape)


def _products(y_bar: jax.Array, *parts: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(part * y_bar for part in parts)


_grouped.defvjp(_forward, _backward)
