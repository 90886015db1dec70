"""Values and slopes of every loss over all cosines, against formulas in plain numpy."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import losses

COSINES = np.linspace(-1, 1, 2001)
GRADIENTS = ("formula", "detached")
Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Plain:
    """A loss as its paper writes it.

    given: hyperparameters. positive, negative: values, of cosines. bias, context: what else the
    functions of the package's loss take. detached: slopes of both where the margin's is left out.
    falls: names of the curves that the paper does not let rise or fall throughout.
    """

    given: Mapping[str, Any]
    positive: Curve
    negative: Curve
    bias: float = 0.0
    context: tuple[float, ...] = ()
    detached: tuple[Curve, Curve] | None = None
    falls: tuple[str, ...] = field(default=())


def constant(value: float) -> Curve:
    return lambda cos: np.full_like(cos, value)


def times(scale: float) -> Curve:
    return lambda cos: scale * cos


def softplus(z):
    return np.logaddexp(0, z)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def added(cos, margin):
    """cos(θ + m), and the CurricularFace repository's continuation where θ + m > π."""
    theta = np.arccos(cos)
    return np.where(
        theta + margin >= math.pi, cos - margin * math.sin(margin), np.cos(theta + margin)
    )


def psi(cos, m1):
    turned = m1 * np.arccos(cos)
    k = np.floor(turned / math.pi)
    return (-1.0) ** k * np.cos(turned) - 2 * k


def uce(scale, margin, weight, bias) -> Plain:
    return Plain(
        dict(scale=scale, margin=margin, negative_weight=weight),
        lambda cos: softplus(-np.clip(scale * (cos - margin) - bias, -scale, scale)),
        lambda cos: weight * softplus(np.clip(scale * cos - bias, -scale, scale)),
        bias,
    )


def sphereface2(s=40.0, m=0.4, balance=0.7, t=3.0, bias=-20.0) -> Plain:
    def g(cos):
        return 2 * ((cos + 1) / 2) ** t - 1

    return Plain(
        dict(scale=s, margin=m, balance=balance, exponent=t),
        lambda cos: balance * softplus(bias - s * (g(cos) - m)),
        lambda cos: (1 - balance) * softplus(s * (g(cos) + m) - bias),
        bias,
        detached=(
            lambda cos: -balance * s * sigmoid(bias - s * (g(cos) - m)),
            lambda cos: (1 - balance) * s * sigmoid(s * (g(cos) + m) - bias),
        ),
    )


def adaface(s=64.0, m=0.4, quality=0.3) -> Plain:
    def positive(cos):
        theta = np.arccos(np.clip(cos, -0.999, 0.999)) - m * quality
        return s * (np.cos(np.clip(theta, 1e-3, math.pi - 1e-3)) - (m + m * quality))

    return Plain(
        dict(scale=s, margin=m),
        positive,
        lambda cos: s * np.clip(cos, -0.999, 0.999),
        context=(quality,),
    )


def curricularface(s=64.0, m=0.5, hard=0.2, mean=0.1) -> Plain:
    return Plain(
        dict(scale=s, margin=m),
        lambda cos: s * added(cos, m),
        lambda cos: s * np.where(cos > hard, cos * (mean + cos), cos),
        context=(hard, mean),
        falls=("negative",),  # from cos to cos (t + cos) at the threshold
    )


def magface(s=64.0, norm=60.0) -> Plain:
    margin = 0.45 + 0.35 * (norm - 10) / 100
    return Plain(
        dict(scale=s),
        lambda cos: s * np.where(cos > 0, np.cos(np.arccos(cos) + margin), cos),
        times(s),
        context=(norm,),
        falls=("positive",),  # to the margin's at a right angle
    )


def elastic(margin: float, of_margin: Callable[[np.ndarray, float], np.ndarray]) -> Plain:
    return Plain(
        dict(scale=64.0), lambda cos: 64 * of_margin(cos, margin), times(64), context=(margin,)
    )


SAME = (constant(64), constant(64))
OF_30 = (constant(30), constant(30))
PLAIN: Mapping[str, Plain] = {
    "uce": uce(64.0, 0.4, 0.7, 6.0),
    "bce": uce(32.0, 0.3, 1.0, 5.0),
    "nsl": Plain(dict(scale=64.0), times(64), times(64)),
    "cosface": Plain(dict(scale=64.0, margin=0.4), lambda cos: 64 * (cos - 0.4), times(64)),
    "arcface": Plain(
        dict(scale=64.0, margin=0.5), lambda cos: 64 * added(cos, 0.5), times(64), detached=SAME
    ),
    "combined": Plain(
        dict(scale=64.0, m1=1.2, m2=0.3, m3=0.2),
        lambda cos: 64 * (np.cos(np.minimum(1.2 * np.arccos(cos) + 0.3, math.pi)) - 0.2),
        times(64),
        detached=SAME,
    ),
    "sphereface": Plain(
        dict(scale=64.0, m1=1.5), lambda cos: 64 * psi(cos, 1.5), times(64), detached=SAME
    ),
    "sphereface_r": Plain(
        dict(scale=30.0, m1=1.5),
        lambda cos: 30 * np.cos(np.minimum(1.5 * np.arccos(cos), math.pi)),
        times(30),
        detached=OF_30,
    ),
    "sphereface_r_v0": Plain(
        dict(scale=30.0, m1=1.7), lambda cos: 30 * psi(cos, 1.7), times(30), detached=OF_30
    ),
    "sphereface_r_v2": Plain(
        dict(scale=30.0, m1=1.4),
        times(30),
        lambda cos: 30 * np.cos(np.arccos(cos) / 1.4),
        detached=OF_30,
    ),
    "sphereface2": sphereface2(),
    "adaface": adaface(),
    "curricularface": curricularface(),
    "magface": magface(),
    "magface_hard": Plain(
        dict(scale=64.0), lambda cos: 64 * added(cos, 0.625), times(64), context=(60.0,)
    ),
    # Before class expectations count.
    "pco": Plain(dict(scale=64.0, margin=0.4), lambda cos: 64 * (cos - 0.4), times(64)),
    "elastic_arc": elastic(0.55, added),
    "elastic_cos": elastic(0.3, lambda cos, margin: cos - margin),
    "elastic_arc_plus": elastic(0.52, added),
    "elastic_cos_plus": elastic(0.33, lambda cos, margin: cos - margin),
}
CASES = [
    (name, gradient)
    for name in losses.LOSSES
    for gradient in (
        GRADIENTS if "gradient" in signature(losses.LOSSES[name]).parameters else (None,)
    )
]


def curves(loss, cos, bias=0.0, context=()):
    """Return (value, slope), [N] each, of the positive's and of the negative's function."""
    context = tuple(jnp.asarray(x, cos.dtype) for x in context)
    found = {}
    for name in ("positive", "negative"):
        function = getattr(loss, name)
        value, slope = jax.jvp(
            lambda x, function=function: function(x, jnp.asarray(bias, x.dtype), *context),
            (jnp.asarray(cos),),
            (jnp.ones(len(cos), cos.dtype),),
        )
        found[name] = np.asarray(value), np.asarray(slope)
    return found


def differences(formula, cos):
    """Return slopes by differences inside of [-1, 1], and where there is a corner or a jump."""
    step = 1e-7
    left, right = (
        (formula(cos) - formula(cos - step)) / step,
        (formula(cos + step) - formula(cos)) / step,
    )
    largest = np.maximum(np.abs(left), np.abs(right))
    return (left + right) / 2, np.abs(left - right) > 1e-3 * largest + 1e-3


def test_every_loss_has_a_formula():
    assert list(PLAIN) == list(losses.LOSSES)


@pytest.mark.parametrize(("name", "gradient"), CASES)
def test_values_and_slopes_over_all_cosines(x64, name, gradient):
    """Values are the formula's; slopes its differences, or the scale's alone where detached."""
    plain = PLAIN[name]
    chosen = {} if gradient is None else {"gradient": gradient}
    found = curves(losses.create(name, **plain.given, **chosen), COSINES, plain.bias, plain.context)
    # Angles are cut at ±(1 - 1e-5), so that values at the very ends are those of there.
    inside = np.abs(COSINES) < 1 - 1e-4
    for index, key in enumerate(("positive", "negative")):
        formula, (value, slope) = getattr(plain, key), found[key]
        expected = formula(COSINES)
        np.testing.assert_allclose(value[inside], expected[inside], rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(value, expected, atol=plain.given["scale"] * 0.01)
        if gradient == "detached":
            assert plain.detached is not None
            np.testing.assert_allclose(
                slope[inside], plain.detached[index](COSINES)[inside], rtol=1e-9, atol=1e-15
            )
            continue
        slopes, corner = differences(formula, COSINES[inside])
        assert np.count_nonzero(corner) <= 4
        np.testing.assert_allclose(
            slope[inside][~corner], slopes[~corner], rtol=1e-4, atol=1e-4 * plain.given["scale"]
        )


@pytest.mark.parametrize(("name", "gradient"), CASES)
def test_monotone(x64, name, gradient):
    """A closer positive never has a lower logit, nor a closer negative; losses the other way.

    Of ArcFace and its kin beyond π - m as well, where cos(θ + m) alone would rise again.
    """
    plain = PLAIN[name]
    chosen = {} if gradient is None else {"gradient": gradient}
    loss = losses.create(name, **plain.given, **chosen)
    found = curves(loss, COSINES, plain.bias, plain.context)
    for key, (value, slope) in found.items():
        if key in plain.falls:
            continue
        sign = -1 if (loss.family, key) == ("additive", "positive") else 1
        assert (sign * np.diff(value) >= -1e-9).all(), key
        assert (sign * slope >= -1e-9).all(), key


@pytest.mark.parametrize(("name", "gradient"), CASES)
def test_finite_at_both_ends(name, gradient):
    """Neither value nor slope is lost where a cosine is exactly 1 or -1, in float32, or beyond."""
    plain = PLAIN[name]
    chosen = {} if gradient is None else {"gradient": gradient}
    ends = np.array([-1.0000001, -1, -0.9999999, 0.9999999, 1, 1.0000001], np.float32)
    context = tuple(jnp.float32(value) for value in plain.context)
    loss = losses.create(name, **plain.given, **chosen)
    for value, slope in curves(loss, ends, plain.bias, context).values():
        assert value.dtype == slope.dtype == np.float32
        assert np.isfinite(value).all()
        assert np.isfinite(slope).all()


def test_adaface_cuts_all_cosines(x64):
    """The release clamps the whole matrix of cosines to ±.999, without a gradient beyond."""
    _, slope = curves(losses.create("adaface"), COSINES, context=(jnp.zeros(()),))["negative"]
    np.testing.assert_array_equal(slope[np.abs(COSINES) < 0.9985], 64)
    np.testing.assert_array_equal(slope[np.abs(COSINES) > 0.9995], 0)
