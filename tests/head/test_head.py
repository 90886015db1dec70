"""The streamed, sharded, sampled head against the dense formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.dense_head import assert_same, dense, run_head
from uniface_jax import losses
from uniface_jax.head.block_size import block_of_budget
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Products, Shard, loss_and_gradients
from uniface_jax.head.sampling import sample_classes
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.runtime.parallel import AXIS


def problem(batch, num_classes, dimension, name="uce", seed=0, rate=1.0, **hyperparameters):
    rng = np.random.default_rng(seed)
    loss = losses.create(name, **hyperparameters)
    bias = np.full((num_classes,) if loss.bias == "class" else (), 0.0)
    bias = bias + loss.initial_bias(num_classes, rate) + rng.normal(0, 3, bias.shape)
    labels = rng.integers(0, num_classes, batch)
    features = rng.normal(0, 3, (batch, dimension))
    prototypes = rng.standard_normal((num_classes, dimension))
    # Half of the samples are near their prototypes, as they are later in training.
    features[::2] = 4 * prototypes[labels[::2]] + 0.3 * features[::2]
    return features, prototypes, bias, labels


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_streamed_and_sharded(name, x64):
    arrays = problem(8, 13, 6, name)
    result, _ = run_head(name, *arrays, shards=2, block=3)
    assert_same(result, dense(name, *arrays))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_sampled(name, x64):
    arrays = problem(8, 29, 6, name, rate=0.5)
    result, drawn = run_head(name, *arrays, shards=2, block=4, sampling=(jax.random.key(1), 0.5))
    assert drawn[arrays[3]].all()
    assert drawn.sum() == int(15 * 0.5) + int(14 * 0.5)
    assert_same(result, dense(name, *arrays, classes=np.flatnonzero(drawn)))


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_shape_blocks_and_shards(data):
    shards = data.draw(st.sampled_from([1, 2, 3, 5, 8]))
    batch = shards * data.draw(st.integers(1, 3))
    num_classes = data.draw(st.integers(1, 20))
    dimension = data.draw(st.integers(1, 9))
    block = data.draw(st.integers(1, 21))
    name = data.draw(st.sampled_from(["uce", "bce", "cosface", "sphereface2", "adaface"]))
    if name == "adaface":
        batch = max(batch, 2 * shards)  # it needs a standard deviation
    rate = data.draw(st.sampled_from([None, 0.05, 0.3, 0.5, 0.9]))
    seed = data.draw(st.integers(0, 2**31 - 1))
    with jax.enable_x64(True):
        arrays = problem(batch, num_classes, dimension, name, seed)
        sampling = None if rate is None else (jax.random.key(seed), rate)
        result, drawn = run_head(name, *arrays, shards=shards, block=block, sampling=sampling)
        assert drawn[arrays[3]].all()
        assert_same(result, dense(name, *arrays, classes=np.flatnonzero(drawn)))


@pytest.mark.parametrize("name", ["uce", "cosface"])
@pytest.mark.parametrize("labels", ["first shard", "last shard", "all the same", "every shard"])
def test_where_the_labels_are(name, labels, x64):
    features, prototypes, bias, _ = problem(8, 15, 5, name)
    labels = {
        "first shard": np.arange(8) % 4,
        "last shard": 12 + np.arange(8) % 3,
        "all the same": np.full(8, 9),
        "every shard": 2 * np.arange(8) % 15,
    }[labels]
    result, _ = run_head(name, features, prototypes, bias, labels, shards=4, block=3)
    assert_same(result, dense(name, features, prototypes, bias, labels))


@pytest.mark.parametrize(
    ("num_classes", "shards"),
    [(1, 1), (1, 4), (3, 8), (8, 8), (9, 8)],
    ids=["one class", "one class on four", "fewer than devices", "one each", "six empty devices"],
)
@pytest.mark.parametrize("name", ["uce", "bce", "arcface"])
def test_few_classes(name, num_classes, shards, x64):
    arrays = problem(8, num_classes, 4, name)
    result, _ = run_head(name, *arrays, shards=shards, block=2)
    assert_same(result, dense(name, *arrays))


@pytest.mark.parametrize("name", ["uce", "bce", "arcface"])
def test_pmap_is_shard_map(name):
    arrays = [np.float32(x) for x in problem(8, 13, 6, name)]
    statistics = losses.create(name).initial_statistics()
    one, _ = run_head(name, *arrays, shards=4, block=3, statistics=statistics)
    other, _ = run_head(name, *arrays, shards=4, block=3, statistics=statistics, mode="pmap")
    assert_same(other, (one.loss, *one.gradients), rtol=1e-5)
    np.testing.assert_allclose(other.similarities, one.similarities, rtol=1e-5)


def test_zero_vectors_have_no_direction(x64):
    """Norms are floored at 1e-5: no NaN, and below the floor the slope of the norm is zero."""
    features, prototypes, bias, labels = problem(4, 9, 5)
    features[1] = 0
    prototypes[labels[2]] = 0
    prototypes[(labels[2] + 1) % 9] *= 1e-7
    result, _ = run_head("uce", features, prototypes, bias, labels, shards=2, block=2)
    expected = dense("uce", features, prototypes, bias, labels)
    np.testing.assert_allclose(result.loss, expected[0], rtol=1e-9)
    small = np.linalg.norm(prototypes, axis=1) < 1e-5
    np.testing.assert_allclose(
        result.gradients.weight[~small], expected[2][~small], rtol=1e-9, atol=1e-10
    )
    assert np.isfinite(result.gradients.features).all()
    assert np.isfinite(result.gradients.weight).all()


def test_similarities_of_the_whole_matrix(x64):
    features, prototypes, bias, labels = problem(6, 17, 3)
    bias = np.float64(64 * 0.3)
    result, _ = run_head("uce", features, prototypes, bias, labels, shards=3, block=4)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    cos = unit(features) @ unit(prototypes).T
    own = np.arange(17)[None] == labels[:, None]
    found = result.similarities
    np.testing.assert_allclose(found.min_positive, cos[own].min())
    np.testing.assert_allclose(found.max_negative, cos[~own].max())
    np.testing.assert_allclose(found.positives_below, (cos[own] <= 0.3).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.negatives_above, (cos[~own] > 0.3).mean(), rtol=1e-6)
    assert 0 < found.positives_below < 1
    assert 0 < found.negatives_above < 1


def test_bfloat16_products_are_close():
    arrays = [np.float32(x) for x in problem(16, 40, 64)]
    exact, _ = run_head("uce", *arrays, block=16)
    low, _ = run_head("uce", *arrays, block=16, product_dtype=jnp.bfloat16)
    for got, want in zip((low.loss, *low.gradients), (exact.loss, *exact.gradients), strict=True):
        error = np.linalg.norm(np.asarray(got) - want) / np.linalg.norm(want)
        assert 0 < error < 0.02
        assert got.dtype == jnp.float32


# Sampling


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


# Statistics of the adaptive losses


@pytest.mark.parametrize("name", ["adaface", "curricularface"])
def test_statistics_are_the_same_on_any_devices(name, x64):
    arrays = problem(8, 13, 6, name)
    one, _ = run_head(name, *arrays, shards=1)
    many, _ = run_head(name, *arrays, shards=4)
    start = losses.create(name).initial_statistics()
    assert one.statistics.keys() == start.keys()
    for key, value in one.statistics.items():
        assert value != start[key]
        np.testing.assert_allclose(many.statistics[key], value, rtol=1e-6)


def test_curricularface_folds_batches_in_order(x64):
    arrays = problem(8, 13, 6)
    features, prototypes, _, labels = arrays

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    own = np.sum(unit(features) * unit(prototypes)[labels], 1).mean()
    first, _ = run_head("curricularface", *arrays)
    np.testing.assert_allclose(first.statistics["positive_mean"], 0.01 * own, rtol=1e-6)
    second, _ = run_head("curricularface", *arrays, statistics=dict(first.statistics))
    np.testing.assert_allclose(
        second.statistics["positive_mean"], (0.01 + 0.99 * 0.01) * own, rtol=1e-6
    )
    assert second.loss != first.loss


# Memory


def test_block_of_a_budget():
    assert block_of_budget(None, 256, 512) == 768  # 5.25 MiB: 3 tiles of 0.75, 2 slices of 1.5
    assert block_of_budget(8.0, 256, 512) == 1152
    assert block_of_budget(0.1, 4096, 512) == 8
    assert block_of_budget(0.5, 256, 512) == 73


@pytest.mark.parametrize("name", ["uce", "cosface"])
def test_no_tile_of_all_classes(name):
    """The compiler's own account of the working memory, far below one [B, C] matrix."""
    batch, num_classes, dimension, block = 64, 20_000, 16, 256
    loss = losses.create(name)

    def device(features, labels, weight, bias):
        start, valid = owned_classes(num_classes, num_classes)
        shard = Shard(Prototypes(weight, bias, valid), start, num_classes)
        result = loss_and_gradients(loss, shard, features, labels, products=Products(block))
        return result.loss, result.gradients

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:1]), (AXIS,)),
        in_specs=P(),
        out_specs=P(),
        check_vma=False,
    )
    shapes = [(batch, dimension), (batch,), (num_classes, dimension), ()]
    dtypes = [jnp.float32, jnp.int32, jnp.float32, jnp.float32]
    arguments = [jax.ShapeDtypeStruct(*x) for x in zip(shapes, dtypes, strict=True)]
    compiled = jax.jit(mapped).lower(*arguments).compile()
    working = compiled.memory_analysis().temp_size_in_bytes
    assert 4 * batch * block < working < 0.15 * 4 * batch * num_classes
