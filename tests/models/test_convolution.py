"""Convolutions and batch norm with gradients by hand give what plain formulas give, everywhere."""

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from tests.helpers.examples import examples
from tests.helpers.programs import patched_forms
from uniface_jax.models import channels, convolution
from uniface_jax.models.channels import Norm, affine, batch_norm, channel_sums, prelu
from uniface_jax.models.convolution import LAYOUT, convolve

TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=LAYOUT
    )


def draw(rng, *shapes, dtype="float32"):
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def value_and_gradients(function, *arguments):
    """The value and the gradients by all arguments, for a cotangent that differs everywhere."""

    def both(*arguments):
        value, backward = jax.vjp(function, *arguments)
        cotangent = jnp.sin(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        return value, *backward(cotangent.astype(value.dtype))

    return jax.jit(both)(*arguments)  # one program, where operation by operation makes dozens


def assert_close(ours, theirs, dtype):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=TOLERANCE[dtype] * max(np.abs(b).max(), 1))


@given(
    seed=st.integers(0, 1000),
    kernel=st.sampled_from([(1, 0), (2, 0), (3, 1), (3, 0), (2, 1)]),
    stride=st.sampled_from([1, 2, 3]),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
@examples(15)
def test_convolution_as_plain(seed, kernel, stride, height, width, sizes, dtype):
    (size, padding), (batch, inputs, outputs) = kernel, sizes
    rng = np.random.default_rng(seed)
    x, weight = draw(
        rng, (batch, height, width, inputs), (size, size, inputs, outputs), dtype=dtype
    )
    ours = value_and_gradients(partial(convolve, stride=stride, padding=padding), x, weight)
    theirs = value_and_gradients(partial(plain, stride=stride, padding=padding), x, weight)
    assert_close(ours, theirs, dtype)


def transformed(name, function):
    """`function(x, kernel)` under a transformation, for x [8, H, W, C]."""
    if name == "jit":
        return jax.jit(function)
    if name == "remat":
        return jax.checkpoint(function)
    if name == "vmap":
        by_pairs = jax.vmap(function, (0, None))
        return lambda x, kernel: by_pairs(x.reshape(4, 2, *x.shape[1:]), kernel)
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    split, everywhere = PartitionSpec("devices"), PartitionSpec()
    return jax.shard_map(
        function, mesh=mesh, in_specs=(split, everywhere), out_specs=split, check_vma=False
    )


@pytest.mark.parametrize("name", ["jit", "vmap", "remat", "shard_map"])
@pytest.mark.parametrize(("size", "padding"), [(1, 0), (2, 0), (3, 1)])
def test_products_over_patches_under(name, size, padding, monkeypatch):
    """The strided gradients that the CPU takes as products, whatever the size of the map."""
    monkeypatch.setattr(convolution, "FEWEST_POSITIONS", 1)
    assert convolution._gradients((8, 6, 10, 3), (size, size, 3, 4), 2, padding) is not None
    x, weight = draw(np.random.default_rng(0), (8, 6, 10, 3), (size, size, 3, 4))
    ours = transformed(name, partial(convolve, stride=2, padding=padding))
    theirs = transformed(name, partial(plain, stride=2, padding=padding))
    assert_close(
        value_and_gradients(ours, x, weight), value_and_gradients(theirs, x, weight), "float32"
    )


def test_other_platforms_get_the_plain_convolution():
    x, weight = draw(np.random.default_rng(0), (2, 56, 56, 3), (2, 2, 3, 4))
    both = jax.jit(
        lambda x, w: jax.vjp(lambda x, w: convolve(x, w, 2, 0), x, w)[1](jnp.ones((2, 28, 28, 4)))
    )
    expected = {"cpu": 1, "cuda": 2, "tpu": 2}  # the kernel's gradient; and the input's
    for platform, count in expected.items():
        text = both.trace(x, weight).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == count, platform
        assert text.count("dot_general") == (platform == "cpu"), platform


def norm_inputs(seed, shape, with_slope, dtype):
    rng = np.random.default_rng(seed)
    (x,) = draw(rng, shape, dtype=dtype)
    scale, bias, slope = (
        jnp.asarray(rng.uniform(low, high, shape[-1]), jnp.float32)
        for low, high in ((0.5, 2), (-1, 1), (0.1, 0.5))
    )
    return x, scale, bias, *([slope] if with_slope else [])


def normalized(function, inputs):
    """Return what a batch norm gives, and its gradients."""

    def call(x, scale, bias, slope=None):
        y = function(x, scale, bias, slope, 1e-5, x.dtype)
        return y[0] if isinstance(y, tuple) else y

    return value_and_gradients(call, *inputs)


def norm_by_hand(x, scale, bias, slope, epsilon, dtype):
    return batch_norm(x, Norm(scale, bias, slope), None, epsilon, dtype)


def naive_norm(x, scale, bias, slope, epsilon, dtype):
    """In float32 up to the end, unlike the other: automatic sums in bfloat16 are far off."""
    wide = x.astype(scale.dtype)
    axes = tuple(range(x.ndim - 1))
    mean, variance = jnp.mean(wide, axes), jnp.var(wide, axes)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = affine(wide, scale * inverse, bias - mean * scale * inverse)
    return (y if slope is None else prelu(y, slope)).astype(dtype)


@contextmanager
def blocks_of(elements, fewest):
    """Let the CPU's loop add blocks of so many elements."""
    with patched_forms() as patched:
        patched.setattr(channels, "BLOCK_ELEMENTS", elements)
        patched.setattr(channels, "FEWEST_ELEMENTS", fewest)
        yield


@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(6, 3), (4, 4, 5, 3), (3, 7, 7, 2), (8, 13, 11, 4)]),
    with_slope=st.booleans(),
    block=st.sampled_from([1, 64, 2**16]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
@examples(15)
def test_batch_norm_gradients(seed, shape, with_slope, block, dtype):
    inputs = norm_inputs(seed, shape, with_slope, dtype)
    with blocks_of(block, min(channels.FEWEST_ELEMENTS, block)):
        ours = normalized(norm_by_hand, inputs)
    assert_close(ours, normalized(naive_norm, inputs), dtype)


@pytest.mark.parametrize("name", ["jit", "vmap", "remat", "shard_map"])
def test_batch_norm_under(name):
    x, _ = draw(np.random.default_rng(1), (16, 6, 5, 3), (1,))
    vectors = jnp.linspace(0.5, 1.5, 3)

    def with_(function):
        def call(x, v):
            y = function(x, v, v, 0.2 * v, 1e-5, jnp.dtype("float32"))
            return y[0] if isinstance(y, tuple) else y

        return transformed(name, call)

    if name == "vmap":
        x = x[:8]
    assert_close(
        value_and_gradients(with_(norm_by_hand), x, vectors),
        value_and_gradients(with_(naive_norm), x, vectors),
        "float32",
    )


@given(rows=st.integers(1, 200), width=st.integers(1, 40), block=st.sampled_from([1, 40, 300]))
@examples(30)
def test_channel_sums(rows, width, block):
    x = jnp.asarray(np.random.default_rng(rows).standard_normal((rows, width)), jnp.float32)
    with blocks_of(block, 1):
        assert rows % channels.block_rows(rows, width) == 0
        total, square = jax.jit(lambda x: channel_sums(lambda x: (x, jnp.square(x)), [x]))(x)
    np.testing.assert_allclose(total, np.asarray(x, np.float64).sum(0), atol=1e-4)
    np.testing.assert_allclose(square, np.square(np.asarray(x, np.float64)).sum(0), rtol=1e-5)


@pytest.fixture
def as_for_gpus():
    """Take the forms of sums and gradients that are for GPUs alone; the CPU's are their twins."""
    with patched_forms() as patched:
        patched.setattr(channels, "_by_blocks", channels._by_pairs)
        patched.setattr(channels, "_by_channels", channels._by_elements)
        yield


@pytest.mark.parametrize("rows", [1, 7, 96, 1024, 4096])
def test_sums_as_for_gpus(as_for_gpus, rows):
    x = np.random.default_rng(rows).standard_normal((rows, 5))

    def terms(x, shift):
        return x, jnp.square(x), x - shift

    shift = jnp.arange(5.0)
    sums = channel_sums(terms, [jnp.asarray(x, jnp.float32)], [shift])
    for total, term in zip(sums, terms(x, np.arange(5.0)), strict=True):
        np.testing.assert_allclose(total, term.sum(0), rtol=1e-5, atol=1e-4)


def test_moments_as_for_gpus(as_for_gpus):
    """Take two sums in a kernel of their own, of more parts than are added where they are used."""
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 3))
    mean, square = channels.moments(jnp.asarray(x, jnp.float32), jnp.float32)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(square, np.square(x).mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("with_slope", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_norm_as_for_gpus(as_for_gpus, with_slope, dtype):
    inputs = norm_inputs(0, (4, 4, 5, 3), with_slope, dtype)
    assert_close(normalized(norm_by_hand, inputs), normalized(naive_norm, inputs), dtype)
