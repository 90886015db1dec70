"""Networks by fused kernels against the same networks by lax, in float64."""

from functools import partial

import jax
import numpy as np
import pytest

from tests.helpers.tiny_training import small_images
from uniface_jax import models
from uniface_jax.inference import fused
from uniface_jax.native import build

pytestmark = pytest.mark.usefixtures("kernels")


def trained_looking(path, leaf, rng):
    """Weights of unit gain, and statistics and scales unlike 0 and 1."""
    kind = path[-1].key
    values = rng.uniform(0.6, 1.2, leaf.shape)
    if kind == "kernel":
        values = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    elif kind in ("mean", "bias"):
        values = rng.normal(0, 0.5, leaf.shape)
    return values.astype(np.float32)


def network_and_variables(name, size, **fields):
    network = models.create(name, embedding_size=8, **fields)
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = jax.eval_shape(partial(network.init, train=False), jax.random.key(0), images)
    look = partial(trained_looking, rng=np.random.default_rng(0))
    return network, jax.tree_util.tree_map_with_path(look, shapes)


RESNET = {"stage_sizes": (1, 2), "width": 16}
SLOW = pytest.mark.slow
PARTED = 2 * fused.IMAGES_AT_A_TIME + 1


@pytest.mark.parametrize(
    ("images", "name", "fields"),
    [
        (3, "lresnet50", RESNET),
        (3, "iresnet50", RESNET),
        (PARTED, "lresnet50", RESNET),
        (PARTED, "iresnet50", RESNET),
        (PARTED, "mbf", {"blocks": (1, 1, 2, 1), "scale": 2}),
        pytest.param(3, "mbf", {"blocks": (1, 1, 1, 1), "scale": 1}, marks=SLOW),
        pytest.param(3, "mbf_large", {"blocks": (2, 1, 1, 1)}, marks=SLOW),
        pytest.param(PARTED, "mbf_large", {"blocks": (2, 1, 1, 1)}, marks=SLOW),
    ],
)
def test_features_are_the_networks(images, name, fields):
    with small_images(22):
        network, variables = network_and_variables(name, 22, **fields)
        assert fused.suits(network)
        rng = np.random.default_rng(1)
        pixels = rng.uniform(-1, 1, (images, 22, 22, 3)).astype(np.float32)
        found = jax.jit(partial(fused.features, network))(variables, pixels)
        with jax.enable_x64(True):
            wide, exact = jax.tree.map(
                lambda x: np.asarray(x, np.float64), ((variables, pixels)), is_leaf=None
            )
            network = network.clone(dtype="float64")
            expected = jax.jit(partial(models.features, network))(wide, exact)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def test_others_are_left_to_lax(monkeypatch):
    width = build.vector_width()
    assert fused.suits(models.create("lresnet18", width=width))
    assert not fused.suits(models.create("lresnet18", width=width // 2))
    assert not fused.suits(models.create("lresnet18", width=width, dtype="bfloat16"))
    assert fused.suits(models.create("mbf"))
    assert not fused.suits(models.create("mbf", dtype="bfloat16"))
    assert not fused.suits(models.create("mbf", scale=3))  # groups of three
    assert fused.suits(models.create("mbf_large", scale=3))  # has none
    assert not fused.suits(models.create("vit_t"))
    with build.off():
        assert not fused.suits(models.create("mbf"))
        assert not fused.suits(models.create("lresnet18", width=width))
