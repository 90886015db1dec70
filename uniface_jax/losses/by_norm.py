"""Softmax losses whose margin goes by the feature norm, and sends its gradient there: MagFace."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uniface_jax.errors import UserError
from uniface_jax.losses.base import Loss, added_angle, cosine_of_sum

LOW_NORM, HIGH_NORM = 10.0, 110.0  # between which the margin rises
LOW_MARGIN, HIGH_MARGIN = 0.45, 0.8  # radians
NORM_WEIGHT = 35.0  # λ_g of the release's script; its code's default is 20


def magface(
    scale: float = 64.0,
    low_norm: float = LOW_NORM,
    high_norm: float = HIGH_NORM,
    low_margin: float = LOW_MARGIN,
    high_margin: float = HIGH_MARGIN,
    norm_weight: float = NORM_WEIGHT,
) -> Loss:
    """Return MagFace (Meng et al., CVPR 2021), by which the feature norm becomes the quality.

    With a = clip(|x|, l, u) of the norms low_norm l > 0 and high_norm u > l, the margin m(a) rises
    evenly from low_margin to high_margin, both in [0, 1.5) radians. The positive's logit is
    s cos(θ + m(a)) where cos θ > 0, and s cos θ elsewhere (the "easy margin"). norm_weight λ_g >= 0
    times a/u² + 1/a is added, which draws norms to u; the paper's λ_g is 35. The gradient flows
    through a; it is 0 beyond l and u.

    Raises UserError where l is not below u.
    """

    def with_margin(cos: jax.Array, margin: jax.Array) -> jax.Array:
        return jnp.where(cos > 0, cosine_of_sum(cos, margin), cos)

    bounds = (low_norm, high_norm, low_margin, high_margin)
    return _by_norm(scale, bounds, norm_weight, with_margin)


def magface_hard(
    scale: float = 64.0,
    low_norm: float = LOW_NORM,
    high_norm: float = HIGH_NORM,
    low_margin: float = LOW_MARGIN,
    high_margin: float = HIGH_MARGIN,
    norm_weight: float = NORM_WEIGHT,
) -> Loss:
    """Return magface without the easy margin: s cos(θ + m(a)) at every angle, continued as arcface.

    The release's code has it (easy_margin False), its recipe does not use it.
    """
    bounds = (low_norm, high_norm, low_margin, high_margin)
    return _by_norm(scale, bounds, norm_weight, added_angle)


def _by_norm(
    scale: float,
    bounds: tuple[float, float, float, float],
    norm_weight: float,
    with_margin: Callable[[jax.Array, jax.Array], jax.Array],
) -> Loss:
    """Return MagFace of these bounds (two norms, two margins), with_margin(cos, m) the positive."""
    low_norm, high_norm, low_margin, high_margin = bounds
    if not low_norm < high_norm:
        raise UserError(f"loss.low_norm={low_norm:g}: must be below loss.high_norm={high_norm:g}")

    def positive(cos: jax.Array, b: jax.Array, norm: jax.Array) -> jax.Array:
        share = (jnp.clip(norm, low_norm, high_norm) - low_norm) / (high_norm - low_norm)
        margin = low_margin + (high_margin - low_margin) * share
        return scale * with_margin(cos, margin)

    def penalty(norm: jax.Array) -> jax.Array:
        a = jnp.clip(norm, low_norm, high_norm)
        return norm_weight * (a / high_norm**2 + 1 / a)

    return Loss(
        family="softmax",
        positive=positive,
        negative=lambda cos, b, *_: scale * cos,
        scale=scale,
        by_norm=True,
        penalty=penalty,
    )
