"""Values and slopes of every softmax margin over all cosines, against formulas in plain numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import losses

COSINES = np.linspace(-1, 1, 2001)


def curves(loss, cos=COSINES, context=()):
    """Return values and slopes [N] of the positive's and of the negative's function."""
    found = []
    for function in (loss.positive, loss.negative):
        value, slope = jax.jvp(
            lambda x, function=function: function(x, jnp.zeros(()), *context),
            (jnp.asarray(cos),),
            (jnp.ones(len(cos)),),
        )
        found += [np.asarray(value), np.asarray(slope)]
    return found


def with_angle(cos, margin):
    theta = np.arccos(cos)
    beyond = theta + margin >= math.pi
    return np.where(beyond, cos - margin * math.sin(margin), np.cos(theta + margin))


def falling(m1):
    def logit(cos):
        turned = m1 * np.arccos(cos)
        k = np.floor(turned / math.pi)
        return (-1.0) ** k * np.cos(turned) - 2 * k

    return logit


def capped(cos):
    return np.cos(np.minimum(1.2 * np.arccos(cos) + 0.3, math.pi)) - 0.2


CASES = {
    "arcface": (dict(margin=0.5), lambda cos: with_angle(cos, 0.5)),
    "combined": (dict(m1=1.2, m2=0.3, m3=0.2), capped),
    "sphereface": (dict(m1=1.5), falling(1.5)),
}


@pytest.mark.parametrize("gradient", ["formula", "detached"])
@pytest.mark.parametrize("name", CASES)
def test_margins_over_all_cosines(x64, name, gradient):
    """Values are the formula's; slopes its differences, or the scale alone where detached."""
    given, formula = CASES[name]
    value, slope, other, other_slope = curves(
        losses.create(name, scale=64.0, gradient=gradient, **given)
    )
    inside = np.abs(COSINES) < 1 - 1e-4  # the angle is cut at ±(1 - 1e-5)
    np.testing.assert_allclose(value[inside], 64 * formula(COSINES[inside]), atol=1e-6)
    np.testing.assert_allclose(value, 64 * formula(COSINES), atol=64 * 0.01)
    np.testing.assert_allclose(other, 64 * COSINES, rtol=1e-12)
    np.testing.assert_array_equal(other_slope, 64)
    if gradient == "detached":
        np.testing.assert_array_equal(slope, 64)
        return
    step = 1e-7
    smooth = inside & (np.abs(formula(COSINES + 1e-3 * inside) - formula(COSINES)) < 0.2)
    chosen = COSINES[smooth]
    differences = 32 * (formula(chosen + step) - formula(chosen - step)) / step
    close = np.isclose(slope[smooth], differences, rtol=1e-4, atol=1e-3)
    assert np.count_nonzero(~close) <= 2  # at the corners, where the formula has no slope


@pytest.mark.parametrize("name", ["arcface", "combined", "sphereface", "curricularface"])
def test_a_closer_positive_never_has_a_lower_logit(x64, name):
    """Beyond π - m as well, where cos(θ + m) alone would rise again as the angle grows."""
    loss = losses.create(name)
    context = (jnp.zeros(len(COSINES)), jnp.zeros(())) if name == "curricularface" else ()
    value, slope, *_ = curves(loss, context=context)
    assert (np.diff(value) >= -1e-9).all()
    assert (slope >= -1e-9).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_finite_at_both_ends(name):
    """Neither value nor slope is lost where a cosine is exactly 1 or -1, in float32."""
    context = {
        "adaface": (jnp.float32(0.3),),
        "curricularface": (jnp.float32(0.2), jnp.float32(0.1)),
    }.get(name, ())
    ends = np.array([-1, -0.9999999, 0.9999999, 1], np.float32)
    for found in curves(losses.create(name), ends, context):
        assert np.isfinite(found).all()


def test_adaface_cuts_all_cosines(x64):
    """The release clamps the whole matrix of cosines to ±.999, without a gradient beyond."""
    _, _, negative, slope = curves(losses.create("adaface"), context=(jnp.zeros(()),))
    np.testing.assert_allclose(negative, 64 * np.clip(COSINES, -0.999, 0.999), rtol=1e-12)
    inside = np.abs(COSINES) < 0.9985
    np.testing.assert_array_equal(slope[inside], 64)
    np.testing.assert_array_equal(slope[np.abs(COSINES) > 0.9995], 0)
