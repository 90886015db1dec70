"""The registry of losses, their hyperparameters' ranges and their starting values."""

import math
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import config, losses
from uniface_jax.errors import UserError
from uniface_jax.losses.base import clipped_softplus


@pytest.mark.parametrize("name", losses.LOSSES)
def test_config_has_every_hyperparameter(name):
    known = set(config.base().loss.keys())
    assert set(signature(losses.LOSSES[name]).parameters) <= known


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("softmax", {}, "loss.name='softmax': allowed are uce, bce"),
        ("uce", {"m1": 2.0}, "loss.m1=2.0: uce has only scale, margin, negative_weight"),
        ("combined", {"m1": 0.5}, "loss.m1=0.5: must be >= 1"),
        ("sphereface2", {"balance": 1.0}, "loss.balance=1.0: must be above 0 and below 1"),
        ("magface", {"low_norm": 110.0}, r"loss.low_norm=110: must be below loss.high_norm=110"),
        ("elastic_arc", {"deviation": 0.0}, "loss.deviation=0.0: must be > 0"),
        ("elastic_cos", {"as_published": True}, "loss.as_published=True: elastic_cos has only"),
        ("arcface", {"interclass_filtering": 1.0}, "loss.interclass_filtering=1.0: must be from 0"),
    ],
)
def test_refused(name, given, message):
    with pytest.raises(UserError, match=message):
        losses.create(name, **given)


MARGIN = (0, 1.49), (-0.01, 1.5)
BELOW_ONE = (0.01, 0.99), (0, 1)
POSITIVE = (1e-6, 2), (0, -1)
# Of each hyperparameter, numbers at the ends of its range: taken ones and refused ones.
ENDS = {
    "scale": POSITIVE,
    "margin": MARGIN,
    "m1": ((1, 4), (0.99,)),
    "m2": MARGIN,
    "m3": MARGIN,
    "negative_weight": POSITIVE,
    "loss_weight": POSITIVE,
    "balance": BELOW_ONE,
    "exponent": ((1, 4), (0.99,)),
    "concentration": ((0.01, 1), (0, 1.01)),
    "gradient": (("formula", "detached"), ("none",)),
    "deviation": POSITIVE,
    "as_published": ((True, False), (0, 1)),
    "low_norm": POSITIVE,
    "high_norm": POSITIVE,
    "low_margin": MARGIN,
    "high_margin": MARGIN,
    "norm_weight": ((0, 2), (-0.01,)),
    "expectation_margin": MARGIN,
    "expectation_after": BELOW_ONE,
    "all_classes_after": BELOW_ONE,
    "interclass_filtering": ((0, 0.99), (-0.01, 1)),
}


def test_ends_of_every_range():
    for name, loss in losses.LOSSES.items():
        for key in signature(loss).parameters:
            taken, refused = ENDS[key]
            for value in taken:
                assert losses.checked(name, {key: value}) == {key: value}
            for value in refused:
                with pytest.raises(UserError, match=f"loss.{key}={value}: must be"):
                    losses.checked(name, {key: value})


def test_uce_starts_at_the_releases_bias():
    assert losses.create("uce").initial_bias(10_572, 1.0) == pytest.approx(11.5686, abs=1e-4)
    assert losses.create("nsl").initial_bias(10_572, 1.0) == 0


def test_sphereface2_starts_in_balance():
    """At cos = 0 the positive pulls as hard as all negatives together push."""
    loss = losses.create("sphereface2")
    bias = jnp.float32(loss.initial_bias(1000, 1.0))
    pull = jax.grad(loss.positive)(jnp.float32(0), bias)
    push = jax.grad(loss.negative)(jnp.float32(0), bias)
    assert float(push) > 0
    np.testing.assert_allclose(-pull, 999 * push, rtol=1e-3)


def test_sphereface2_threshold_is_where_the_decision_turns():
    loss = losses.create("sphereface2")
    cos = float(loss.threshold(jnp.float32(-10.0)))
    similarity = 2 * ((cos + 1) / 2) ** 3 - 1
    assert math.isclose(40 * similarity, -10, rel_tol=1e-5)


def test_interclass_filtering_changes_only_what_is_above():
    loss = losses.create("cosface", interclass_filtering=0.4)
    cos = jnp.array([0.39, 0.41, -0.5])
    np.testing.assert_allclose(loss.negative(cos, jnp.zeros(())), [24.96, 0, -32], rtol=1e-5)
    slopes = jax.vmap(jax.grad(loss.negative), (0, None))(cos, 0.0)
    np.testing.assert_allclose(slopes, [64, 0, 64])


@pytest.mark.parametrize(
    ("case", "name", "margin"),
    [("arcface_m0.5_s64", "arcface", 0.5), ("cosface_m0.4_s64", "cosface", 0.4)],
)
def test_golden_margin_logits(golden, x64, case, name, margin):
    file = golden("margins")
    features, prototypes = (
        file[key] / np.linalg.norm(file[key], axis=1, keepdims=True)
        for key in ("features", "prototypes")
    )
    cos, bias = jnp.asarray(features @ prototypes.T), jnp.zeros(())
    loss = losses.create(name, scale=64.0, margin=margin)
    own = np.arange(cos.shape[1])[None] == file["labels"][:, None]
    logits = jnp.where(own, loss.positive(cos, bias), loss.negative(cos, bias))
    np.testing.assert_allclose(logits, file[f"{case}/logits"], rtol=1e-9)


@pytest.mark.parametrize("limit", [64.0, 100.0])
def test_clipped_softplus_has_no_overflow_and_no_slope_outside(limit):
    """Both forms, the short one for limits whose exp is finite in float32 and the general one."""
    z = np.linspace(-1.5 * limit, 1.5 * limit, 1001, dtype=np.float32).astype(float)
    value, slope = jax.jvp(
        lambda z: clipped_softplus(z, limit), (jnp.float32(z),), (jnp.ones(1001),)
    )
    clipped = np.clip(z, -limit, limit)
    np.testing.assert_allclose(value, np.logaddexp(0, clipped), rtol=2e-6, atol=1e-35)
    inside = np.abs(z) <= limit
    expected = np.where(inside, 1 / (1 + np.exp(-clipped)), 0)
    np.testing.assert_allclose(slope, expected, rtol=2e-6, atol=1e-35)
    alone = clipped_softplus(jnp.float32(z), limit)  # without its slope, another function
    np.testing.assert_allclose(alone, value, rtol=2e-7)
