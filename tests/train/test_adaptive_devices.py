"""Training with AdamW and sampled classes: the same on any devices, and elastic."""

import functools

import jax
import numpy as np
import pytest

from tests.helpers.device_steps import DeviceSteps
from tests.helpers.tiny_training import (
    assert_close,
    first_state,
    random_batch,
    small_images,
    tiny_network,
)
from uniface_jax import losses
from uniface_jax.train import step, update
from uniface_jax.train.adaptive import Adaptive

CLASSES, BATCH, GROUP, STEPS = 13, 32, 4, 4  # 13 classes divide by no number of devices
PRESENT = 6  # classes with images
NETWORK = tiny_network(dropout=0.0)
# So low a rate draws no negatives beyond the classes of the batch: a subset that is the same on
# any number of devices, where else each device draws of its own.
RATE = 0.01


@pytest.fixture(scope="module", autouse=True)
def of_small_images():
    with small_images():
        yield


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [random_batch(rng, BATCH, PRESENT) for _ in range(STEPS)]


@functools.cache
def steps(name):
    # eps: at the first updates a gradient of about 1e-8 would decide a whole step by its rounding.
    settings = step.Settings(
        num_classes=CLASSES, micro_batches=BATCH // GROUP, block_size=5, ema=0.5,
        sampling_rate=RATE, adaptive=Adaptive(name, eps=1e-3, weight_decay=0.05),
    )  # fmt: skip
    first = update.prepared(first_state(NETWORK, "uce", CLASSES, seed=3), settings)
    model = NETWORK, losses.create("uce")
    return DeviceSteps(model, settings, jax.device_get(first), 0.01, "shard_map")


def train(devices, batches, state=None, name="adamw"):
    return steps(name).run(devices, batches, state)[0]


@pytest.fixture(scope="module")
def reference(batches):
    return train(1, batches)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_same_training_on_any_devices(devices, batches, reference):
    assert_close(train(devices, batches), reference)


def test_elastic(batches, reference):
    """One step on 8 devices, one on 4, two on one: as all of them on one."""
    state = train(8, batches[:1])
    state = train(4, batches[1:2], state)
    assert_close(train(1, batches[2:], state), reference)


def test_classes_without_a_part_stay(reference):
    first = steps("adamw").start
    for field in ("weights", "momentum", "second_moments", "updates"):
        was, now = (getattr(state, field).prototypes for state in (first, reference))
        np.testing.assert_array_equal(now[PRESENT:], was[PRESENT:], err_msg=field)
        changed = np.asarray(now[:PRESENT] != was[:PRESENT]).reshape(PRESENT, -1)
        assert changed.any(axis=1).all(), field
    assert int(reference.updates.network) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lamb", "muon"])
def test_lamb_and_muon_on_any_devices(name, batches):
    one, many = (train(devices, batches[:2], name=name) for devices in (1, 8))
    # Newton-Schulz makes small singular values large, rounding with them.
    assert_close(many, one, 1e-5 if name == "lamb" else 1e-3)
