"""Batch norm with the PReLU after it, and its gradient: arrays to arrays, on the CPU.

x [..., C] float32, over all axes but the last; suits() must be true of it. Vectors are [C]: scale
and bias, and slope, that of the PReLU, None for none.
"""

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.native import build
from uniface_jax.native.convolution import divides

FEWEST = 2**14  # elements of x; with fewer XLA's are no slower


# Scale, bias and slope, [C] each.
Norm = tuple[jax.Array, jax.Array, jax.Array | None]


def suits(x: jax.Array, dtype: jnp.dtype) -> bool:
    """Return True where the kernels can normalize x to `dtype`, are faster, and are there."""
    whole = x.dtype == dtype == jnp.float32 and x.ndim > 1 and x.size >= FEWEST
    return whole and build.available() and divides(x.shape[-1])


def _call(
    name: str, like: jax.Array, vectors: int, *arrays: jax.Array | None, **attributes: object
) -> list[jax.Array]:
    """Call a kernel that returns one array as `like` and so many vectors; None stands for []."""
    channels = like.shape[-1]
    scratch = build.scratch("UnifaceBatchNormScratch", like.size // channels, channels)
    shapes = [like.shape, *[(channels,)] * vectors, (scratch,)]
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    given = [jnp.zeros(0, jnp.float32) if array is None else array for array in arrays]
    called = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    return list(called(*given, **attributes))[:-1]


def forward(
    x: jax.Array, norm: Norm, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return PReLU(norm(x)), normalized by this batch, and its statistics [C].

    These are the mean, the biased variance, and 1 / sqrt(variance + epsilon).
    """
    attributes = {"epsilon": np.float32(epsilon)}
    y, mean, variance, inverse = _call("uniface_batch_norm", x, 3, x, *norm, **attributes)
    return y, mean, variance, inverse


def gradient(
    x: jax.Array,
    y_bar: jax.Array,
    norm: Norm,
    mean: jax.Array,
    inverse: jax.Array,
) -> tuple[jax.Array, Norm]:
    """Return the gradients with respect to x and to the norm's vectors."""
    arrays = (x, y_bar, *norm, mean, inverse)
    x_bar, scale_bar, bias_bar, slope_bar = _call("uniface_batch_norm_gradient", x, 3, *arrays)
    return x_bar, (scale_bar, bias_bar, None if norm[2] is None else slope_bar)
