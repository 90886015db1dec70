"""Checks inside the step, skipped steps: with both runners, on several devices."""

import functools

import jax
import numpy as np
import pytest

from tests.helpers.tiny_training import first_state, random_batch, small_images, tiny_network
from uniface_jax import losses
from uniface_jax.runtime import debug, parallel
from uniface_jax.state import class_sharded
from uniface_jax.train import step

CLASSES, BATCH = 13, 16
NETWORK = tiny_network()


@pytest.fixture(scope="module", autouse=True)
def of_small_images():
    with small_images():
        yield


def start():
    return first_state(NETWORK, "uce", CLASSES, seed=1)


@functools.cache
def program(mode, checked, **settings):
    """(runner, compiled step) for 4 devices."""
    runner = parallel.create_runner(mode, class_sharded(start()), jax.devices()[:4])
    settings = step.Settings(CLASSES, block_size=5, **settings)
    one = step.make_step(NETWORK, losses.create("uce"), lambda _: 0.1, settings)
    return runner, runner.compile(debug.checked(one) if checked else one)


def train_once(mode, change=lambda weights, labels: None, checked=True, **settings):
    """(state before, state after, metrics) of one step on 4 devices after `change`."""
    runner, compiled = program(mode, checked, **settings)
    state = start()
    batch = random_batch(np.random.default_rng(0), BATCH, CLASSES)
    prototypes = np.array(state.weights.prototypes)
    change(prototypes, batch["label"])
    state = state._replace(weights=state.weights._replace(prototypes=prototypes))
    placed, metrics = compiled(runner.place(state), runner.put(batch))
    return state, runner.logical(placed), jax.device_get(metrics)


def label_too_large(prototypes, labels):
    labels[9] = CLASSES  # of device 2


def prototype_zero(prototypes, labels):
    prototypes[11] = 0  # of device 2


MODES = pytest.mark.parametrize("mode", ["pmap", pytest.param("shard_map", marks=pytest.mark.slow)])


@MODES
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (label_too_large, "step 7, device 2: labels from 0 to 13, expected 0 to 12"),
        (prototype_zero, "step 7, device 2: row 3 of this device's prototypes is zero"),
        (None, ""),
    ],
)
def test_checks_say_what_and_on_which_device(mode, change, words):
    *_, metrics = train_once(mode, change) if change else train_once(mode)
    if change is None:
        debug.raise_error(7, metrics[debug.ERROR])
        return
    with pytest.raises(debug.CheckError, match=words):
        debug.raise_error(7, metrics[debug.ERROR])


@MODES
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_skipped_step_leaves_the_state_but_its_number(mode, rate):
    def break_one(prototypes, labels):
        prototypes[labels[0]] = np.nan

    before, after, metrics = train_once(
        mode, break_one, checked=False, skip_nonfinite=True, sampling_rate=rate
    )
    assert not np.isfinite(metrics["loss"])
    assert int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, after._replace(step=before.step), before)


@MODES
def test_a_good_step_is_taken_as_without_skipping(mode):
    _, with_it, _ = train_once(mode, checked=False, skip_nonfinite=True)
    _, without, _ = train_once(mode, checked=False)
    assert int(with_it.step) == 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), with_it, without
    )


def test_an_unchecked_program_is_the_same_every_time():
    def lowered():
        def one(labels):
            debug.check_labels(labels, CLASSES)
            return labels + 1

        return jax.jit(one).lower(np.zeros(4, np.int32)).as_text()

    assert lowered() == lowered()
