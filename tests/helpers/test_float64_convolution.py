"""The tests' convolution in float64 is XLA's, with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import float64_convolution
from tests.helpers.float64_convolution import sum_of_products


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(3, 1, ((1, 1), (1, 1))), (2, 2, ((0, 0), (0, 0))), (1, 2, ((0, 0), (0, 0))),
     (3, 2, ((1, 1), (1, 1))), (2, 1, ((0, 1), (0, 1)))],
)  # fmt: skip
@pytest.mark.parametrize("most", [0, float64_convolution.MOST_NUMBERS])
def test_sum_of_products_is_xlas_convolution(size, stride, padding, most, x64, monkeypatch):
    """A product for each tap, or one of all."""
    monkeypatch.setattr(float64_convolution, "MOST_NUMBERS", most)
    rng = np.random.default_rng(size)
    x, kernel = rng.normal(size=(2, 6, 8, 3)), rng.normal(size=(size, size, 3, 5))

    def value_and_gradients(convolution):
        y, pullback = jax.vjp(
            lambda x, kernel: convolution(
                x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            jnp.asarray(x),
            jnp.asarray(kernel),
        )
        assert y.dtype == jnp.float64
        return y, *pullback(jnp.cos(y))

    found, expected = map(value_and_gradients, (sum_of_products, jax.lax.conv_general_dilated))
    for ours, xlas in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, xlas, rtol=1e-12, atol=1e-12)
