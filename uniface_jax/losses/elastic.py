"""Softmax losses whose margins are drawn, sample by sample: ElasticFace."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uniface_jax.losses.base import Context, Loss, Statistics, added_angle

# (margins [B] as drawn, positive cosines [B]) -> the margin of each sample
Order = Callable[[jax.Array, jax.Array], jax.Array]


def _as_drawn(margins: jax.Array, cos: jax.Array) -> jax.Array:
    return margins


def _by_cosine(margins: jax.Array, cos: jax.Array) -> jax.Array:
    """Give the largest margin to the sample with the lowest cosine, and so on."""
    order = jnp.argsort(-cos)
    return jnp.zeros_like(margins).at[order].set(jnp.sort(margins))


def _as_published(margins: jax.Array, cos: jax.Array) -> jax.Array:
    """Give the margins as the release's code does, which permutes where the inverse is meant."""
    return jnp.sort(margins)[jnp.argsort(-cos)]


def _elastic(
    scale: float,
    margin: float,
    deviation: float,
    logit: Callable[[jax.Array, jax.Array], jax.Array],
    order: Order = _as_drawn,
) -> Loss:
    """Return cross-entropy with logit(cos, margin) for the positive, margins ~ N(m, σ)."""

    def prepare(
        cos: jax.Array, norm: jax.Array, statistics: Statistics, draws: jax.Array
    ) -> tuple[Context, Statistics]:
        margins = margin + deviation * draws.astype(cos.dtype)
        return (order(margins, cos),), statistics

    return Loss(
        family="softmax",
        positive=lambda cos, b, own: scale * logit(cos, own),
        negative=lambda cos, b, *_: scale * cos,
        scale=scale,
        prepare=prepare,
        draws=True,
    )


def _reduced(cos: jax.Array, margin: jax.Array) -> jax.Array:
    return cos - margin


def elastic_arc(scale: float = 64.0, margin: float = 0.5, deviation: float = 0.05) -> Loss:
    """Return ElasticFace-Arc (Boutros et al., CVPR workshops 2022): s cos(θ + m_i), m_i ~ N(m, σ).

    Each sample draws its own margin in each step. margin m in [0, 1.5) radians, deviation σ > 0;
    continued where θ + m_i > π as arcface is.
    """
    return _elastic(scale, margin, deviation, added_angle)


def elastic_cos(scale: float = 64.0, margin: float = 0.35, deviation: float = 0.05) -> Loss:
    """Return ElasticFace-Cos: the positive's logit is s (cos θ - m_i), m_i ~ N(m, σ), as drawn."""
    return _elastic(scale, margin, deviation, _reduced)


def elastic_arc_plus(
    scale: float = 64.0,
    margin: float = 0.5,
    deviation: float = 0.0175,
    as_published: bool = False,
) -> Loss:
    """Return ElasticFace-Arc+: elastic_arc, whose margins are dealt out by the positive cosines.

    Of the samples that the head sees together (the micro-batches of all devices) the one with the
    lowest positive cosine gets the largest margin. as_published: as the release's code deals them
    out, which takes the permutation where its inverse is meant: sample i gets the margin of the
    rank that is the i-th by cosine.
    """
    order = _as_published if as_published else _by_cosine
    return _elastic(scale, margin, deviation, added_angle, order)


def elastic_cos_plus(
    scale: float = 64.0,
    margin: float = 0.35,
    deviation: float = 0.02,
    as_published: bool = False,
) -> Loss:
    """Return ElasticFace-Cos+: elastic_cos, its margins dealt out as elastic_arc_plus does."""
    order = _as_published if as_published else _by_cosine
    return _elastic(scale, margin, deviation, _reduced, order)
