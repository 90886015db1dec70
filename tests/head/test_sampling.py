"""Partial FC's sampled classes: all positives, uniform negatives, the shards' shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from uniface_jax.head.sampling import sample_classes
from uniface_jax.head.shards import shard_size
from uniface_jax.runtime.parallel import AXIS


def draw_many(labels, num_classes, shards, rate, keys):
    """[draws, C] bool: which classes each key draws."""
    rows = shard_size(num_classes, shards)

    def device(labels, keys):
        def one(key):
            subset = sample_classes(key, labels, num_classes, rows, rate)
            target = jnp.where(subset.valid, subset.row, rows)
            return jnp.zeros(rows, bool).at[target].set(True, mode="drop")

        return jax.lax.map(one, keys)

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:shards]), (AXIS,)),
        in_specs=(P(AXIS), P()),
        out_specs=P(None, AXIS),
        check_vma=False,
    )
    drawn = np.asarray(jax.jit(mapped)(np.asarray(labels, np.int32), keys))
    assert not drawn[:, num_classes:].any()
    return drawn[:, :num_classes]


@pytest.mark.parametrize(("num_classes", "shards"), [(20, 1), (20, 2), (24, 3)])
def test_negatives_are_uniform(num_classes, shards):
    """Chi-square over a shard's negatives; every draw takes the same number of them."""
    labels = np.array([0, 1, 0, 2, 1, 0])
    keys = jax.random.split(jax.random.key(5), 1500)
    drawn = draw_many(labels, num_classes, shards, 0.5, keys)
    rows = num_classes // shards
    for shard in range(shards):
        mine = np.arange(shard * rows, (shard + 1) * rows)
        negatives = np.setdiff1d(mine, labels)
        assert (drawn[:, mine].sum(1) == rows // 2).all()
        counts = drawn[:, negatives].sum(0)
        expected = counts.sum() / len(negatives)
        share = expected / len(keys)
        chi_square = np.sum((counts - expected) ** 2) / (expected * (1 - share))
        # 20 classes: the 99.9 % point of chi-square with 19 degrees of freedom is 43.8.
        assert chi_square < 43.8
        assert expected > 100
    assert drawn[:, [0, 1, 2]].all()
    assert len(np.unique(drawn, axis=0)) > 100


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_all_positives_beyond_the_rate(shards):
    labels = np.arange(16) * 3 % 40
    drawn = draw_many(labels, 40, shards, 0.05, jax.random.split(jax.random.key(0), 3))
    expected = np.zeros(40, bool)
    expected[labels] = True
    if shards == 1:
        np.testing.assert_array_equal(drawn, np.tile(expected, (3, 1)))
    assert drawn[:, expected].all()
    assert (drawn.sum(1) == expected.sum()).all()


def test_last_shard_takes_its_share():
    """Nine classes on eight devices: one device has a single class, three have none."""
    drawn = draw_many(np.zeros(8, int), 9, 8, 0.5, jax.random.split(jax.random.key(0), 40))
    assert drawn[:, 0].all()
    # Two classes on a device: one of them is drawn; the device of class 8 takes int(1 * 0.5).
    assert (drawn[:, 2:8].sum(1) == 3).all()
    assert not drawn[:, 8].any()


def test_a_draw_goes_by_the_key():
    one, same, other = (
        draw_many(np.zeros(2, int), 50, 2, 0.3, jax.random.split(jax.random.key(seed), 1))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
