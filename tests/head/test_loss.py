"""The streamed, sharded, sampled head against the dense formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.dense_head import assert_same, dense
from tests.helpers.examples import examples
from tests.helpers.sharded_head import run_head
from uniface_jax import losses
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Products, Shard, loss_and_gradients
from uniface_jax.head.positives import gather
from uniface_jax.head.shards import owned_classes
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


# Of each family and of each kind of context one; the others are slow, since what is sampled is the
# head's concern, and the test above has every loss.
KINDS = ("bce", "magface")


def kinds_first(*names):
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", kinds_first(*losses.LOSSES))
def test_every_loss_sampled(name, x64):
    arrays = problem(8, 29, 6, name, rate=0.5)
    result, drawn = run_head(name, *arrays, shards=2, block=4, sampling=(jax.random.key(1), 0.5))
    assert drawn[arrays[3]].all()
    assert drawn.sum() == int(15 * 0.5) + int(14 * 0.5)
    assert_same(result, dense(name, *arrays, classes=np.flatnonzero(drawn)))


@pytest.mark.parametrize("name", kinds_first(*losses.LOSSES))
def test_every_loss_with_subcentres(name, x64):
    """Three prototypes a class, streamed, sharded and sampled; the largest cosine counts."""
    features, prototypes, bias, labels = problem(8, 29, 6, name, rate=0.5)
    several = np.random.default_rng(1).standard_normal((29, 3, 6))
    several[:, 1] = prototypes
    arrays = (features, several, bias, labels)
    result, drawn = run_head(name, *arrays, shards=2, block=4, sampling=(jax.random.key(1), 0.5))
    assert_same(result, dense(name, *arrays, classes=np.flatnonzero(drawn)))


def test_sphereface2_detached(x64):
    """The release's gradient, through the whole head: the slope of g is 1."""
    arrays = problem(8, 13, 6, "sphereface2")
    result, _ = run_head("sphereface2", *arrays, shards=2, block=3, fixed={"gradient": "detached"})
    expected = dense("sphereface2", *arrays, gradient="detached")
    assert_same(result, expected)
    formula = dense("sphereface2", *arrays)
    assert result.loss == pytest.approx(float(formula[0]), rel=1e-12)
    assert not np.allclose(result.gradients.features, formula[1], rtol=0.1)


@examples(10)
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


@pytest.mark.parametrize("name", ["uce", pytest.param("cosface", marks=pytest.mark.slow)])
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
@pytest.mark.parametrize(
    "name", ["uce", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bce", "arcface"))]
)
def test_few_classes(name, num_classes, shards, x64):
    arrays = problem(8, num_classes, 4, name)
    result, _ = run_head(name, *arrays, shards=shards, block=2)
    assert_same(result, dense(name, *arrays))


@pytest.mark.parametrize("name", kinds_first("uce", "bce", "arcface"))
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
    features[3] *= 1e-7
    prototypes[labels[2]] = 0
    prototypes[(labels[2] + 1) % 9] *= 1e-7
    result, _ = run_head("uce", features, prototypes, bias, labels, shards=2, block=2)
    expected = dense("uce", features, prototypes, bias, labels)
    np.testing.assert_allclose(result.loss, expected[0], rtol=1e-9)
    # Of a vector of length 0 the dense formula's own gradient is a NaN.
    for found, other, rows in zip(
        result.gradients[:2], expected[1:3], (features, prototypes), strict=True
    ):
        some = rows.any(1)
        assert np.min(np.linalg.norm(rows[some], axis=1)) < 1e-5
        np.testing.assert_allclose(found[some], other[some], rtol=1e-9, atol=1e-10)
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


@pytest.mark.parametrize(
    ("dtype", "most"), [("bfloat16", 0.02), ("float8_e4m3fn", 0.1), ("int8", 0.1)]
)
def test_products_of_few_bits_are_close(dtype, most):
    arrays = [np.float32(x) for x in problem(16, 40, 64)]
    exact, _ = run_head("uce", *arrays, block=16)
    low, _ = run_head("uce", *arrays, block=16, product_dtype=jnp.dtype(dtype))
    for got, want in zip((low.loss, *low.gradients), (exact.loss, *exact.gradients), strict=True):
        error = np.linalg.norm(np.asarray(got) - want) / np.linalg.norm(want)
        assert 0 < error < most
        assert got.dtype == jnp.float32


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


@pytest.mark.parametrize("name", ["uce", "cosface"])
def test_no_tile_of_all_classes(name):
    """The compiler's own account of the working memory, far below one [B, C] matrix."""
    batch, num_classes, dimension, block = 64, 20_000, 16, 256
    loss = losses.create(name)

    def device(features, labels, weight, bias):
        start, valid = owned_classes(num_classes, num_classes)
        shard = Shard(Prototypes(weight, bias, valid), start, num_classes)
        result = loss_and_gradients(loss, shard, gather(features, labels), products=Products(block))
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
