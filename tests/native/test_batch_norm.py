"""The kernels of batch norm, the PReLU after it, against the same in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.batch_norm_problems import EPSILON, assert_close, check, problem
from tests.helpers.examples import examples
from uniface_jax.models.channels import Norm, batch_norm
from uniface_jax.native import batch_norm as native
from uniface_jax.native import build

pytestmark = pytest.mark.usefixtures("kernels")


@given(
    seed=st.integers(0, 1000),
    rows=st.one_of(
        st.tuples(st.integers(1, 300)),
        st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20)),
    ),
    vectors=st.integers(1, 9),
    sloped=st.booleans(),
)
@examples(40)
def test_any_shape(seed, rows, vectors, sloped):
    shape = (*rows, vectors * build.vector_width())
    if np.prod(rows) == 1:
        sloped = False  # everything is zero, where a PReLU has a corner
    check(*problem(seed, shape, sloped))


def test_a_mean_of_many_deviations():
    """Sums of squares as such would lose the variance: 1000 squared has it in its last bits."""
    x, y_bar, norm = problem(0, (4, 30, 30, 64), False, level=1000.0)
    check(x, y_bar, norm, by=3e-4)
    _, _, spread, _ = native.forward(x, norm, EPSILON)
    assert_close(spread, x.astype(np.float64).var((0, 1, 2)), by=1e-4)


def test_an_image_far_from_the_others():
    x, _, norm = problem(1, (4, 30, 30, 64), False)
    x[0, 0, 0] = 1e4
    _, _, spread, _ = native.forward(x, norm, EPSILON)
    variance = x.astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(spread, variance, rtol=1e-4)


def test_not_a_number_stays_one():
    x, _, norm = problem(2, (2, 8, 8, 2 * build.vector_width()), True)
    x[1, 2, 3, 4] = np.nan
    y, mean, variance, _ = native.forward(x, norm, EPSILON)
    wrong = np.arange(x.shape[-1]) == 4
    for array in (y[0, 0, 0], mean, variance):
        np.testing.assert_array_equal(np.isnan(array), wrong)


@pytest.mark.parametrize("sloped", [False, True])
def test_the_same_bits_on_every_call(sloped):
    x, y_bar, norm = problem(3, (4, 30, 30, 64), sloped)

    def run():
        y, mean, variance, inverse = native.forward(x, norm, EPSILON)
        return y, mean, variance, native.gradient(x, y_bar, norm, mean, inverse)

    first = jax.tree.map(np.asarray, run())
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, run()), first)


def _summed(many, x, *vectors):
    return jnp.sum(many(x[:, None], *vectors))


@pytest.mark.parametrize("wrapped", ["jit", "remat", "vmap"])
def test_trained_as_by_xla(wrapped):
    x, _, norm = problem(4, (2, 32, 32, 2 * build.vector_width()), True)

    def value(x, *vectors):
        found = batch_norm(x, Norm(*vectors), None, EPSILON, jnp.dtype("float32"))
        kept = jax.lax.stop_gradient(found[1:])
        return jnp.sum(jnp.sin(found.y)) + jnp.sum(jnp.stack(kept))

    def gradients():
        run = value
        if wrapped == "remat":
            run = jax.checkpoint(lambda *arrays: value(*arrays))  # traced anew, kernels or not
        if wrapped == "vmap":
            many = jax.vmap(value, (0, None, None, None))
            run = partial(_summed, many)
        return jax.jit(jax.value_and_grad(run, (0, 1, 2, 3)))

    ours = gradients()
    text = ours.lower(x, *norm).as_text()
    assert text.count("@uniface_batch_norm(") > 0
    assert text.count("@uniface_batch_norm_gradient(") == 1
    with build.off():
        plain = gradients()
        assert "uniface_" not in plain.lower(x, *norm).as_text()
        expected = plain(x, *norm)
    for a, b in zip(jax.tree.leaves(ours(x, *norm)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((64, 64, 3), "float32"), ((2, 64), "float32"), ((64, 64, 64), "bfloat16")]
)
def test_other_widths_sizes_and_dtypes_are_without_kernels(shape, dtype):
    """Three channels are no vector, two rows are no work, bfloat16 has no kernels."""
    vector = jnp.ones(shape[-1])
    norm = Norm(vector, vector, None)
    run = jax.jit(lambda x: batch_norm(x, norm, None, EPSILON, jnp.dtype(dtype)))
    assert "uniface_" not in run.lower(jnp.ones(shape, dtype)).as_text()


@pytest.mark.parametrize("wrong", ["channels", "slope", "scratch"])
def test_shapes_that_were_not_agreed_on_are_refused(wrong):
    size = build.vector_width() + (wrong == "channels")
    x, vector = np.ones((8, size), np.float32), np.ones(size, np.float32)
    slope = np.ones(1 if wrong == "slope" else size, np.float32)
    shapes = [x.shape, *[(size,)] * 3, (1 if wrong == "scratch" else 10 * size,)]
    results = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    assert build.available()
    called = jax.ffi.ffi_call("uniface_batch_norm", results)
    with pytest.raises(jax.errors.JaxRuntimeError, match="not as agreed"):
        jax.block_until_ready(called(x, vector, vector, slope, epsilon=np.float32(EPSILON)))


def test_platforms_other_than_the_cpu_have_xlas():
    x, vector = jnp.ones((2, 32, 32, 64)), jnp.ones(64)
    norm = Norm(vector, vector, vector)
    run = jax.jit(lambda x: batch_norm(x, norm, None, EPSILON, x.dtype))
    for platform in ("cuda", "tpu"):
        text = run.trace(x).lower(lowering_platforms=(platform,)).as_text()
        assert "uniface_" not in text
