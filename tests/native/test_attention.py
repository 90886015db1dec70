"""The attention's kernels against the einsums in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.models import vit
from uniface_jax.native import attention, build

pytestmark = pytest.mark.usefixtures("kernels")

TOLERANCE = 3e-6  # of the largest value


def problem(seed, batch, tokens, heads, vectors, deviation=1.0):
    """Draw qkv and the gradient by the result, in float32."""
    rng = np.random.default_rng(seed)
    size = vectors * build.vector_width()
    qkv = rng.normal(0, deviation, (batch, tokens, 3 * heads * size))
    mixed_bar = rng.standard_normal((batch, tokens, heads, size))
    return qkv.astype(np.float32), mixed_bar.astype(np.float32)


def assert_close(ours, expected, deviation):
    """Hold to the tolerance, times the size of the logits, of which a weight is the exponential."""
    assert ours.dtype == np.float32
    most = TOLERANCE * np.abs(expected).max() * deviation**2
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=0, atol=most)


@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "vectors", "deviation"),
    [(2, 129, 2, 2, 1.0), (1, 144, 3, 4, 1.0), (3, 1, 1, 1, 1.0), (1, 17, 2, 5, 1.0),
     (2, 33, 2, 1, 30.0)],
)  # fmt: skip
def test_value_and_gradient(batch, tokens, heads, vectors, deviation):
    """Hold both for heads of any size and logits up to thousands, whose weights are 0 or 1."""
    qkv, mixed_bar = problem(0, batch, tokens, heads, vectors, deviation)
    assert attention.suits(qkv.shape, heads, qkv.dtype)
    with jax.enable_x64(True):
        wide = jax.jit(partial(vit._attend_plainly, heads=heads))
        mixed, pull = jax.vjp(wide, jnp.asarray(qkv, jnp.float64))
        (by_qkv,) = pull(jnp.asarray(mixed_bar, jnp.float64))
        mixed, by_qkv = np.asarray(mixed), np.asarray(by_qkv)
    assert_close(attention.forward(qkv, heads), mixed, deviation)
    assert_close(attention.gradient(qkv, mixed_bar, heads), by_qkv, deviation)


@pytest.mark.parametrize("wrapped", ["vmap", "remat", "jit"])
def test_trained_as_plain(wrapped):
    qkv, _ = problem(1, 2, 9, 2, 1)

    def gradient(function):
        def run(qkv):
            return jnp.sum(jnp.sin(function(qkv, 2)))

        if wrapped == "vmap":
            return jax.grad(lambda qkv: jnp.sum(jax.vmap(run)(qkv[:, None])))
        return jax.grad(jax.checkpoint(run) if wrapped == "remat" else run)

    ours = jax.jit(gradient(vit._attend_on_cpu))
    assert "uniface_attention_gradient" in ours.lower(qkv).as_text()
    expected = jax.jit(gradient(vit._attend_plainly))(qkv)
    np.testing.assert_allclose(ours(qkv), expected, rtol=0, atol=1e-5 * jnp.abs(expected).max())


def test_the_same_bits_on_every_call():
    qkv, mixed_bar = problem(2, 4, 40, 4, 1)
    for function, arguments in (
        (attention.forward, (qkv, 4)),
        (attention.gradient, (qkv, mixed_bar, 4)),
    ):
        first = np.asarray(function(*arguments))
        for _ in range(5):
            np.testing.assert_array_equal(np.asarray(function(*arguments)), first)


@pytest.mark.parametrize(
    ("tokens", "size", "dtype"), [(300, "w", "float32"), (9, 3, "float32"), (9, "w", "bfloat16")]
)
def test_what_has_no_kernel(tokens, size, dtype):
    size = build.vector_width() if size == "w" else size
    assert not attention.suits((1, tokens, 3 * size), 1, jnp.dtype(dtype))


def test_shapes_that_were_not_agreed_on_are_refused():
    qkv = np.ones((1, 4, 3, 1, build.vector_width()), np.float32)
    results = [jax.ShapeDtypeStruct((1, 5, 1, build.vector_width()), np.float32)]
    assert build.available()
    with pytest.raises(jax.errors.JaxRuntimeError, match="not as agreed"):
        jax.block_until_ready(jax.ffi.ffi_call("uniface_attention", results)(qkv))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["query", "key"])
def test_what_is_not_finite_stays_so(part, bad):
    """Hold to nan where the einsums have it: a run that diverges must not go on by kernels."""
    qkv, mixed_bar = problem(3, 1, 17, 1, 2)
    size = qkv.shape[2] // 3
    qkv[0, 5, 0 if part == "query" else size] = bad
    expected, pull = jax.vjp(jax.jit(partial(vit._attend_plainly, heads=1)), jnp.asarray(qkv))
    (by_qkv,) = pull(jnp.asarray(mixed_bar))
    mixed = np.asarray(attention.forward(qkv, 1))
    assert np.isnan(mixed).any()
    assert np.isnan(mixed[np.isnan(expected)]).all()
    ours = np.asarray(attention.gradient(qkv, mixed_bar, 1))
    assert np.isnan(ours[np.isnan(by_qkv)]).all()
