"""Batches in parts: every number of images, and arrays beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.inference.parts import in_parts


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_any_number_in_parts(count):
    sizes = []

    def function(images, points):
        sizes.append(images.shape[0])
        return jnp.sum(images, (1, 2)) - points

    rng = np.random.default_rng(0)
    images, points = rng.normal(size=(count, 2, 3)), rng.normal(size=count)
    found = jax.jit(in_parts(function, 3))(images, points)
    np.testing.assert_allclose(found, images.sum((1, 2)) - points, rtol=1e-5, atol=1e-6)
    assert max(sizes) == {1: 1, 3: 3, 4: 2, 7: 3}[count]
