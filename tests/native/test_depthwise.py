"""The kernels of convolutions in groups against lax's in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers.convolution_problems import assert_close, plain, problem, references
from tests.helpers.examples import examples
from uniface_jax.models.depthwise import convolve_grouped
from uniface_jax.native import build, depthwise

pytestmark = pytest.mark.usefixtures("kernels")


def check(arrays, stride, padding):
    """All three passes against the references."""
    x, kernel, y_bar = arrays
    y, by_x, by_kernel = references(arrays, stride, padding)
    assert_close(depthwise.forward(x, kernel, stride, padding), y)
    assert_close(depthwise.input_gradient(y_bar, kernel, x.shape, stride, padding), by_x)
    ours = depthwise.kernel_gradient(x, y_bar, kernel.shape, stride, padding)
    assert_close(ours, by_kernel)


@given(
    seed=st.integers(0, 1000),
    side=st.integers(1, depthwise.MOST_TAPS),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    group=st.sampled_from(depthwise.GROUPS),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14), st.integers(1, 3)),
)
@examples(40)
def test_any_shape(seed, side, stride, padding, group, sizes):
    batch, height, width, vectors = sizes
    assume(min(height, width) + 2 * padding >= side)
    channels = vectors * build.vector_width()
    shape, kernel_shape = (batch, height, width, channels), (side, side, group, channels)
    assert depthwise.suits(kernel_shape)
    check(problem(seed, shape, kernel_shape, stride, padding), stride, padding)


@pytest.mark.parametrize("group", depthwise.GROUPS)
@pytest.mark.parametrize(("side", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (7, 1, 0)])
def test_bias_and_prelu_behind_it(group, side, stride, padding):
    """Hold y at positions taken one by one, at the borders, and at those taken four at a time."""
    size = 2 * build.vector_width()
    x, kernel, y_bar = problem(5, (2, 7, 12, size), (side, side, group, size), stride, padding)
    bias, slope = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    y = references((x, kernel, y_bar), stride, padding)[0] + bias
    ours = depthwise.forward(x, kernel, stride, padding, (bias, slope))
    assert_close(ours, np.where(y < 0, y * slope, y))


@pytest.mark.parametrize("group", depthwise.GROUPS)
def test_the_same_bits_on_every_call(group):
    size = 2 * build.vector_width()
    x, kernel, y_bar = problem(3, (4, 30, 30, size), (3, 3, group, size), 2, 1)
    for function, arguments in (
        (depthwise.forward, (x, kernel, 2, 1)),
        (depthwise.kernel_gradient, (x, y_bar, kernel.shape, 2, 1)),
        (depthwise.input_gradient, (y_bar, kernel, x.shape, 2, 1)),
    ):
        first = np.asarray(function(*arguments))
        for _ in range(5):
            np.testing.assert_array_equal(np.asarray(function(*arguments)), first)


@pytest.mark.parametrize("group", depthwise.GROUPS)
@pytest.mark.parametrize("wrapped", ["vmap", "remat", "jit"])
def test_trained_as_plain(group, wrapped):
    size = build.vector_width()
    x, kernel, _ = problem(4, (2, 9, 8, size), (3, 3, group, size), 2, 1)

    def value(function, x, kernel):
        return jnp.sum(jnp.sin(function(x, kernel, 2, 1)))

    def gradients(function):
        run = partial(value, function)
        if wrapped == "vmap":
            many = jax.vmap(run, (0, None))
            return jax.grad(lambda x, kernel: jnp.sum(many(x[:, None], kernel)), (0, 1))
        return jax.grad(jax.checkpoint(run) if wrapped == "remat" else run, (0, 1))

    ours = jax.jit(gradients(convolve_grouped))
    text = ours.lower(x, kernel).as_text()
    assert {name for name in build.TARGETS if f"@{name}(" in text} == {
        "uniface_depthwise", "uniface_depthwise_input_gradient", "uniface_depthwise_kernel_gradient"
    }  # fmt: skip
    for a, b in zip(ours(x, kernel), gradients(plain)(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 3, 1, 3), "float32"), ((3, 3, 1, 64), "float64"), ((3, 3, 8, 64), "float32")],
)
def test_other_widths_dtypes_and_groups_are_without_kernels(shape, dtype):
    """Three channels are no vector, float64 has no kernels, groups of eight are not known."""
    with jax.enable_x64(dtype == "float64"):
        x, kernel = jnp.ones((1, 5, 5, shape[3]), dtype), jnp.ones(shape, dtype)
        run = jax.grad(lambda x, kernel: jnp.sum(convolve_grouped(x, kernel, 1, 1)), (0, 1))
        assert "uniface_" not in jax.jit(run).lower(x, kernel).as_text()


@pytest.mark.parametrize("wrong", ["channels", "groups", "scratch", "after"])
def test_shapes_that_were_not_agreed_on_are_refused(wrong):
    size = build.vector_width() + (wrong == "channels")
    x = np.ones((1, 4, 4, size), np.float32)
    kernel = np.ones((3, 3, 3 if wrong == "groups" else 1, size), np.float32)
    attributes = {"stride": np.int32(1), "padding": np.int32(1)}
    name, results = "uniface_depthwise", [jax.ShapeDtypeStruct(x.shape, np.float32)]
    given = (x, kernel)
    if wrong == "scratch":
        name, given, attributes["parts"] = f"{name}_kernel_gradient", (x, x), np.int32(2)
        results = [jax.ShapeDtypeStruct(s, np.float32) for s in (kernel.shape, (1,))]
    if wrong == "after":
        name, given = "uniface_fused_grouped", (x, kernel, np.ones((2, size - 1), np.float32))
    assert build.available()
    with pytest.raises(jax.errors.JaxRuntimeError, match="not as agreed"):
        jax.block_until_ready(jax.ffi.ffi_call(name, results)(*given, **attributes))
