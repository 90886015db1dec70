"""Batch norm in PyTorch's sense, PReLU, and convolutions padded as PyTorch pads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.models.channels import prelu
from uniface_jax.models.layers import BN_EPSILON, BatchNorm, PReLU, conv


@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(6, 3), (2, 4, 5, 3), (3, 1, 1, 2)]),
    offset=st.floats(-3, 3),
)
@examples(20)
def test_batch_norm_train(seed, shape, offset):
    rng = np.random.default_rng(seed)
    x = rng.normal(offset, 2, shape)
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), jnp.asarray(x), train=False)
    scale, bias = rng.uniform(0.5, 2, shape[-1:]), rng.normal(size=shape[-1:])
    variables = {**variables, "params": {"scale": scale, "bias": bias}}
    out, updated = layer.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
    axes = tuple(range(x.ndim - 1))
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + BN_EPSILON) * scale + bias
    np.testing.assert_allclose(out, expected, atol=2e-4)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], x.mean(axes), atol=1e-5)
    # PyTorch's running variance takes the unbiased estimate.
    np.testing.assert_allclose(updated["batch_stats"]["var"], x.var(axes, ddof=1), rtol=1e-3)


def test_batch_norm_eval_uses_running_averages():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    statistics = {"mean": np.array([1.0, 2.0, 3.0]), "var": np.array([0.5, 1.0, 4.0])}
    params = {"bias": np.array([0.1, 0.2, 0.3])}
    layer = BatchNorm(use_scale=False)
    out = layer.apply({"params": params, "batch_stats": statistics}, jnp.asarray(x), train=False)
    expected = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5) + params["bias"]
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_batch_norm_of_half_precision_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(300, 1, (64, 4)), jnp.bfloat16)
    layer = BatchNorm(dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, train=False)
    out, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    assert out.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(updated["batch_stats"]["var"], wide.var(0, ddof=1), rtol=0.05)


def test_prelu():
    x = jnp.asarray([[-2.0, -2.0], [3.0, 0.0]])
    slope, _ = PReLU().init_with_output(jax.random.key(0), 2)
    np.testing.assert_array_equal(slope, [0.25, 0.25])
    out = prelu(x, jnp.asarray([0.25, 0.5]))
    np.testing.assert_array_equal(out, [[-0.5, -1.0], [3.0, 0.0]])


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "expected"),
    [(3, 1, 7, 7), (3, 2, 7, 4), (2, 2, 7, 3), (1, 2, 7, 4), (2, 2, 8, 4)],
)
def test_conv_pads_as_pytorch(kernel, stride, size, expected):
    layer = conv(5, kernel, stride, jnp.float32, jax.nn.initializers.normal(), "c")
    out, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, size, size, 2)))
    assert out.shape == (1, expected, expected, 5)
    assert set(variables["params"]) == {"kernel"}
    # The top left output sees the padding: only the kernel's part inside the image counts.
    pad = kernel // 2 if kernel % 2 else 0
    inside = variables["params"]["kernel"][pad:, pad:]
    np.testing.assert_allclose(out[0, 0, 0], inside.sum((0, 1, 2)), rtol=1e-5, atol=1e-7)
