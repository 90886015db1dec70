"""The convolutions' kernels against lax's in float64: any shape, direct or Winograd's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers.convolution_problems import (
    TOLERANCE,
    TOLERANCE_BY_FOUR,
    assert_close,
    plain,
    problem,
    references,
)
from tests.helpers.examples import examples
from uniface_jax.models.convolution import convolve
from uniface_jax.native import build, convolution

pytestmark = pytest.mark.usefixtures("kernels")


def check(arrays, stride, padding, tolerance=TOLERANCE):
    """All three against the references, where the channels are such that there is a kernel."""
    x, kernel, y_bar = arrays
    y, by_x, by_kernel = references(arrays, stride, padding)
    inputs, outputs = kernel.shape[2:]
    if convolution.divides(outputs):
        assert_close(convolution.forward(x, kernel, stride, padding), y, tolerance)
        ours = convolution.kernel_gradient(x, y_bar, kernel.shape, stride, padding)
        assert_close(ours, by_kernel, tolerance)
    if convolution.divides(inputs):
        ours = convolution.input_gradient(y_bar, kernel, x.shape, stride, padding)
        assert_close(ours, by_x, tolerance)


@given(
    seed=st.integers(0, 1000),
    side=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    batch=st.integers(1, 3),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    inputs=st.sampled_from([1, 3, "w", "3w", "4w", "5w"]),
    outputs=st.sampled_from(["w", "2w", "4w", "7w"]),
)
@examples(40)
def test_any_shape(seed, side, stride, padding, batch, height, width, inputs, outputs):
    assume(min(height, width) + 2 * padding >= side and padding < side)

    def channels(given):
        return given if isinstance(given, int) else int(given[:-1] or 1) * build.vector_width()

    shape = (side, side, channels(inputs), channels(outputs))
    arrays = problem(seed, (batch, height, width, shape[2]), shape, stride, padding)
    by_four = convolution.is_winograd(shape, stride, padding) and 4 in (
        convolution.winograd_tile(height + more, width + more) for more in (0, 2 * padding - 2)
    )
    check(arrays, stride, padding, TOLERANCE_BY_FOUR if by_four else TOLERANCE)


@pytest.mark.parametrize(
    ("height", "width", "padding"), [(9, 7, 1), (2, 1, 1), (5, 4, 0), (8, 8, 2)]
)
@pytest.mark.parametrize(("tile", "tolerance"), [(2, TOLERANCE), (4, TOLERANCE_BY_FOUR)])
def test_winograd_at_the_borders(height, width, padding, tile, tolerance, monkeypatch):
    monkeypatch.setattr(convolution, "winograd_tile", lambda *_: tile)
    size = 2 * build.vector_width()
    shape = (3, 3, size, size)
    assert convolution.is_winograd(shape, 1, padding)
    check(problem(0, (3, height, width, size), shape, 1, padding), 1, padding, tolerance)


def test_more_tiles_than_are_in_work_at_once():
    """The kernel gradient adds up several rounds of tiles; more than one task has them forward."""
    size = 4 * build.vector_width()
    shape = (3, 3, size, size)
    assert [convolution.winograd_tile(*of) for of in ((40, 40), (13, 14))] == [4, 2]
    check(problem(1, (5, 40, 40, size), shape, 1, 1), 1, 1, TOLERANCE_BY_FOUR)
    check(problem(1, (21, 13, 14, size), shape, 1, 1), 1, 1)


def test_large_kernels_are_split_by_taps():
    shape = (2, 2, 16 * build.vector_width(), 16 * build.vector_width())
    assert np.prod(shape) > convolution.LARGEST_PART_FLOATS or build.vector_width() < 12
    check(problem(2, (2, 8, 8, shape[2]), shape, 2, 0), 2, 0)


def test_the_same_bits_on_every_call():
    size = 4 * build.vector_width()
    x, kernel, y_bar = problem(3, (4, 30, 30, size), (3, 3, size, size), 1, 1)
    for function, arguments in (
        (convolution.forward, (x, kernel, 1, 1)),
        (convolution.kernel_gradient, (x, y_bar, kernel.shape, 1, 1)),
        (convolution.input_gradient, (y_bar, kernel, x.shape, 1, 1)),
    ):
        first = np.asarray(function(*arguments))
        for _ in range(5):
            np.testing.assert_array_equal(np.asarray(function(*arguments)), first)


@pytest.mark.parametrize("wrapped", ["vmap", "remat", "jit"])
def test_trained_as_plain_where_the_maps_are_large(wrapped):
    size = build.vector_width()
    x, kernel, _ = problem(4, (2, 28, 30, size), (3, 3, size, size), 1, 1)

    def value(function, x, kernel):
        return jnp.sum(jnp.sin(function(x, kernel, 1, 1)))

    def gradients(function):
        run = partial(value, function)
        if wrapped == "vmap":
            many = jax.vmap(run, (0, None))
            return jax.grad(lambda x, kernel: jnp.sum(many(x[:, None], kernel)), (0, 1))
        return jax.grad(jax.checkpoint(run) if wrapped == "remat" else run, (0, 1))

    ours = jax.jit(gradients(convolve))
    assert "uniface_winograd_kernel_gradient" in ours.lower(x, kernel).as_text()
    for a, b in zip(ours(x, kernel), gradients(plain)(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("tile", [2, 3, 4])
def test_wrong_scratch_and_tiles_are_refused(tile):
    size = build.vector_width()
    x = np.ones((1, 4, 4, size), np.float32)
    kernel = np.ones((3, 3, size, size), np.float32)
    results = [
        jax.ShapeDtypeStruct((1, 4, 4, size), np.float32),
        jax.ShapeDtypeStruct((1 if tile != 3 else 10**6,), np.float32),
    ]
    call = jax.ffi.ffi_call("uniface_winograd", results)
    assert build.available()
    with pytest.raises(jax.errors.JaxRuntimeError, match="not as agreed"):
        jax.block_until_ready(call(x, kernel, padding=np.int32(1), tile=np.int32(tile)))
