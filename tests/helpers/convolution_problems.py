"""Convolutions drawn at random, in groups as well, with results and gradients in float64."""

from functools import partial

import jax
import numpy as np

from tests.helpers.float64_convolution import sum_of_products
from uniface_jax.models.convolution import LAYOUT

TOLERANCE = 2e-6  # of the largest value
TOLERANCE_BY_FOUR = 5e-6  # the same, where Winograd's tiles are of 4x4 outputs


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=LAYOUT,
        feature_group_count=x.shape[3] // kernel.shape[2],
    )  # fmt: skip


def problem(seed, shape, kernel_shape, stride, padding):
    """x of `shape`, kernel and the cotangent, in float32."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    kernel = rng.standard_normal(kernel_shape).astype(np.float32)
    y = jax.eval_shape(partial(plain, stride=stride, padding=padding), x, kernel)
    return x, kernel, rng.standard_normal(y.shape).astype(np.float32)


def in_float64(x, kernel, stride, padding):
    """Return what `plain` does; without groups by products, a tenth of the time of lax's loops."""
    if x.shape[3] != kernel.shape[2]:
        return plain(x, kernel, stride, padding)
    return sum_of_products(x, kernel, (stride, stride), [(padding, padding)] * 2, LAYOUT)


def references(arrays, stride, padding):
    """y and the gradients by x and kernel in float64, of a problem's arrays."""

    @jax.jit
    def value_and_gradients(x, kernel, y_bar):
        y, backward = jax.vjp(partial(in_float64, stride=stride, padding=padding), x, kernel)
        return y, *backward(y_bar)

    with jax.enable_x64(True):
        expected = value_and_gradients(*(array.astype(np.float64) for array in arrays))
    return [np.asarray(array) for array in expected]


def assert_close(ours, expected, tolerance=TOLERANCE):
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    largest = max(np.abs(expected).max(), 1)
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=0, atol=tolerance * largest)
