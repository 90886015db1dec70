"""Linear layers: their gradients written out against automatic ones, and flax's Dense."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.models.linear import Linear
from uniface_jax.runtime.low_precision import LARGEST


def loss(layer, variables, x):
    return jnp.mean(jnp.sin(layer.apply(variables, x).astype(jnp.result_type(float))))


@partial(jax.jit, static_argnums=0)
def value_and_gradients(layer, variables, x):
    return jax.tree.leaves(jax.value_and_grad(partial(loss, layer), (0, 1))(variables, x))


@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (300, 7, 3)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 3e-2)]
)
def test_values_and_gradients_are_those_of_dense(shape, use_bias, dtype, tolerance):
    """Compare with Dense in float64: in bfloat16 its own bias's gradient is 5 % off, of 2,100 rows.

    It is summed in bfloat16, and Linear's in float32.
    """
    init = nn.initializers.normal(0.5)
    dense = partial(nn.Dense, 4, use_bias, kernel_init=init)
    ours, same = Linear(4, jnp.dtype(dtype), init, use_bias), dense(dtype=jnp.dtype(dtype))
    with jax.enable_x64(dtype == "float64"):
        x = jax.random.normal(jax.random.key(0), shape)
        variables = ours.init(jax.random.key(1), x)
        jax.tree.map(np.testing.assert_array_equal, variables, same.init(jax.random.key(1), x))
        if use_bias:
            variables["params"]["bias"] += jnp.arange(4.0)
        for layer in (ours, same):
            assert layer.apply(variables, x).dtype == dtype
        found, alike = (value_and_gradients(layer, variables, x) for layer in (ours, same))
    with jax.enable_x64(True):
        wide = np.asarray(x, np.float64)
        exact = value_and_gradients(dense(dtype=jnp.float64), variables, wide)
    for a, b, c in zip(found, alike, exact, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, c, rtol=0, atol=tolerance * (1e-3 + np.abs(c).max()))


@pytest.mark.parametrize("dtype", LARGEST)
def test_in_8_bits_values_and_gradients_are_as_close_as_the_type_allows(dtype):
    init = nn.initializers.normal(0.5)
    rounded = Linear(48, jnp.float32, init, product_dtype=dtype)
    plain = Linear(48, jnp.float32, init)
    # Tokens and channels of very different sizes: each has a scale of its own.
    x = jax.random.normal(jax.random.key(0), (4, 9, 64)) * 10.0 ** jnp.arange(-4, 5).reshape(
        1, 9, 1
    )
    variables = plain.init(jax.random.key(1), x)
    variables["params"]["bias"] += jnp.arange(48.0) * 1e-3
    weights = jax.random.normal(jax.random.key(2), (4, 9, 48))

    @partial(jax.jit, static_argnums=0)
    def outcome(layer):
        def total(variables, x):
            y = layer.apply(variables, x)
            return jnp.sum(weights * y), y

        gradients, y = jax.grad(total, (0, 1), has_aux=True)(variables, x)
        by_x = gradients[1]
        return {
            "values": y.reshape(-1, 48),  # by token
            "tokens": by_x.reshape(-1, 64),
            "kernel": gradients[0]["params"]["kernel"].reshape(1, -1),
            "bias": gradients[0]["params"]["bias"].reshape(1, -1),
        }

    found, exact = outcome(rounded), outcome(plain)
    rounding = 2.0**-4 if dtype.startswith("float8") else 0.5 / 127
    for name, expected in exact.items():
        off = jnp.linalg.norm(found[name] - expected, axis=1) / jnp.linalg.norm(expected, axis=1)
        assert off.max() < 4 * rounding, name
        if name == "bias":  # whose gradient is no product
            assert off.max() < 1e-6
        else:
            assert off.max() > 0.05 * rounding, name
