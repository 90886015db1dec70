"""Convolutions, self-attention and their gradients in float64 by NumPy, from their definitions.

Numbers to hold kernels to, which share nothing with them; products of whole maps, so that a
network's own shapes take a second and not minutes as XLA's loops for float64 do.
"""

import itertools

import numpy as np


def convolution(
    x: np.ndarray, kernel: np.ndarray, y_bar: np.ndarray, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y [B, H', W', O] and the gradients by x [B, H, W, C] and kernel [h, w, D, O].

    In groups of D inputs, whose outputs lie behind each other. y_bar: the gradient by y.
    """
    x, kernel, y_bar = (np.asarray(array, np.float64) for array in (x, kernel, y_bar))
    groups = x.shape[3] // kernel.shape[2]
    around = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = y_bar.shape[1:3]
    y, by_around, by_kernel = np.zeros_like(y_bar), np.zeros_like(around), np.zeros_like(kernel)
    for i, j in itertools.product(*map(range, kernel.shape[:2])):
        met = (
            slice(None),
            slice(i, i + (rows - 1) * stride + 1, stride),
            slice(j, j + (columns - 1) * stride + 1, stride),
        )
        # [groups, positions, D], [groups, positions, O / groups] and [groups, D, O / groups].
        of_x, of_y = by_group(around[met], groups), by_group(y_bar, groups)
        weights = by_group(kernel[i, j], groups)
        y += by_position(of_x @ weights, y.shape)
        by_around[met] += by_position(of_y @ weights.swapaxes(1, 2), around[met].shape)
        by_kernel[i, j] = by_position(of_x.swapaxes(1, 2) @ of_y, kernel.shape[2:])
    height, width = x.shape[1:3]
    return y, by_around[:, padding : padding + height, padding : padding + width], by_kernel


def by_group(array: np.ndarray, groups: int) -> np.ndarray:
    """Return [..., C] as [groups, positions, C / groups]."""
    return array.reshape(-1, groups, array.shape[-1] // groups).swapaxes(0, 1)


def by_position(grouped: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return [groups, positions, C / groups] as an array of `shape`, [..., C]."""
    return grouped.swapaxes(0, 1).reshape(shape)


def attention(qkv: np.ndarray, mixed_bar: np.ndarray, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return softmax(q k' / sqrt(d)) v [B, N, heads, d] of qkv [B, N, 3 heads d], and its gradient.

    mixed_bar [B, N, heads, d]: the gradient by the result.
    """
    batch, tokens, width = qkv.shape
    size = width // 3 // heads
    by_part = np.asarray(qkv, np.float64).reshape(batch, tokens, 3, heads, size)
    query, key, value = by_part.transpose(2, 0, 3, 1, 4)  # [B, heads, N, d] each
    of_mixed = np.asarray(mixed_bar, np.float64).transpose(0, 2, 1, 3)
    logits = query @ key.swapaxes(2, 3) / np.sqrt(size)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    by_weights = of_mixed @ value.swapaxes(2, 3)
    mean = (weights * by_weights).sum(-1, keepdims=True)
    by_products = weights * (by_weights - mean) / np.sqrt(size)
    gradients = np.stack(
        [by_products @ key, by_products.swapaxes(2, 3) @ query, weights.swapaxes(2, 3) @ of_mixed]
    )
    by_qkv = gradients.transpose(1, 3, 0, 2, 4).reshape(qkv.shape)
    return (weights @ value).transpose(0, 2, 1, 3), by_qkv
