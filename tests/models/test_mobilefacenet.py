"""MobileFaceNet against arcface_torch's, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import golden_networks
from uniface_jax import models
from uniface_jax.models.mobilefacenet import MobileFaceNet

GOLDEN = {
    "mbf": ((1, 2, 2, 1), 1),
    "mbf_large": ((2, 2, 2, 1), 1),
    "mbf_scale2": ((1, 1, 1, 1), 2),  # two channels a group in the second convolution
}


# The one that has all that the others have, and a convolution in groups, in the fast part.
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c == "mbf_scale2" else [pytest.mark.slow]) for c in GOLDEN],
)
def test_golden_features_and_gradients(case, golden2, x64, convolutions_as_products):
    network = MobileFaceNet(*GOLDEN[case], embedding_size=64, dtype=jnp.float64)
    golden_networks.check_features(network, case, golden2)
    golden_networks.check_training(network, case, golden2)


@pytest.mark.parametrize(("name", "stages"), [("mbf", (1, 4, 6, 2)), ("mbf_large", (2, 8, 12, 4))])
def test_stages_and_channels(name, stages):
    network = models.create(name)
    params, _ = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    channels = params["layers_0"]["layers_0"]["kernel"].shape[-1]
    assert channels == (128 if name == "mbf" else 256)
    residual = [params[f"layers_{n}"] for n in (1, 3, 5, 7)]
    assert [len(stage) for stage in residual[1:]] == [*stages[1:]]
    assert params["conv_sep"]["layers_0"]["kernel"].shape == (1, 1, 2 * channels, 512)
    # The width of the depthwise convolutions does not grow with the scale.
    assert params["layers_5"]["layers_0"]["layers_1"]["layers_0"]["kernel"].shape == (3, 3, 1, 256)


@pytest.mark.slow  # test_vit.py has a cheaper one
def test_remat_changes_nothing():
    fields = {"blocks": (2, 1, 1, 1), "scale": 1, "embedding_size": 8}
    network = models.create("mbf", **fields)
    params, statistics = jax.jit(lambda: models.initialize(network, jax.random.key(0)))()
    images = jax.random.uniform(jax.random.key(1), (4, 112, 112, 3), minval=-1)

    def gradient(remat):
        network = models.create("mbf", **fields, remat=remat)

        def loss(params):
            found, _ = models.train_forward(
                network, {"params": params, "batch_stats": statistics}, images, jax.random.key(2)
            )
            return jnp.sum(found**2 * jnp.arange(8.0)[None])

        return jax.jit(jax.grad(loss))(params)

    plain, again = gradient(False), gradient(True)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(again), strict=True
    ):
        scale = np.abs(one).max()
        np.testing.assert_allclose(other, one, atol=1e-3 * scale + 1e-4, err_msg=str(path))
