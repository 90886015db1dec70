"""The networks by name: sizes as published, options that must not change results."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import models
from uniface_jax.errors import UserError

# Parameters by PyTorch: of the release's LResNetXEIR without head (and without the fixed scale of
# bn5), and of insightface's iresnet (likewise).
PARAMETERS = {
    "lresnet50": 42_377_408,
    "iresnet50": 43_590_848 - 512,
}


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", sorted(models.NETWORKS))
def test_shapes_of_every_network(name):
    network = models.create(name)
    images = jax.ShapeDtypeStruct((2, 112, 112, 3), jnp.float32)
    start = partial(network.init_with_output, train=False)  # models.initialize has one image
    features, variables = jax.eval_shape(start, jax.random.key(0), images)
    assert features.shape == (2, 512)
    if name in PARAMETERS:
        assert count(variables["params"]) == PARAMETERS[name]
    blocks = [key for key in variables["params"] if key.startswith("layer")]
    assert len(blocks) == sum(models.NETWORKS[name][1])


def small(**fields):
    fields = {
        "stage_sizes": (1, 2, 1, 1),
        "width": 4,
        "embedding_size": 8,
        "stem_stride": 2,
    } | fields
    return models.create(fields.pop("name", "lresnet50"), **fields)


initialize = jax.jit(models.initialize, static_argnums=0)


@pytest.fixture(scope="module")
def small_variables():
    params, batch_stats = initialize(small(), jax.random.key(1))
    params = jax.tree.map(lambda x: x + 0.1, params)  # so that no scale is 0
    return {"params": params, "batch_stats": batch_stats}


def test_release_starts_blocks_at_identity():
    params, _ = initialize(small(), jax.random.key(0))
    assert not params["layer1_0"]["bn2"]["scale"].any()

    @jax.jit  # of the rest nothing is computed
    def scale_and_bias():
        params, _ = models.initialize(small(name="iresnet50"), jax.random.key(0))
        return params["layer1_0"]["bn2"]["scale"], params["fc5"]["bias"]

    scale, bias = scale_and_bias()
    assert scale.all()
    assert bias.shape == (8,)


def test_initial_spread_is_kaiming_linear():
    network = models.create("lresnet18")
    kernel = jax.jit(  # of this alone
        lambda key: models.initialize(network, key)[0]["layer3_1"]["conv1"]["kernel"]
    )(jax.random.key(0))
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(9 * 256), rtol=0.02)


@pytest.mark.slow
def test_remat_changes_nothing(small_variables):
    images = jax.random.uniform(jax.random.key(2), (4, 112, 112, 3), minval=-1)

    def gradient(network):
        def loss(params):
            features, _ = network.apply(
                {**small_variables, "params": params}, images, train=True,
                mutable=["batch_stats"], rngs={"dropout": jax.random.key(3)},
            )  # fmt: skip
            return jnp.sum(features**2 * jnp.arange(8.0)[None])

        return jax.jit(jax.grad(loss))(small_variables["params"])

    plain, remat = gradient(small(dropout=0.0)), gradient(small(dropout=0.0, remat=True))
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(plain))
    assert scale > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), plain, remat)


def test_bfloat16_is_close_and_returns_float32(small_variables):
    images = jax.random.uniform(jax.random.key(2), (4, 112, 112, 3), minval=-1)
    wide, low = (
        jax.jit(lambda v, x, n=n: n.apply(v, x, train=False))(small_variables, images)
        for n in (small(), small(dtype="bfloat16"))
    )
    assert low.dtype == jnp.float32
    cosines = jnp.sum(wide * low, -1) / jnp.linalg.norm(wide, axis=-1)
    assert (cosines / jnp.linalg.norm(low, axis=-1) > 0.99).all()
    assert (wide != low).any()


def test_normalize():
    np.testing.assert_allclose(
        models.normalize(jnp.asarray([0, 255, 127], jnp.uint8)), [-1, 1, -0.5 / 127.5]
    )


def test_unknown_name():
    with pytest.raises(UserError, match=r"model.name='resnet50'.*lresnet50"):
        models.create("resnet50")
