"""The mirror sum, of numpy's functions and of JAX's."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.trained_networks import SMALL, feature_function
from uniface_jax.inference.mirror import mirror_sum, mirrored


def test_a_network_does_not_see_the_side():
    network = feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    both = jax.jit(mirror_sum(network))
    images = jax.random.uniform(jax.random.key(2), (3, 112, 112, 3), minval=-1)
    features = both(images)
    np.testing.assert_allclose(features, both(images[:, :, ::-1]), rtol=1e-4, atol=1e-5)
    plain = jax.jit(network)(images)
    assert np.abs(np.asarray(plain - features / 2)).max() > 1e-3


def test_numpy_and_jax_agree_with_the_formula():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)

    def features(x):
        return x[:, 1, 2:].reshape(x.shape[0], -1).astype("float32")

    expected = features(images) + features(images[:, :, ::-1])
    np.testing.assert_array_equal(mirror_sum(features)(images), expected)
    np.testing.assert_array_equal(mirror_sum(features)(jnp.asarray(images)), expected)
    np.testing.assert_array_equal(mirrored(jnp.asarray(images)), mirrored(images))
