"""The fused convolutions against lax's and batch norm's formulas in float64, and their error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.convolution_problems import plain
from tests.helpers.examples import examples
from uniface_jax.models.channels import affine, prelu
from uniface_jax.native import build
from uniface_jax.native.fused_convolution import Affine, Around, forward

pytestmark = pytest.mark.usefixtures("kernels")

# Of the largest value; Winograd's F(4x4, 3x3) has larger intermediate values than it.
TOLERANCE = 1e-5


def problem(seed, shape, kernel_shape, stride, padding, with_all=True):
    """x, kernel and an Around with everything that the kernel takes, or with little."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    x, kernel = normal(*shape), normal(*kernel_shape)
    y = jax.eval_shape(lambda x, k: plain(x, k, stride, padding), x, kernel)
    after = Affine(normal(y.shape[3]), normal(y.shape[3]))
    if not with_all:
        return x, kernel, Around(after)
    before = Affine(normal(shape[3]), 3 + normal(shape[3]))
    return x, kernel, Around(after, before, normal(y.shape[3]), normal(*y.shape))


def expected(x, kernel, stride, padding, around):
    """The same in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda a: jnp.asarray(a, jnp.float64),
            (x, kernel, around.after.scale, around.after.shift, around.slope, around.added),
        )
        x, kernel, scale, shift, slope, added = wide
        if around.before is not None:
            x = affine(x, *(getattr(around.before, of).astype("f8") for of in ("scale", "shift")))
        y = affine(plain(x, kernel, stride, padding), scale, shift)
        y = y if slope is None else prelu(y, slope)
        return np.asarray(y if added is None else y + added)


def check(x, kernel, around, stride, padding):
    ours = np.asarray(forward(x, kernel, stride, padding, around))
    reference = expected(x, kernel, stride, padding, around)
    assert ours.shape == reference.shape
    largest = max(np.abs(reference).max(), 1)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=TOLERANCE * largest)


@given(
    seed=st.integers(0, 1000),
    case=st.sampled_from([(3, 1, 1), (3, 1, 0), (3, 1, 2), (3, 2, 1), (2, 2, 0), (1, 2, 0)]),
    batch=st.integers(1, 3),
    height=st.integers(3, 18),
    width=st.integers(9, 18),
    inputs=st.sampled_from([3, "w", "3w", "5w"]),
    outputs=st.sampled_from(["w", "4w", "7w"]),
    with_all=st.booleans(),
)
@examples(24)
def test_any_shape(seed, case, batch, height, width, inputs, outputs, with_all):
    def channels(given):
        return given if isinstance(given, int) else int(given[:-1] or 1) * build.vector_width()

    side, stride, padding = case
    shape = (batch, height, width, channels(inputs))
    kernel_shape = (side, side, shape[3], channels(outputs))
    given = problem(seed, shape, kernel_shape, stride, padding, with_all)
    check(*given, stride, padding)


def test_an_image_alone_has_the_bits_that_it_has_among_others():
    """Tasks end at other tiles then: no sum may depend on them."""
    size = 4 * build.vector_width()
    x, kernel, around = problem(1, (7, 14, 14, size), (3, 3, size, size), 1, 1)
    together = np.asarray(forward(x, kernel, 1, 1, around))
    for image in (0, 6):
        own = Around(around.after, around.before, around.slope, around.added[image : image + 1])
        alone = np.asarray(forward(x[image : image + 1], kernel, 1, 1, own))
        np.testing.assert_array_equal(alone[0], together[image])
        np.testing.assert_array_equal(forward(x[image : image + 1], kernel, 1, 1, own), alone)
