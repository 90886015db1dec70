"""The first state of a run: the same on any devices, each of which makes its part alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded, create_state
from uniface_jax.train import from_config

CLASSES = 13  # divides by no number of devices


@pytest.fixture(scope="module")
def config():
    config = configs.base()
    config.model.update(name="lresnet18", stage_sizes=(1, 1, 1, 1), width=4, embedding_size=8)
    return config


@pytest.fixture(autouse=True)
def network_of_ones(monkeypatch):
    """In place of the network's random weights, which are not split and compile for long."""
    initialize = models.initialize

    def ones(network, key):
        shapes = jax.eval_shape(lambda: initialize(network, key))
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)

    monkeypatch.setattr(models, "initialize", ones)


def start(config, mode, devices, classes=CLASSES):
    network = configs.create_network(config)
    abstract = from_config.abstract_state(config, network, classes)
    runner = parallel.create_runner(mode, class_sharded(abstract), jax.devices()[:devices])
    return network, runner


def test_the_same_on_any_number_of_devices(config):
    config.loss.name = "bce"  # a bias a class, split as the prototypes are
    network = configs.create_network(config)
    expected = jax.device_get(
        jax.jit(lambda: create_state(network, configs.create_loss(config), CLASSES, 1.0, 0))()
    )
    for mode, devices in (("shard_map", 1), ("shard_map", 2), ("shard_map", 8), ("pmap", 8)):
        network, runner = start(config, mode, devices)
        state = from_config.initial_state(config, network, CLASSES, runner)
        rows = -(-CLASSES // devices)
        for shard in state.weights.prototypes.addressable_shards:
            assert shard.data.shape == (rows, 8)
        jax.tree.map(
            np.testing.assert_array_equal, runner.logical(runner.from_global(state)), expected
        )
    assert np.std(expected.weights.prototypes) == pytest.approx(8**-0.5, rel=0.2)


def test_no_device_holds_all_prototypes(config):
    classes, devices = 1_000_003, 8
    network, runner = start(config, "shard_map", devices, classes)
    make = from_config.random_state(config, network, classes, runner)
    analysis = make.lower().compile().memory_analysis()
    prototypes_and_momentum = 2 * 4 * 8 * -(-classes // devices)
    needed = analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    assert prototypes_and_momentum <= needed
    assert needed < 3 * prototypes_and_momentum  # and the random bits that they are made of
