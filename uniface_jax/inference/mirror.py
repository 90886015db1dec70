"""Mirror sum, a face's feature at test time: f(x) + f(mirrored x)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from uniface_jax.data.formats.landmarks import mirrored as mirrored_landmarks

if TYPE_CHECKING:
    import jax

MIRROR_KEY = "uniface_jax.mirror"  # in metadata_props of our ONNX files: "1" holds the mirror sum

Array = TypeVar("Array", np.ndarray, "jax.Array")


def mirrored(images: Array) -> Array:
    """Return images [B, H, W, C] with left and right exchanged."""
    # One reversal; slicing backwards becomes a gather in JAX, which not every export format knows.
    flipped: Array = _numpy_of(images).flip(images, 2)
    return flipped


def mirror_sum(features: Callable[..., Array]) -> Callable[..., Array]:
    """Return the function images -> features(images) + features(mirrored images).

    Args:
        features: maps images [B, H, W, C], and perhaps landmarks [B, 5, 2], to features [B, D], of
            numpy or of JAX. It is called once, with both in one batch [2 B, H, W, C], so that a
            network is compiled once.

    Example:
        >>> left_column = lambda images: images[:, :, 0].sum(1)
        >>> images = np.arange(12.0).reshape(1, 2, 3, 2)
        >>> mirror_sum(left_column)(images)
        array([[20., 24.]])
    """

    def summed(images: Array, *landmarks: Array) -> Array:
        numpy = _numpy_of(images)
        points = [numpy.concatenate([x, mirrored_landmarks(x)]) for x in landmarks]
        both = numpy.concatenate([images, mirrored(images)])
        plain, other = numpy.split(features(both, *points), 2)
        total: Array = plain + other
        return total

    return summed


def _numpy_of(images: "np.ndarray | jax.Array") -> Any:
    if isinstance(images, np.ndarray):
        return np
    import jax.numpy

    return jax.numpy
