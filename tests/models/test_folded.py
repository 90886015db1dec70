"""The folded head of a block gives what its four layers give, one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.models import folded
from uniface_jax.models.channels import Norm, affine, batch_norm, moments
from uniface_jax.models.convolution import plain
from uniface_jax.models.iresnet import IResNet

EPSILON = 1e-5


def layers(x, kernel, first, second):
    """Compute what folded.head does layer by layer; the twin in plain form."""
    x = batch_norm(x, first, None, EPSILON, x.dtype).y
    return batch_norm(plain(x, kernel.astype(x.dtype), 1, 1), second, None, EPSILON, x.dtype).y


def drawn(shape, outputs, dtype, wide, offset):
    rng = np.random.default_rng(0)

    def vector(low, high, size):
        return jnp.asarray(rng.uniform(low, high, size), wide)

    x = jnp.asarray(rng.normal(offset, 1, shape), dtype)
    kernel = jnp.asarray(rng.normal(0, 0.2, (3, 3, shape[-1], outputs)), wide)
    first = Norm(vector(0.5, 2, shape[-1]), vector(-1, 1, shape[-1]), None)
    second = (vector(0.5, 2, outputs), vector(-1, 1, outputs), vector(0.1, 0.5, outputs))
    return x, kernel, first, Norm(*second)


def value_and_gradients(function, arguments):
    def both(*arguments):
        y, backward = jax.vjp(function, *arguments)
        cotangent = jnp.sin(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
        return y, *backward(cotangent)

    return jax.jit(both)(*arguments)


def with_head(x, kernel, first, second):
    """Compute the head of a map that is a block's end, whose gradient comes in three parts."""

    @jax.custom_vjp
    def between(x):
        none = jnp.zeros(x.shape[-1], kernel.dtype)
        return folded.Map(x, None, none, none, moments(x, kernel.dtype))

    def backward(x, parts):
        return ((parts.y + affine(x, parts.along, parts.level)).astype(x.dtype),)

    between.defvjp(lambda x: (between(x), x), backward)
    return folded.head(between(x), kernel, first, second, EPSILON).y


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((3, 5, 4, 3), 5), pytest.param((4, 2, 7, 2), 2, marks=pytest.mark.slow)],
)
def test_as_its_layers_in_double_precision(shape, outputs):
    with jax.enable_x64(True):
        arguments = drawn(shape, outputs, jnp.float64, jnp.float64, offset=1)
        ours = value_and_gradients(with_head, arguments)
        theirs = value_and_gradients(layers, arguments)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * max(np.abs(b).max(), 1))


@pytest.mark.slow
def test_statistics_are_those_of_both_norms():
    x, kernel, first, second = drawn((4, 6, 6, 3), 4, jnp.float32, jnp.float32, offset=1)
    out = folded.head(folded.Map(x, None, None, None, None), kernel, first, second, EPSILON)
    inside = batch_norm(x, first, None, EPSILON, x.dtype)
    after = batch_norm(plain(inside.y, kernel, 1, 1), second, None, EPSILON, x.dtype)
    for ours, theirs in ((out.first, inside), (out.second, after)):
        np.testing.assert_allclose(ours[0], theirs.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours[1], theirs.variance, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.5, pytest.param(3.0, marks=pytest.mark.slow)])
def test_in_half_precision_no_further_from_the_truth_than_the_layers(offset):
    """Compare errors against double precision of the same inputs, all gradients included."""
    arguments = drawn((16, 14, 14, 16), 16, jnp.bfloat16, jnp.float32, offset)
    ours, theirs = (value_and_gradients(f, arguments) for f in (with_head, layers))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), arguments)
        truth = jax.tree.map(np.asarray, value_and_gradients(layers, wide))

    def errors(values):
        pairs = zip(jax.tree.leaves(values), jax.tree.leaves(truth), strict=True)
        return [np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b) for a, b in pairs]

    ratios = np.divide(errors(ours), errors(theirs))
    assert np.exp(np.log(ratios).mean()) < 1.1, ratios


@pytest.mark.slow
def test_a_network_trains_as_without():
    """Compare the joins between blocks too, and what becomes of the statistics."""
    sizes = dict(stage_sizes=(1, 2), width=4, embedding_size=8, dropout=0.0, zero_last_scale=False)
    with jax.enable_x64(True):
        network = IResNet(**sizes, dtype=jnp.float64)
        images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 16, 16, 3)))
        variables = network.init(jax.random.key(0), images, train=False)
        params, statistics = jax.tree.map(
            lambda x: x.astype(jnp.float64), (variables["params"], variables["batch_stats"])
        )

        def run(fold):
            def features(params):
                held = {"params": params, "batch_stats": statistics}
                return network.clone(fold=fold).apply(
                    held, images, train=True, mutable=["batch_stats"]
                )

            y, backward, new = jax.vjp(features, params, has_aux=True)
            return y, new, backward(jnp.sin(jnp.arange(y.size)).reshape(y.shape))

        plainly, ours = (jax.jit(run, static_argnums=0)(fold) for fold in (False, True))
    assert jax.tree.structure(plainly) == jax.tree.structure(ours)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plainly), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11 * max(np.abs(b).max(), 1))
