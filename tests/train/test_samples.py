"""Training with a loss between samples: the memory's warm-up, any devices, elastic."""

import functools
import re

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
from uniface_jax.checkpoints import reading
from uniface_jax.losses.additive import uss
from uniface_jax.train import step, update
from uniface_jax.train.adaptive import Adaptive
from uniface_jax.train.settings import SampleToSample

CLASSES, BATCH, GROUP = 13, 32, 4  # 13 classes divide by no number of devices
WARM_UP = 2  # steps, in which half of the classes are seen
NETWORK = tiny_network(dropout=0.0)
TOLERANCE = 2e-5  # of float32, summed in other orders


@pytest.fixture(scope="module", autouse=True)
def of_small_images():
    with small_images():
        yield


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    found = [random_batch(rng, BATCH, CLASSES) for _ in range(5)]
    for batch in found[:WARM_UP]:
        batch["label"] %= 7
    return found


def settings_of(name="sgd", rate=1.0, samples=True):
    adaptive = None if name == "sgd" else Adaptive(name, eps=1e-3)
    return step.Settings(
        num_classes=CLASSES, micro_batches=BATCH // GROUP, block_size=5, adaptive=adaptive,
        sampling_rate=rate, samples=SampleToSample(uss(16.0), WARM_UP) if samples else None,
    )  # fmt: skip


def start(loss="uce", name="sgd", samples=True):
    first = first_state(NETWORK, loss, CLASSES, seed=3)
    return jax.device_get(update.prepared(first, settings_of(name=name, samples=samples)))


@functools.cache
def steps(mode="shard_map", loss="uce", name="sgd", rate=1.0):
    model = NETWORK, losses.create(loss)
    return DeviceSteps(model, settings_of(name, rate), start(loss, name), 0.01, mode)


def train(devices, batches, state=None):
    return steps().run(devices, batches, state)


@pytest.fixture(scope="module")
def whole(batches):
    return train(8, batches)


def test_warm_up_and_what_follows(batches, whole):
    """The loss of the classes alone, but the memory fills; then both, with a bias that was set."""
    state, metrics = train(8, batches[:WARM_UP])
    assert state.weights.sample_bias == 0
    assert state.momentum.sample_bias == 0
    seen = np.unique(np.concatenate([batch["label"] for batch in batches[:WARM_UP]]))
    np.testing.assert_array_equal(np.flatnonzero(state.memory.any(1)), seen)
    assert [values["sample_loss"] for values in metrics] == [0, 0]
    state, metrics = whole
    after = metrics[WARM_UP:]
    assert all(values["sample_loss"] > 0 for values in after)
    assert all(values["loss"] > values["sample_loss"] for values in after)
    assert len({float(values["sample_threshold"]) for values in after}) == len(after)  # learned
    assert state.weights.sample_bias > 0
    assert state.memory.any(1).all()


@pytest.mark.slow
def test_elastic(batches, whole):
    """Warm-up on 8 devices, a step on 4 with the bias set before, two on one."""
    state, _ = train(8, batches[: WARM_UP + 1])
    state, _ = train(4, batches[WARM_UP + 1 : WARM_UP + 2], state)
    state, _ = train(1, batches[WARM_UP + 2 :], state)
    assert_close(state, whole[0], TOLERANCE)


@pytest.mark.slow
def test_checkpoints_resume_bitwise_and_on_other_devices(batches, whole, tmp_path):
    """Memory and bias come back, on the same devices and on others, 8 -> 4 -> 1."""
    expected, _ = whole
    first, _ = train(8, batches[: WARM_UP + 1])
    same = steps().restored(first, (8, 8), tmp_path / "same")
    state, _ = train(8, batches[WARM_UP + 1 :], same)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    state = steps().restored(first, (8, 4), tmp_path / "eight")
    state, _ = train(4, batches[WARM_UP + 1 : WARM_UP + 2], state)
    state = steps().restored(state, (4, 1), tmp_path / "four")
    state, _ = train(1, batches[WARM_UP + 2 :], state)
    assert_close(state, expected, TOLERANCE)


def test_features_are_sent_once_for_both_heads_and_the_memory(batches):
    """In the program for four devices, whose eight images each are two micro-batches."""
    runner, compiled = steps().program(4)
    arguments = runner.place(start()), runner.put(batches[0])
    text = compiled.lower(*arguments).compile().as_text()
    gathers = re.findall(r"= (\w+\[[\d,]*\])\S* all-gather(?:-start)?\(", text)
    of_features = [array for array in gathers if array.endswith(",8]")]
    assert of_features == [f"f32[{4 * GROUP},8]"] * 2


def test_checkpoints_without_samples_look_as_ever():
    """The names in a checkpoint of a run that compares no samples, and of one that does."""
    named = reading.to_tree(start(samples=False))
    assert named.keys() == {"step", "weights", "momentum", "batch_stats", "loss_statistics"}
    assert named["weights"].keys() == {"network", "prototypes", "bias"}
    assert named["momentum"].keys() == named["weights"].keys()
    named = reading.to_tree(start())
    assert named["memory"].shape == (CLASSES, 8)
    assert named["weights"].keys() == named["momentum"].keys()
    assert "sample_bias" in named["weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "name", "mode"),
    [("cosface", "adamw", "pmap"), ("curricularface", "lamb", "shard_map")],
)
def test_any_loss_and_optimizer_with_sampled_classes(loss, name, mode, batches):
    """With one micro-batch the loss of 2 devices is of the same batch as that of one.

    So low a rate draws no negatives beyond the classes of the batch, the same on any devices.
    """
    found = [
        steps(mode, loss, name, 0.01).run(devices, batches[WARM_UP - 1 : WARM_UP + 2])
        for devices in (1, 8)
    ]
    (one, _), (many, metrics) = found
    assert metrics[-1]["sample_loss"] > 0
    assert one.memory.any()
    np.testing.assert_allclose(many.weights.sample_bias, one.weights.sample_bias, rtol=0.05)
    assert np.all(np.isfinite(many.weights.prototypes))
