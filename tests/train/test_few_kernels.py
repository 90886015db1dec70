"""Updates and norms in few kernels are those array by array."""

import jax
import jax.numpy as jnp
import numpy as np

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


def test_arrays_of_one_size_share_an_operand():
    """Which is what makes one kernel of them: XLA fuses loops over arrays that they share."""
    shared = {}

    def step(weight, buffer, gradient, rate):
        shared.setdefault(weight.size, []).append(rate)
        return weight, buffer

    few_kernels.by_size(step, jnp.asarray(0.1), *[drawn(0)] * 3)
    assert {size: len(rates) for size, rates in shared.items()} == {72: 2, 4: 2, 5: 1, 24: 1, 1: 1}
    for size, rates in shared.items():
        assert all(rate is rates[0] for rate in rates)
        assert rates[0].shape == ((size,) if len(rates) > 1 else ())


def test_the_norm_and_the_gathered_are_those_of_each():
    tree = drawn(3)
    found = few_kernels.gathered(tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    many = [x for x in jax.tree.leaves(tree) if few_kernels.is_one_of_many(x)]
    assert len(many) == 5
    expected = sum(float(jnp.sum(x**2)) for x in many)
    np.testing.assert_allclose(few_kernels.square_norm(many), expected, rtol=1e-6)
    assert few_kernels.gathered({"b": tree["b"]}) == {"b": tree["b"]}
    assert float(few_kernels.square_norm([])) == 0
