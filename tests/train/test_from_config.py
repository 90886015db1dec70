"""A recipe's length, learning rate and first state: the same on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.cli import recipes
from uniface_jax.errors import UserError
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
    recipe = from_config.make_recipe(config, 10 * classes, classes)
    runner = parallel.create_runner(mode, class_sharded(recipe.shapes), jax.devices()[:devices])
    return recipe, runner


def test_the_same_on_any_number_of_devices(config):
    config.loss.name = "bce"  # a bias a class, split as the prototypes are
    recipe = from_config.make_recipe(config, 10 * CLASSES, CLASSES)
    expected = jax.device_get(
        jax.jit(lambda: create_state(recipe.network, recipe.loss, CLASSES, 1.0, 0))()
    )
    for mode, devices in (("shard_map", 1), ("shard_map", 2), ("shard_map", 8), ("pmap", 8)):
        recipe, runner = start(config, mode, devices)
        state = from_config.initial_state(recipe, runner)
        rows = -(-CLASSES // devices)
        for shard in state.weights.prototypes.addressable_shards:
            assert shard.data.shape == (rows, 8)
        jax.tree.map(
            np.testing.assert_array_equal, runner.logical(runner.from_global(state)), expected
        )
    assert np.std(expected.weights.prototypes) == pytest.approx(8**-0.5, rel=0.2)


def test_prototypes_with_another_deviation(config):
    """insightface's starts at .01: the same directions, all lengths changed alike."""
    recipe, runner = start(config, "shard_map", 2)
    usual = from_config.initial_state(recipe, runner)
    config.head.init_std = 0.01
    try:
        recipe, runner = start(config, "shard_map", 2)
        small = from_config.initial_state(recipe, runner)
    finally:
        config.head.init_std = None
    np.testing.assert_allclose(
        small.weights.prototypes, usual.weights.prototypes * (0.01 * 8**0.5), rtol=1e-6
    )
    assert np.std(small.weights.prototypes[:CLASSES]) == pytest.approx(0.01, rel=0.2)
    assert not np.any(small.momentum.prototypes)


def test_no_device_holds_all_prototypes(config):
    classes, devices = 1_000_003, 8
    recipe, runner = start(config, "shard_map", devices, classes)
    make = from_config.random_state(recipe, runner)
    analysis = make.lower().compile().memory_analysis()
    prototypes_and_momentum = 2 * 4 * 8 * -(-classes // devices)
    needed = analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    assert prototypes_and_momentum <= needed
    assert needed < 3 * prototypes_and_momentum  # and the random bits that they are made of


@pytest.mark.parametrize(
    ("changes", "images", "expected"),
    [
        ({"epochs": 2.0}, 1000, (15.625, 31)),
        ({"epochs": 2.0, "steps": 7}, 1000, (15.625, 7)),
        ({"epochs": 0.01}, 64, (1.0, 1)),  # never without a step
        ({}, 0, (0.0, 1)),  # a workdir of foreign weights knows no data
    ],
)
def test_the_schedule(config, changes, images, expected):
    config = config.copy_and_resolve_references()
    config.update(batch_size=64, **changes)
    assert from_config.make_recipe(config, images, CLASSES).schedule == expected


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("steps", 100, 0.1),
        ("steps", 161, 0.01),  # after the milestone at epoch 16 of 10 steps
        ("polynomial", 10, 0.05),  # warmed up half of two epochs
        ("polynomial", 150, 0.1 / 4),
        ("cosine", 150, 0.05),
        ("constant", 10, 0.05),
        ("constant", 150, 0.1),
    ],
)
def test_the_learning_rate_goes_by_epochs(config, schedule, step, expected):
    config = config.copy_and_resolve_references()
    config.optim.update(schedule=schedule, warmup_epochs=2.0)
    config.update(batch_size=64, epochs=28.0)
    recipe = from_config.make_recipe(config, 640, CLASSES)
    assert float(recipe.learning_rate(jnp.asarray(step))) == pytest.approx(expected, rel=1e-6)


def test_a_warm_up_in_steps_counts_instead_of_epochs(config):
    config = config.copy_and_resolve_references()
    config.update(batch_size=64, epochs=28.0)
    config.optim.update(schedule="constant", warmup_epochs=2.0, warmup_steps=4)
    recipe = from_config.make_recipe(config, 640, CLASSES)
    found = [float(recipe.learning_rate(jnp.asarray(k))) for k in (0, 1, 4, 20)]
    assert found == pytest.approx([0.0, 0.025, 0.1, 0.1], rel=1e-6)


def test_the_first_step_as_published_has_the_full_rate(config):
    config = config.copy_and_resolve_references()
    config.update(batch_size=64, epochs=28.0)
    config.optim.update(schedule="polynomial", warmup_epochs=2.0, as_published=True)
    recipe = from_config.make_recipe(config, 640, CLASSES)
    found = [float(recipe.learning_rate(jnp.asarray(k))) for k in (0, 1, 20)]
    assert found == pytest.approx([0.1, 0.005, 0.1], rel=1e-6)


def test_another_batch_size_is_a_recipe_of_its_own(config):
    config = config.copy_and_resolve_references()
    config.update(batch_size=64, micro_batches=2, epochs=2.0)
    recipe = from_config.make_recipe(config, 640, CLASSES)
    twice = recipe.with_batch_size(128)
    assert (recipe.schedule.total_steps, twice.schedule.total_steps) == (20, 10)
    assert (recipe.batch_norm_group(4), twice.batch_norm_group(4)) == (8, 16)
    assert (recipe.config.batch_size, twice.config.batch_size) == (64, 128)
    assert twice.shapes is recipe.shapes
    again = from_config.make_recipe(twice.config, 640, CLASSES)
    assert twice.settings == again.settings


def test_every_step_has_the_releases_learning_rate(config):
    """train.py of the release: MultiStepLR by epoch, over a loader that drops the last batch."""
    located = recipes.locate("casia:uce_m")
    _, casia = recipes.load(located)
    loader_batches = 490_623 // 512
    expected = [
        0.1 * 0.1 ** sum(epoch >= milestone for milestone in (16, 24))
        for epoch in range(28)
        for _ in range(loader_batches)
    ]
    recipe = from_config.make_recipe(casia, 490_623, 10_572)
    assert recipe.schedule == (958.0, len(expected))
    found = jax.vmap(recipe.learning_rate)(jnp.arange(len(expected)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_fewer_images_than_a_batch_cannot_all_be_dropped(config):
    config.data.drop_last = True
    try:
        with pytest.raises(
            UserError, match=r"drop_last=True: .* 130 images fill no batch of .*512"
        ) as refused:
            from_config.make_recipe(config, 10 * CLASSES, CLASSES)
        assert "ways out: --config.batch_size=64 --config.micro_batches=1, " in str(refused.value)
        assert from_config.make_recipe(config, 1100, CLASSES).schedule == (2.0, 56)
    finally:
        config.data.drop_last = False
