"""Linear layers: their gradients written out against automatic ones, and flax's Dense."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.models.linear import Linear


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (300, 7, 3)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 3e-2)]
)
def test_values_and_gradients_are_those_of_dense(shape, use_bias, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        init = nn.initializers.normal(0.5)
        ours = Linear(4, jnp.dtype(dtype), init, use_bias)
        dense = nn.Dense(4, use_bias=use_bias, dtype=jnp.dtype(dtype), kernel_init=init)
        x = jax.random.normal(jax.random.key(0), shape)
        variables = ours.init(jax.random.key(1), x)
        for a, b in zip(
            jax.tree.leaves(variables),
            jax.tree.leaves(dense.init(jax.random.key(1), x)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
        if use_bias:
            variables["params"]["bias"] += jnp.arange(4.0)

        def loss(layer, variables, x):
            return jnp.mean(jnp.sin(layer.apply(variables, x).astype(jnp.result_type(float))))

        for layer in (ours, dense):
            assert layer.apply(variables, x).dtype == dtype
        found, expected = (
            jax.value_and_grad(lambda v, x, layer=layer: loss(layer, v, x), (0, 1))(variables, x)
            for layer in (ours, dense)
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1e-3 + np.abs(b).max()))
