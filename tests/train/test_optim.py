"""SGD and schedules against plain loops, and schedules against arcface_torch's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.train import optim


def test_sgd_is_pytorchs(x64):
    rng = np.random.default_rng(0)
    weight, buffer = rng.normal(size=5), np.zeros(5)
    tree, momentum = {"w": jnp.asarray(weight)}, {"w": jnp.zeros(5)}
    for _ in range(4):
        gradient = rng.normal(size=5)
        tree, momentum = optim.sgd_update(
            optim.Sgd(0.9, 0.01), 0.1, tree, momentum, {"w": jnp.asarray(gradient)}
        )
        buffer = 0.9 * buffer + gradient + 0.01 * weight
        weight = weight - 0.1 * buffer
    np.testing.assert_allclose(tree["w"], weight, rtol=1e-12)
    np.testing.assert_allclose(momentum["w"], buffer, rtol=1e-12)


def test_unsampled_rows_decay_and_keep_their_momentum(x64):
    rng = np.random.default_rng(1)
    weights, momentum = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    gradients, index = rng.normal(size=(3, 3)), jnp.asarray([1, 4, 6])  # 6 is out of range: no row
    sgd = optim.Sgd(0.9, 0.1)
    new, buffers = optim.sgd_update_rows(
        sgd, 0.5, jnp.asarray(weights), jnp.asarray(momentum), jnp.asarray(gradients), index
    )
    unsampled = [0, 2, 3, 5]
    np.testing.assert_array_equal(buffers[jnp.asarray(unsampled)], momentum[unsampled])
    np.testing.assert_allclose(
        new[jnp.asarray(unsampled)], weights[unsampled] * (1 - 0.5 * 0.1), rtol=1e-12
    )
    for row, gradient in ((1, gradients[0]), (4, gradients[1])):
        expected = 0.9 * momentum[row] + gradient + 0.1 * weights[row]
        np.testing.assert_allclose(buffers[row], expected, rtol=1e-12)
        np.testing.assert_allclose(new[row], weights[row] - 0.5 * expected, rtol=1e-12)


def test_clip_factor_is_pytorchs():
    assert optim.clip_factor(jnp.asarray(5.0), 10.0) == 1.0
    np.testing.assert_allclose(optim.clip_factor(jnp.asarray(40.0), 10.0), 10 / 40.000001)


def test_square_norm_adds_all_leaves():
    assert optim.square_norm({"a": jnp.asarray([3.0]), "b": [jnp.asarray([[4.0]])]}) == 25.0


def test_clamp_slopes_touches_slopes_alone():
    params = {"prelu": {"slope": jnp.asarray([-0.2, 0.3])}, "bn": {"bias": jnp.asarray([-0.2])}}
    marks = {"prelu": {"slope": True}, "bn": {"bias": False}}
    clamped = optim.clamp_slopes(params, marks)
    np.testing.assert_allclose(clamped["prelu"]["slope"], [0.01, 0.3])
    np.testing.assert_allclose(clamped["bn"]["bias"], [-0.2])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.step_schedule(0.1, [10, 20], 0.1), {0: 0.1, 9: 0.1, 10: 0.01, 25: 0.001}),
        (optim.polynomial_schedule(0.4, 2.0, 10, 110), {0: 0.0, 5: 0.2, 10: 0.4, 60: 0.1, 110: 0}),
        (optim.polynomial_schedule(0.1, 2.0, 0, 100), {0: 0.1, 50: 0.025}),
        (optim.cosine_schedule(0.2, 4, 104), {2: 0.1, 4: 0.2, 54: 0.1, 104: 0.0}),
        (optim.constant_schedule(0.2, 4), {0: 0.0, 1: 0.05, 4: 0.2, 1000: 0.2}),
        (optim.constant_schedule(0.2, 0), {0: 0.2, 1000: 0.2}),
    ],
)
def test_schedules(schedule, expected):
    for step, value in expected.items():
        np.testing.assert_allclose(jax.jit(schedule)(jnp.asarray(step)), value, atol=1e-7)


def golden_rates(golden2):
    """Yield the reference's rates, and warm-up and power, of the schedules over 50 steps."""
    for key, rates in golden2("optim").items():
        if key.startswith("lr/"):
            warmup, power = re.fullmatch(r"lr/total50_warm(\d+)_power(\d+)", key).groups()
            yield rates, int(warmup), float(power)


def test_golden_rates_as_published(golden2, x64):
    """The published scheduler takes the first step at the full rate, and stays at 0 in the end."""
    seen = 0
    for expected, warmup, power in golden_rates(golden2):
        schedule = optim.polynomial_schedule(0.1, power, warmup, 50)
        published = optim.full_first_step(schedule, 0.1)
        found = jax.vmap(published)(jnp.arange(len(expected)))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        seen += 1
    assert seen == 4


def test_golden_rates_in_the_closed_form(golden2, x64):
    """Ours by default: from 0, and from the second step on what the reference has."""
    for published, warmup, power in golden_rates(golden2):
        steps = np.arange(len(published))
        after = np.clip((steps - warmup) / (50 - warmup), 0, 1)
        expected = 0.1 * np.where(steps < warmup, steps / max(warmup, 1), (1 - after) ** power)
        found = jax.vmap(optim.polynomial_schedule(0.1, power, warmup, 50))(jnp.asarray(steps))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[1:], published[1:], rtol=1e-12, atol=1e-12)
        assert found[0] == (0.0 if warmup else 0.1)
