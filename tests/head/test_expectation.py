"""PCO: a loss of prototypes coupled with class expectations, streamed and sharded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.dense_head import normalized
from uniface_jax import losses
from uniface_jax.errors import UserError
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.expectation import coupled, expected
from uniface_jax.head.loss import Products, Shard
from uniface_jax.head.positives import gather
from uniface_jax.head.samples import in_shard
from uniface_jax.head.sampling import sample_classes
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.losses.expectation import STAGE
from uniface_jax.runtime.parallel import AXIS

RTOL, CLASSES = 1e-9, 13
SCALE, M1, M2 = 8.0, 0.4, 0.25
LAYOUTS = [
    pytest.param(shards, block, marks=() if (shards, block) == (3, 4) else pytest.mark.slow)
    for shards, block in ((1, 1), (1, 13), (2, 4), (3, 4), (8, 2))
]


@functools.cache
def program(shards, block):
    rows = shard_size(CLASSES, shards)
    loss = losses.create("pco", scale=SCALE, margin=M1, expectation_margin=M2)

    def device(counts, weight, memory, features, labels):
        start, valid = owned_classes(CLASSES, rows)
        shard = Shard(Prototypes(weight, jnp.zeros((), weight.dtype), valid), start, rows)
        statistics = {STAGE: jnp.ones((), jnp.float32)}
        found = coupled(
            loss, (shard, in_shard(memory, shard)), (features, labels), statistics,
            Products(block), counts,
        )  # fmt: skip
        after = expected(memory, gather(features, labels), start, found.loss)
        return found.loss, found.gradients.features, found.gradients.weight, after

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:shards]), (AXIS,)),
        in_specs=(P(), P(AXIS), P(AXIS), P(AXIS), P(AXIS)),
        out_specs=(P(), P(AXIS), P(AXIS), P(AXIS)),
        check_vma=False,
    )
    return jax.jit(mapped)


def plain(features, weight, memory, labels, counts):
    """log(1 + Σ e^(z_j - z_y) + Σ e^(u_j - u_y)) over whole matrices; unseen classes have no u."""
    own = np.asarray(labels)[:, None] == np.arange(CLASSES)
    seen = np.any(memory != 0, 1)

    def ratios(directions, margin):
        logits = SCALE * (normalized(features) @ normalized(directions).T - margin * own)
        return logits - jnp.sum(jnp.where(own, logits, 0), 1, keepdims=True)

    one = jnp.sum(jnp.where(own, 0, jnp.exp(ratios(weight, M1))), 1)
    rest = jnp.where(own | ~seen[None], 0, jnp.exp(ratios(memory, M2)))
    two = jnp.where(seen[labels], jnp.sum(rest, 1), 0)
    return jnp.mean(jnp.log1p(one + counts * two))


@pytest.mark.parametrize(("shards", "block"), LAYOUTS)
@pytest.mark.parametrize("counts", [False, True])
def test_the_sum_of_both(x64, shards, block, counts):
    """Values and gradients, with classes that have no expectation among labels and others."""
    rng = np.random.default_rng(0)
    features, weight, memory = (rng.standard_normal((n, 6)) for n in (24, CLASSES, CLASSES))
    labels = rng.integers(0, CLASSES, 24).astype(np.int32)
    labels[:2] = 4, 11
    memory[[4, 7]] = 0
    value, gradients = jax.value_and_grad(plain, (0, 1))(features, weight, memory, labels, counts)
    padded = [np.pad(x, [(0, -CLASSES % shards), (0, 0)]) for x in (weight, memory)]
    loss, by_features, by_weight, after = program(shards, block)(counts, *padded, features, labels)
    np.testing.assert_allclose(loss, value, rtol=RTOL)
    np.testing.assert_allclose(by_features, gradients[0], rtol=RTOL, atol=1e-12)
    np.testing.assert_allclose(by_weight[:CLASSES], gradients[1], rtol=RTOL, atol=1e-12)
    wanted = memory.copy()
    for number, label in enumerate(labels):  # so that the last of a class stays
        own, x = memory[label], features[number]
        lengths = np.linalg.norm(own) * np.linalg.norm(x)
        kept = 1 / (1 + np.exp(-(own @ x) / max(lengths, 1e-5)))
        wanted[label] = kept * own + (1 - kept) * x
    np.testing.assert_allclose(after[:CLASSES], wanted, rtol=1e-12, atol=1e-14)


def test_switches_go_on_and_never_back():
    loss = losses.create("pco")
    stage = loss.initial_statistics()
    for cosine, expected_stage in ((0.3, 0), (-0.5, 1), (0.1, 1), (0.7, 2), (0.0, 2)):
        _, stage = loss.context(jnp.full(4, cosine), jnp.ones(4), stage)
        assert stage[STAGE] == expected_stage
    with pytest.raises(UserError, match=r"loss.expectation_after=0.5: must be below loss.all_cl"):
        losses.create("pco", expectation_after=0.5)


@pytest.mark.parametrize("whole", [False, True])
def test_all_classes_take_part_at_last(whole):
    labels = jnp.array([[1, 5, 5]])

    def device(labels):
        subset = sample_classes(jax.random.key(0), labels, CLASSES, 16, 0.5, jnp.array(whole))
        return subset.row, subset.valid

    row, valid = jax.pmap(device, AXIS, devices=jax.devices()[:1])(labels)
    taken = np.asarray(row)[np.asarray(valid)]
    assert len(taken) == (CLASSES if whole else int(CLASSES * 0.5))
    assert {1, 5} <= set(taken.tolist())
