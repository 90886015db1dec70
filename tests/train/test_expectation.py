"""Training with class expectations: both switches, on any number of devices."""

import jax
import numpy as np
import pytest

from tests.helpers.tiny_training import (
    assert_close,
    first_state,
    random_batch,
    small_images,
    tiny_network,
)
from uniface_jax import losses
from uniface_jax.config import base, create_loss
from uniface_jax.errors import UserError
from uniface_jax.losses.expectation import STAGE
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded
from uniface_jax.train import step
from uniface_jax.train.update import prepared

CLASSES, BATCH, STEPS = 13, 16, 3


def test_there_is_one_memory():
    config = base()
    config.loss.name, config.loss.with_samples = "pco", True
    with pytest.raises(UserError, match=r"loss.name=pco: keeps an expectation of each class"):
        create_loss(config)


@pytest.mark.slow
@pytest.mark.parametrize(("last", "reached"), [(0.99, 1), (2e-9, 2)])
def test_steps_are_the_same_on_any_number_of_devices(last, reached):
    """The first step is CosFace's; the switches are passed in it, and count from the second on."""
    loss = losses.create("pco", scale=8.0, expectation_after=1e-9, all_classes_after=last)
    with small_images():
        network = tiny_network(dropout=0.0)
        settings = step.Settings(CLASSES, block_size=5, expectation=True)
        start = prepared(first_state(network, "pco", CLASSES, seed=1), settings)
        assert start.memory.shape == (CLASSES, 8)
        rng = np.random.default_rng(0)
        batches = [random_batch(rng, BATCH, CLASSES) for _ in range(STEPS)]
        found = []
        for devices in (1, 4):  # batch norm sees four images in both
            shared = settings._replace(micro_batches=4 // devices)
            one = step.make_step(network, loss, lambda _: 0.01, shared)
            runner = parallel.create_runner("pmap", class_sharded(start), jax.devices()[:devices])
            placed, compiled, metrics = runner.place(start), runner.compile(one), []
            for batch in batches:
                placed, values = compiled(placed, runner.put(batch))
                metrics.append(jax.device_get(values))
            found.append(runner.logical(placed))
            assert [values[STAGE] for values in metrics] == [reached] * STEPS
    assert_close(*found, 2e-5)
    seen = np.unique(np.concatenate([batch["label"] for batch in batches]))
    np.testing.assert_array_equal(np.flatnonzero(found[0].memory.any(1)), seen)
