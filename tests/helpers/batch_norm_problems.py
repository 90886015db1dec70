"""Batch norm with the PReLU after it: problems, and the same in float64 by NumPy."""

import numpy as np

from uniface_jax.models.channels import Norm
from uniface_jax.native import batch_norm as native

EPSILON = 1e-5
TOLERANCE = 2e-6  # of the largest value, for inputs of that many deviations from zero and more


def problem(seed, shape, sloped, level=0.0):
    """Return x, y_bar and the norm's vectors, in float32."""
    rng = np.random.default_rng(seed)
    x, y_bar = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    scale, bias, slope = (
        rng.uniform(low, high, shape[-1]).astype(np.float32)
        for low, high in ((0.5, 2), (-1, 1), (0.1, 0.5))
    )
    norm = Norm(scale, bias, slope if sloped else None)
    return x + np.float32(level), y_bar, norm


def reference(x, y_bar, norm):
    """Return y, mean, variance, and the gradients by x, scale, bias and slope, in float64."""
    x, y_bar, scale, bias = (np.asarray(a, np.float64) for a in (x, y_bar, norm.scale, norm.bias))
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    inverse = 1 / np.sqrt(variance + EPSILON)
    whitened = (x - mean) * inverse
    z = whitened * scale + bias
    slope = 1.0 if norm.slope is None else np.float64(norm.slope)
    y = np.where(z >= 0, z, slope * z)
    z_bar = np.where(z >= 0, y_bar, slope * y_bar)
    along = (z_bar * whitened).mean(axes)
    x_bar = scale * inverse * (z_bar - z_bar.mean(axes) - whitened * along)
    by_vectors = [(z_bar * whitened).sum(axes), z_bar.sum(axes), np.where(z < 0, z * y_bar, 0)]
    return y, mean, variance, x_bar, *by_vectors[:2], by_vectors[2].sum(axes)


def assert_close(ours, expected, by=TOLERANCE, growth=1.0):
    """Assert that the largest difference is `by` of the largest value, growth [C] times as much."""
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    largest = max(np.abs(expected).max(), 1) * growth
    np.testing.assert_allclose((np.float64(ours) - expected) / largest, 0, rtol=0, atol=by)


def check(x, y_bar, norm, by=TOLERANCE):
    y, mean, variance, *gradients = reference(x, y_bar, norm)
    # The mean is rounded by more deviations where these are small: with two values that are close.
    growth = np.maximum(1 / np.sqrt(variance + EPSILON), 1)
    ours, of_x, spread, inverse = native.forward(x, norm, EPSILON)
    assert_close(ours, y, by, growth)
    assert_close(of_x, mean, by)
    assert_close(spread, variance, by)
    x_bar, norm_bar = native.gradient(x, y_bar, norm, of_x, inverse)
    assert (norm_bar[2] is None) == (norm.slope is None)
    assert_close(x_bar, gradients[0], by, growth**2)
    for a, b in zip(norm_bar, gradients[1:], strict=True):
        if a is not None:
            assert_close(a, b, by, growth)
