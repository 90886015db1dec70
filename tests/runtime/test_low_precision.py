"""Products whose factors have few bits, against float64 on the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.runtime import low_precision
from uniface_jax.runtime.low_precision import LARGEST

# Half a unit in the last place, relative for floats and of the row's largest for whole numbers.
ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-9, "float8_e4m3fn": 2.0**-4, "int8": 0.5 / 127}


def drawn():
    """Return rows whose sizes differ by twelve orders of magnitude, and weights of theirs."""
    rng = np.random.default_rng(0)
    a, b = (np.float32(rng.standard_normal((n, 64))) for n in (5, 7))
    b *= np.float32(10.0 ** np.arange(-6, 7, 2))[:, None]
    return a, b, np.float32(rng.standard_normal((5, 7)))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_products_are_as_close_as_the_type_allows(dtype):
    a, b, _ = drawn()
    rows = [low_precision.rows(jnp.asarray(x), dtype) for x in (a, b)]
    found = low_precision.products(*rows, jnp.dtype("float32"))
    assert found.dtype == jnp.float32
    exact = np.float64(a) @ np.float64(b).T
    size = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    error = np.abs(found - exact) / size
    assert error.max() < 4 * ROUNDING[dtype]
    assert (error.max() > 0.01 * ROUNDING[dtype]) or dtype == "float32"


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_of_rows_are_as_close_as_the_type_allows(axis, dtype):
    _, b, weights = drawn()
    given = weights.T if axis == 0 else weights
    rows = low_precision.rows(jnp.asarray(b), dtype)
    found = low_precision.sums_of_rows(jnp.asarray(given), axis, rows, jnp.dtype("float32"))
    exact = np.float64(weights) @ np.float64(b)
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 4 * ROUNDING[dtype]


@pytest.mark.parametrize("dtype", LARGEST)
def test_zeros_stay_zeros_and_what_is_no_number_is_told(dtype):
    x = np.float32([[0, 0], [1e-42, 0], [1, 2], [np.nan, 1], [1, np.inf]])
    rows = low_precision.rows(jnp.asarray(x), dtype)
    one = low_precision.rows(jnp.ones((1, 2)), dtype)
    found = np.asarray(low_precision.products(rows, one, jnp.dtype("float32")))[:, 0]
    np.testing.assert_allclose(found[:3], [0, 0, 3], rtol=0.07)
    assert np.isnan(found[3])
    assert not np.isfinite(found[4])
    assert not np.isfinite(
        low_precision.sums_of_rows(jnp.ones((1, 5)), 1, rows, jnp.dtype("float32"))
    ).any()
