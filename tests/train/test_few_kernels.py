"""Updates and norms in few kernels are those array by array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.runtime import parallel
from uniface_jax.train import few_kernels, optim

SHAPES = {
    "a": (3, 3, 2, 4),
    "b": (4,),
    "c": (5,),
    "d": (4,),
    "e": (3, 3, 2, 4),
    "f": (6, 4),
    "g": (),
}


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}


def test_by_size_is_array_by_array():
    sgd, lr = optim.Sgd(), jnp.asarray(0.1)
    trees = [drawn(seed) for seed in range(3)]

    def step(weight, buffer, gradient, rate):
        buffer = sgd.momentum * buffer + (gradient + sgd.weight_decay * weight)
        return weight - rate * buffer, buffer

    ours = few_kernels.by_size(step, lr, *trees)
    theirs = optim.sgd_update(sgd, lr, *trees)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_arrays_of_many_share_an_element_of_an_array():
    """Which is what makes one kernel of them: XLA fuses loops over arrays that share an array."""
    rates = {}

    def step(weight, buffer, gradient, rate):
        rates.setdefault(weight.size, []).append(rate)
        return weight, buffer

    few_kernels.by_size(step, jnp.asarray(0.1), *[drawn(0)] * 3)
    shared = rates[72][0]
    assert all(rate is shared for size in (72, 4, 5) for rate in rates[size])
    assert shared.shape == ()
    assert rates[24][0] is not shared


@pytest.mark.parametrize("order", [few_kernels.in_cudnn_order, few_kernels.in_flax_order])
def test_arrays_in_another_order_are_the_same(order):
    tree = drawn(3)
    odd = jnp.asarray([-jnp.inf, jnp.nan, jnp.inf])
    tree |= {"a": tree["a"].at[0, 0, 0, :3].set(odd), "b": tree["b"].at[:3].set(odd)}
    jax.tree.map(np.testing.assert_array_equal, jax.jit(order)(tree), tree)


def test_the_norm_is_that_of_each(monkeypatch):
    monkeypatch.setattr(few_kernels, "MOST_ARRAYS", 2)
    many = [x for x in jax.tree.leaves(drawn(3)) if few_kernels.is_one_of_many(x)]
    assert len(many) == 5
    expected = sum(float(jnp.sum(x**2)) for x in many)
    np.testing.assert_allclose(few_kernels.square_norm(many), expected, rtol=1e-6)
    assert float(few_kernels.square_norm([])) == 0


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
@pytest.mark.parametrize("types", [{"b": "float32", "c": "bfloat16", "e": "float32"}, None])
def test_the_sum_over_devices_is_that_of_each_array(mode, types, x64):
    """Sum small whole numbers, which no order and no type rounds; types: of vectors, if any."""
    rng, devices = np.random.default_rng(0), 8
    shapes = {name: shape for name, shape in SHAPES.items() if types or len(shape) > 1}
    each = {
        name: rng.integers(-8, 8, (devices, *shape)).astype((types or {}).get(name, "float64"))
        for name, shape in shapes.items()
    }
    if types:
        each["b"][1] = [-np.inf, np.nan, np.inf, 1]
    expected = {name: x.sum(0) for name, x in each.items()}
    runner = parallel.create_runner(mode, dict.fromkeys(shapes, False), jax.devices()[:devices])

    def step(state, batch):
        return few_kernels.over_devices({name: x[0] for name, x in batch.items()}), {}

    zeros = runner.place(jax.tree.map(np.zeros_like, expected))
    summed, _ = runner.compile(step)(zeros, runner.put(each))
    summed = runner.logical(summed)
    jax.tree.map(np.testing.assert_array_equal, summed, expected)
    assert {name: x.dtype for name, x in summed.items()} == {n: x.dtype for n, x in each.items()}


def test_arrays_are_scaled_in_their_own_types():
    tree = drawn(3)
    tree["b"] = tree["b"].astype(jnp.bfloat16)
    scaled = jax.jit(few_kernels.scaled)(tree, 0.9)
    expected = jax.tree.map(lambda x: jnp.asarray(0.9, x.dtype) * x, tree)
    jax.tree.map(np.testing.assert_array_equal, scaled, expected)
    assert scaled["b"].dtype == jnp.bfloat16
