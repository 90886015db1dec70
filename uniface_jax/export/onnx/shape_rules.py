"""Rules of rules.py that move elements about and compute nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from uniface_jax.export.onnx.graph import (
    Concat,
    Expand,
    Node,
    Pad,
    Reshape,
    Slice,
    Transpose,
)
from uniface_jax.export.onnx.values import Flat, Shape, Value


def sliced(
    x: Node,
    *,
    start_indices: Sequence[int],
    limit_indices: Sequence[int],
    strides: Sequence[int] | None,
    out: Shape,
    **_: Any,
) -> Value | None:
    """Return the elements from start to limit of each axis."""
    steps = tuple(strides or (1,) * len(out))
    return Slice(out, (x,), tuple(start_indices), tuple(limit_indices), steps)


def reshape(x: Node, *, out: Shape, **_: Any) -> Value | None:
    """Return the elements in another shape, as a Flat where that is a row."""
    if out[:1] != (1,):
        return None
    reshaped = Reshape(out, (x,))
    return Flat(x, reshaped) if len(out) == 2 else reshaped


def broadcast(
    x: Node, *, broadcast_dimensions: Sequence[int], out: Shape, **_: Any
) -> Value | None:
    """Return x with axes put in and repeated, where the batch stays the first."""
    if tuple(broadcast_dimensions[:1]) != (0,):
        return None  # the batch would be another axis
    aligned = [1] * len(out)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        aligned[axis] = size
    same_rank = Reshape(tuple(aligned), (x,)) if tuple(aligned) != x.shape else x
    return same_rank if tuple(aligned) == out else Expand(out, (same_rank,))


def transpose(x: Node, *, permutation: Sequence[int], out: Shape, **_: Any) -> Value | None:
    """Return the axes in another order, where the batch stays the first."""
    return Transpose(out, (x,), tuple(permutation)) if permutation[0] == 0 else None


def concatenate(*values: Any, dimension: int, out: Shape, **_: Any) -> Value | None:
    """Return the values one behind the other, along any axis but the batch."""
    if dimension == 0 or not all(isinstance(value, Node) for value in values):
        return None
    return Concat(out, values, dimension)


def pad(
    x: Any, value: Any, *, padding_config: Sequence[Sequence[int]], out: Shape, **_: Any
) -> Value | None:
    """Return x with a value around it."""
    plain = min(min(each) for each in padding_config) >= 0 and not any(
        interior for _, _, interior in padding_config
    )
    if not (plain and isinstance(x, Node) and isinstance(value, np.ndarray)):
        return None
    return Pad(out, (x,), tuple((low, high) for low, high, _ in padding_config), float(value))
