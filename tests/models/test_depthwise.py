"""Grouped convolutions against their definition, and the form for CPUs against lax's."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.models import convolution
from uniface_jax.models.depthwise import convolve_grouped


@partial(jax.jit, static_argnums=0)
def with_gradients(convolve, x, kernel, y_bar):
    """Return the map y, and y_bar pulled back to both operands."""
    y, pull = jax.vjp(convolve, x, kernel)
    return y, *pull(y_bar)


def by_definition(x, kernel, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps, inputs, outputs = kernel.shape[:2], kernel.shape[2], kernel.shape[3]
    groups = x.shape[3] // inputs
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], taps, strict=True))
    y = np.zeros((len(x), height, width, outputs))
    for out, (i, j), c in itertools.product(
        range(outputs), itertools.product(*map(range, taps)), range(inputs)
    ):
        channel = out // (outputs // groups) * inputs + c
        met = x[:, i : i + height * stride : stride, j : j + width * stride : stride, channel]
        y[..., out] += met[:, :height, :width] * kernel[i, j, c, out]
    return y


@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(2, 5, 8, 3), (1, 3, 3, 1), (2, 7, 4, 2)]),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2, 3]),
    padding=st.sampled_from([0, 1]),
)
@examples(32)
def test_depthwise_is_its_definition_and_its_gradients_are(seed, shape, kernel, stride, padding):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        x, weight = rng.normal(size=shape), rng.normal(size=(kernel, kernel, 1, shape[3]))
        expected = by_definition(x, weight, stride, padding)
        y_bar, x_dot, k_dot = (rng.normal(size=a.shape) for a in (expected, x, weight))
        convolve = partial(convolve_grouped, stride=stride, padding=padding)
        y, by_x, by_kernel = with_gradients(convolve, x, weight, y_bar)
        np.testing.assert_allclose(y, expected, atol=1e-12)
        # The map is linear in each operand: its gradient is its transpose.
        along = np.sum(by_definition(x_dot, weight, stride, padding) * y_bar)
        np.testing.assert_allclose(np.sum(by_x * x_dot), along, rtol=1e-9, atol=1e-9)
        along = np.sum(by_definition(x, k_dot, stride, padding) * y_bar)
        np.testing.assert_allclose(np.sum(by_kernel * k_dot), along, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("groups", "outputs"), [(2, 6), (4, 4), (1, 3), (4, 8), (2, 20)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups_of_any_size_and_their_gradients(groups, outputs, stride, x64):
    rng = np.random.default_rng(groups)
    x, kernel = rng.normal(size=(2, 5, 6, 4)), rng.normal(size=(3, 3, 4 // groups, outputs))
    expected = by_definition(x, kernel, stride, 1)
    y_bar = rng.normal(size=expected.shape)
    (y, *ours), (_, *theirs) = (
        with_gradients(partial(convolve, stride=stride, padding=1), x, kernel, y_bar)
        for convolve in (convolve_grouped, convolution.plain)
    )
    np.testing.assert_allclose(y, expected, atol=1e-12)
    for mine, lax in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, lax, atol=1e-12)


def test_whole_map_at_once(x64):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(3, 7, 7, 5)), rng.normal(size=(7, 7, 1, 5))
    y = convolve_grouped(jnp.asarray(x), jnp.asarray(kernel), 1, 0)
    assert y.shape == (3, 1, 1, 5)
    np.testing.assert_allclose(y, by_definition(x, kernel, 1, 0), atol=1e-12)
