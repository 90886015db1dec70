"""Losses that add up binary decisions, one for each class: UCE, BCE and SphereFace2."""

import math
from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp

from uniface_jax.losses.base import Gradient, Loss, clipped_softplus, with_gradient


def _cross_entropy(
    bias: Literal["shared", "class"], scale: float, margin: float, negative_weight: float
) -> Loss:
    return Loss(
        family="additive",
        positive=lambda cos, b: clipped_softplus(b - scale * (cos - margin), scale),
        negative=lambda cos, b: negative_weight * clipped_softplus(scale * cos - b, scale),
        scale=scale,
        bias=bias,
        clipped_cross_entropy=negative_weight,
    )


def uce(scale: float = 64.0, margin: float = 0.4, negative_weight: float = 1.0) -> Loss:
    """Return UCE (Zhou et al., UniFace, ICCV 2023), with one learned threshold b.

    softplus(-(s (cos_iy - m) - b)) + λ sum_j softplus(s cos_ij - b), every z clamped to [-s, s].
    scale s > 0, margin m in [0, 1.5), negative_weight λ > 0.
    """
    return _cross_entropy("shared", scale, margin, negative_weight)


def bce(scale: float = 64.0, margin: float = 0.4, negative_weight: float = 1.0) -> Loss:
    """Return normalized BCE (UniFace, section 3): UCE with one bias a class."""
    return _cross_entropy("class", scale, margin, negative_weight)


def uss(scale: float = 64.0, margin: float = 0.1) -> Loss:
    """Return USS (Li et al., UniTSFace, NeurIPS 2023): UCE with features in place of prototypes.

    softplus(-(s (cos(x, f_y) - m) - b)) + sum_j softplus(s cos(x, f_j) - b), every z clamped to
    [-s, s], with f_j the last feature of class j and b a threshold of its own from 0. scale s > 0,
    margin m in [0, 1.5). It comes beside a loss of the table (head/samples.py), never alone.
    """
    return replace(_cross_entropy("shared", scale, margin, 1.0), start=lambda _: 0.0)


def sphereface2(
    scale: float = 40.0,
    margin: float = 0.4,
    balance: float = 0.7,
    exponent: float = 3.0,
    loss_weight: float = 50.0,
    gradient: Gradient = "formula",
) -> Loss:
    """Return SphereFace2 (Wen et al., ICLR 2022), type C, with one learned bias.

    w/s [λ softplus(-(s (g(cos_iy) - m) - b)) + (1 - λ) sum_j softplus(s (g(cos_ij) + m) - b)]
    with g(c) = 2 ((c + 1)/2)^t - 1 and b of the sign that it has in UCE. scale s > 0, margin m in
    [0, 1.5), balance λ in (0, 1), exponent t >= 1, loss_weight w > 0 (the authors' release has
    50). gradient: see `with_gradient`; the release, ydwen/opensphere, has "detached", which makes
    the slope of g 1. b starts where positives and negatives pull equally at cos = 0.
    """

    def adjusted(cos: jax.Array) -> jax.Array:
        # The clip keeps a rounding error below -1 from making a NaN of the power.
        return 2 * jnp.power(jnp.maximum(cos + 1, 0) / 2, exponent) - 1

    similarity = with_gradient(adjusted, gradient)

    def start(num_classes: float) -> float:
        odds = balance / ((1 - balance) * max(num_classes - 1, 1))
        middle: float = scale * (2 * 0.5**exponent - 1)
        root = math.sqrt((1 - odds) ** 2 + 4 * odds * math.exp(-2 * scale * margin))
        return middle + scale * margin + math.log(1 - odds + root) - math.log(2 * odds)

    return Loss(
        family="additive",
        positive=lambda cos, b: balance * jax.nn.softplus(b - scale * (similarity(cos) - margin)),
        negative=lambda cos, b: (
            (1 - balance) * jax.nn.softplus(scale * (similarity(cos) + margin) - b)
        ),
        scale=scale,
        bias="shared",
        weight=loss_weight / scale,
        start=start,
        threshold_of_bias=lambda b: (
            2 * jnp.power(jnp.clip((b / scale + 1) / 2, 0, None), 1 / exponent) - 1
        ),
    )
