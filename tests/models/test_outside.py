"""Networks from outside: any Flax module, with or without `train`, statistics and bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.registered import forgotten
from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.models.layers import BatchNorm, PReLU
from uniface_jax.registry import Range

SIZE = 16


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(models, "IMAGE_SIZE", SIZE)
    with forgotten():
        yield


class Plain(nn.Module):
    """Without `train`, statistics or anything random."""

    embedding_size: int
    dtype: object

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(4, (3, 3), 4, dtype=self.dtype)(images))
        return nn.Dense(self.embedding_size, dtype=self.dtype)(x.mean((1, 2)))


class Both(nn.Module):
    """Flax's batch norm and ours, a PReLU, a slope of its own, and a stream of its own."""

    embedding_size: int
    dtype: object
    rate: float = 0.5

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3), 4)(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="flax")(x)
        x = BatchNorm(name="ours")(x, train, PReLU(name="prelu")(4))
        x = x * self.param("slope", nn.initializers.constant(-1.0), (4,))[None, None, None]
        x = nn.Dropout(self.rate, deterministic=not train, rng_collection="path")(x)
        return nn.Dense(self.embedding_size)(x.mean((1, 2)))


def variables_of(network):
    params, batch_stats = models.initialize(network, jax.random.key(0))
    return {"params": params, "batch_stats": batch_stats}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plain_module(dtype):
    models.register_network("plain")(Plain)
    network = models.create("plain", embedding_size=8, dtype=dtype)
    variables = variables_of(network)
    assert variables["batch_stats"] == {}
    images = jax.random.normal(jax.random.key(1), (3, SIZE, SIZE, 3))
    features = models.features(network, variables, images)
    assert (features.shape, features.dtype) == ((3, 8), jnp.float32)
    in_training, batch_stats = models.train_forward(network, variables, images, jax.random.key(2))
    np.testing.assert_array_equal(in_training, features)
    assert batch_stats == {}
    expected = network.module.apply({"params": variables["params"]}, images)
    assert expected.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(features, expected.astype(jnp.float32))


def test_statistics_and_random_streams():
    models.register_network("both", rate=Range("any", lambda rate: True))(Both)
    network = models.create("both", embedding_size=8)
    variables = variables_of(network)
    marks = models.marks(network)
    assert marks.folded == {
        "flax": {"mean": False, "var": False}, "ours": {"mean": True, "var": True}
    }  # fmt: skip
    assert marks.slopes["prelu"] == {"slope": True}
    assert marks.slopes["slope"] is False
    assert sum(jax.tree.leaves(marks.slopes)) == 1
    images = jax.random.normal(jax.random.key(1), (6, SIZE, SIZE, 3)) + 2
    drawn = [
        models.train_forward(network, variables, images, jax.random.key(seed))[0]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    plain = models.features(network, variables, images)
    np.testing.assert_array_equal(plain, models.features(network, variables, images))


class Cached(Plain):
    @nn.compact
    def __call__(self, images):
        self.variable("cache", "seen", jnp.zeros, (3,))
        return jnp.zeros((len(images), self.embedding_size)) + self.param("w", nn.zeros, (1, 1))


class Half(Plain):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.embedding_size, param_dtype=jnp.bfloat16)(images.mean((1, 2)))


class Wide(Plain):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.embedding_size + 1)(images.mean((1, 2)))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (Cached, r"model.name='odd': has variables in 'cache'; training keeps params and batch_st"),
        (
            Half,
            r"model.name='odd': \['params'\]\['Dense_0'\]\['bias'\] is bfloat16; variables must",
        ),
        (Wide, r"model.name='odd': gives \(2, 9\) for two images, expected features \(2, 8\)"),
        (lambda embedding_size, dtype: 3, r"model.name='odd': made a int; expected a flax.linen.M"),
    ],
)
def test_what_is_no_network_is_refused_before_anything_is_computed(factory, message):
    models.register_network("odd")(factory)
    with pytest.raises(UserError, match=message):
        models.create("odd", embedding_size=8)
