"""Training with class expectations: both switches, on any number of devices."""

import shutil

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.demo_run import tiny_config, trained
from tests.helpers.device_steps import DeviceSteps
from tests.helpers.tiny_training import (
    assert_close,
    first_state,
    random_batch,
    small_images,
    tiny_network,
)
from uniface_jax import losses
from uniface_jax.checkpoints import reading
from uniface_jax.config import base, create_loss
from uniface_jax.errors import UserError
from uniface_jax.losses.expectation import STAGE
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
        settings = step.Settings(CLASSES, micro_batches=4, block_size=5, expectation=True)
        start = prepared(first_state(network, "pco", CLASSES, seed=1), settings)
        assert start.memory.shape == (CLASSES, 8)
        rng = np.random.default_rng(0)
        batches = [random_batch(rng, BATCH, CLASSES) for _ in range(STEPS)]
        steps, found = DeviceSteps((network, loss), settings, start, 0.01), []
        for devices in (1, 4):
            state, metrics = steps.run(devices, batches)
            assert [values[STAGE] for values in metrics] == [reached] * STEPS
            found.append(state)
    assert_close(*found, 2e-5)
    seen = np.unique(np.concatenate([batch["label"] for batch in batches]))
    np.testing.assert_array_equal(np.flatnonzero(found[0].memory.any(1)), seen)


@pytest.mark.slow
def test_a_run_resumes_bitwise(tmp_path):
    """Expectations and stage are the checkpoint's: both count from the first step on."""
    train, _ = demo_run.make_data(tmp_path / "data")
    config = tiny_config(
        train,
        **{
            "loss.name": "pco", "loss.expectation_after": 1e-9, "loss.all_classes_after": 0.99,
            "head.sampling_rate": 0.9, "steps": 3, "checkpoint.every_steps": 1,
        },
    )  # fmt: skip
    run = tmp_path / "run"
    values, _ = trained(config, run)
    assert values[STAGE] == 1
    whole = reading.read(run)[0]
    assert whole.memory.shape == (demo_run.CLASSES, 8)
    assert whole.memory.any()
    for later in ("2", "3"):
        shutil.rmtree(run / "checkpoints" / later)
    saved = reading.read(run)[0]
    assert saved.loss_statistics[STAGE] == 1
    assert not np.array_equal(saved.memory, whole.memory)
    _, printed = trained(config, run)
    assert f"resumed {run} at step 1" in printed
    jax.tree.map(np.testing.assert_array_equal, reading.read(run)[0], whole)
