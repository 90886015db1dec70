"""The step with a network from outside: its own batch statistics, the same on any devices."""

import jax
import numpy as np
import pytest

from tests.helpers.registered import forgotten
from tests.helpers.tiny_training import random_batch, small_images
from tests.models.test_outside import SIZE, Both
from uniface_jax import losses, models
from uniface_jax.models.outside import Outside
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded, create_state
from uniface_jax.train import optim, step

CLASSES, BATCH, GROUP = 5, 16, 4
NETWORK = Outside("both", Both(8, "float32", rate=0.0), 8)
LOSS = losses.create("uce")
MOMENTUM = 0.2  # of our batch norm


@pytest.fixture(scope="module", autouse=True)
def of_small_images():
    with small_images(SIZE), forgotten():
        yield


@pytest.fixture(scope="module")
def batch():
    return random_batch(np.random.default_rng(0), BATCH, CLASSES, SIZE)


@pytest.fixture(scope="module")
def first():
    return jax.device_get(jax.jit(lambda: create_state(NETWORK, LOSS, CLASSES, 1.0, 0))())


@pytest.fixture(scope="module")
def alone(first, batch):
    """The state after one step on one device."""
    return after(1, first, batch)


def after(devices, first, batch):
    settings = step.Settings(
        num_classes=CLASSES, micro_batches=BATCH // GROUP // devices, bn_momentum=MOMENTUM,
        sgd=optim.Sgd(momentum=0.0, weight_decay=0.0),
    )  # fmt: skip
    runner = parallel.create_runner("shard_map", class_sharded(first), jax.devices()[:devices])
    one = runner.compile(step.make_step(NETWORK, LOSS, lambda _: 0.1, settings))
    state, _ = one(runner.place(first), runner.put(batch))
    return runner.logical(state)


def test_batch_statistics(first, batch, alone):
    """Flax's: the mean of what each group makes of the old ones. Ours: folded one by one."""
    variables = {"params": first.weights.network, "batch_stats": first.batch_stats}
    images = models.normalize(batch["image"].reshape(-1, GROUP, SIZE, SIZE, 3))
    forward = jax.jit(
        lambda part: models.train_forward(NETWORK, variables, part, jax.random.key(0))
    )
    groups = [forward(part)[1] for part in images]
    for name in ("mean", "var"):
        flax = np.mean([group["flax"][name] for group in groups], 0)
        ours = first.batch_stats["ours"][name]
        for group in groups:
            ours = (1 - MOMENTUM) * ours + MOMENTUM * group["ours"][name]
        np.testing.assert_allclose(alone.batch_stats["flax"][name], flax, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone.batch_stats["ours"][name], ours, rtol=1e-5, atol=1e-6)


def test_a_parameter_called_slope_is_no_prelus(first, alone):
    found = alone.weights.network
    assert (found["slope"] < 0).all()
    assert np.abs(found["slope"] - first.weights.network["slope"]).max() > 0


def test_the_same_on_several_devices(first, batch, alone):
    four = after(4, first, batch)
    for (path, value), other in zip(
        jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(four), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5, err_msg=name)
