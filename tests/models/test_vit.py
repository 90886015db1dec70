"""ViT against arcface_torch's, its masking and drop path, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from tests.helpers import golden_networks
from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.models.vit import VARIANTS, ViT, attend, attend_by_pallas, keep_tokens

FEATURES = 512


def golden_vit(**fields) -> ViT:
    return ViT(
        **{"dim": 32, "depth": 3, "heads": 4, "embedding_size": 64, "dtype": jnp.float64} | fields
    )


def test_golden_features_and_gradients(golden2, x64, convolutions_as_products):
    golden_networks.check_features(golden_vit(), "vit", golden2)
    golden_networks.check_training(golden_vit(), "vit", golden2)


def test_golden_masking(golden2, x64, convolutions_as_products):
    expected = golden2("networks")
    noise = jnp.asarray(expected["vit_masked/noise"])
    kept, order = keep_tokens(noise, expected["vit_masked/ids_keep"].shape[1])
    np.testing.assert_array_equal(kept, expected["vit_masked/ids_keep"])
    np.testing.assert_array_equal(order, expected["vit_masked/ids_restore"])
    masked = order >= kept.shape[1]
    np.testing.assert_array_equal(masked, expected["vit_masked/removed"])
    golden_networks.check_training(golden_vit(mask_ratio=0.1), "vit_masked", golden2, noise=noise)


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_of_every_variant(name):
    network = models.create(name, embedding_size=FEATURES)
    params, statistics = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    dim, depth = VARIANTS[name]["dim"], VARIANTS[name]["depth"]
    block = 3 * dim**2 + (dim**2 + dim) + 2 * 4 * dim**2 + 5 * dim + 4 * dim
    tokens = 144
    tail = tokens * dim**2 + 2 * dim + dim * FEATURES + 2 * FEATURES
    patches = 3 * 9 * 9 * dim + dim
    expected = depth * block + tail + patches + (tokens + 1) * dim + 2 * dim
    assert sum(x.size for x in jax.tree.leaves(params)) == expected
    assert statistics["feature_1"]["mean"].shape == (dim,)


def small(**fields):
    sizes = {"dim": 16, "depth": 2, "heads": 2, "embedding_size": 8}
    return models.create("vit_t", **(sizes | {"drop_path": 0.0, "mask_ratio": 0.0} | fields))


@pytest.fixture(scope="module")
def variables():
    params, statistics = jax.jit(lambda: models.initialize(small(), jax.random.key(1)))()
    return {"params": params, "batch_stats": statistics}


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(2), (4, 112, 112, 3), minval=-1)


features = jax.jit(models.features, static_argnums=0)


def trained(network, variables, images, key=3):
    forward = jax.jit(lambda v, x: models.train_forward(network, v, x, jax.random.key(key))[0])
    return np.asarray(forward(variables, images))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"mask_ratio": 0.05}, 136),
        ({"mask_ratio": 0.05, "mask_as_published": True}, 129),
        ({"mask_ratio": 0.0, "mask_as_published": True}, 144),
        ({"mask_ratio": 0.5}, 72),
    ],
)
def test_mask_keeps_what_its_name_says(fields, kept, variables, images):
    """The published code masks 10 % whatever the name; a gradient reaches kept tokens alone."""
    network = small(**fields)
    noise = jax.random.uniform(jax.random.key(5), (4, 144))

    def loss(pixels):
        found, _ = network.apply(
            variables, pixels, train=True, noise=noise, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )  # fmt: skip
        return jnp.sum(found * jnp.arange(8.0)[None])

    by_pixels = jax.jit(jax.grad(loss))(images)[:, :108, :108]
    patches = by_pixels.reshape(4, 12, 9, 12, 9, 3).transpose(0, 1, 3, 2, 4, 5).reshape(4, 144, -1)
    reached = np.asarray(jnp.any(patches != 0, axis=2))
    np.testing.assert_array_equal(reached.sum(1), kept)
    lowest = np.argsort(np.asarray(noise), 1)[:, :kept]
    assert all(reached[i][lowest[i]].all() for i in range(4))


def test_mask_and_drop_path_draw_by_the_key_and_only_in_training(variables, images):
    network = small(mask_ratio=0.3, drop_path=0.5)
    first, again = (trained(network, variables, images) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - trained(network, variables, images, key=4)).max() > 1e-3
    plain = features(small(), variables, images)
    np.testing.assert_array_equal(features(network, variables, images), plain)


def test_remat_and_float64_attention_change_nothing(variables, images, x64):
    network = small(mask_ratio=0.2)
    np.testing.assert_allclose(
        trained(small(mask_ratio=0.2, remat=True), variables, images),
        trained(network, variables, images),
        atol=2e-4,
    )
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, 5, 2, 4))
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / 2
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, value)
    np.testing.assert_allclose(attend(*map(jnp.asarray, (query, key, value))), expected, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [5, 129])
def test_attention_for_tpus_is_the_same(tokens):
    """Values and gradients by JAX's interpreter of a TPU's kernels, padded to blocks of tokens."""
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal((1, tokens, 2, 8)), jnp.float32) for _ in range(3)]
    cotangent = jnp.asarray(rng.standard_normal((1, tokens, 2, 8)), jnp.float32)

    def with_gradients(function):
        mixed, pull = jax.vjp(function, *arrays)
        return mixed, *pull(cotangent)

    with pltpu.force_tpu_interpret_mode():
        found = with_gradients(attend_by_pallas)
    for one, other in zip(found, with_gradients(attend), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_last_rows_and_columns_of_pixels_are_unused(variables, images):
    changed = images.at[:, 108:].set(1.0).at[:, :, 108:].set(-1.0)
    plain = features(small(), variables, images)
    np.testing.assert_array_equal(features(small(), variables, changed), plain)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, r"model.vit.heads=3: must divide vit_t's 16"),
        ({"mask_ratio": 0.995}, r"mask_ratio=0.995: leaves none of the 144 tokens"),
        ({"patch": 112, "mask_ratio": 0.1}, r"mask_ratio=0.1: leaves none of the 1 tokens"),
        ({"attention": "cudnn"}, r"attention='cudnn': with model.dtype='float32'"),
    ],
)
def test_fields_that_do_not_go_together(fields, message):
    with pytest.raises(UserError, match=message):
        small(**fields)
