"""Softmax losses that adapt to the sample, with statistics carried from batch to batch."""

import math

import jax
import jax.numpy as jnp

from uniface_jax.losses.base import Context, Loss, Statistics, added_angle, angle, cosine_of_sum

STATISTICS_MOMENTUM = 0.01  # weight of a new batch, of both papers' releases
MIN_NORM, MAX_NORM = 1e-3, 100.0  # to which AdaFace clips feature norms
EPSILON = 1e-3  # AdaFace's, of angles, cosines and the standard deviation


def _averaged(old: jax.Array, new: jax.Array) -> jax.Array:
    return (1 - STATISTICS_MOMENTUM) * old.astype(new.dtype) + STATISTICS_MOMENTUM * new


def adaface(scale: float = 64.0, margin: float = 0.4, concentration: float = 0.333) -> Loss:
    """Return AdaFace (Kim et al., CVPR 2022), whose margin goes by the feature norm.

    The norm is a proxy of quality.
    The positive's logit is s (cos(θ - m q) - (m + m q)) with q = clip(h (|x| - μ) / σ, -1, 1), μ
    and σ running mean and standard deviation of the norms (statistics norm_mean from 20 and
    norm_std from 100, updated before use). All cosines are cut to ±(1 - .001), as the release
    has it. margin m in [0, 1.5), concentration h in (0, 1].
    """

    def prepare(
        cos: jax.Array, norm: jax.Array, statistics: Statistics
    ) -> tuple[Context, Statistics]:
        norm = jnp.clip(norm, MIN_NORM, MAX_NORM)
        mean = _averaged(statistics["norm_mean"], jnp.mean(norm))
        std = _averaged(statistics["norm_std"], jnp.std(norm, ddof=1 if norm.shape[0] > 1 else 0))
        quality = jnp.clip(concentration * (norm - mean) / (std + EPSILON), -1, 1)
        return (quality,), {"norm_mean": mean, "norm_std": std}

    def positive(cos: jax.Array, b: jax.Array, quality: jax.Array) -> jax.Array:
        theta = angle(cos, EPSILON) - margin * quality
        theta = jnp.clip(theta, EPSILON, math.pi - EPSILON)
        return scale * (jnp.cos(theta) - margin - margin * quality)

    return Loss(
        family="softmax",
        positive=positive,
        negative=lambda cos, b, quality: scale * jnp.clip(cos, EPSILON - 1, 1 - EPSILON),
        scale=scale,
        statistics={"norm_mean": 20.0, "norm_std": 100.0},
        prepare=prepare,
    )


def curricularface(scale: float = 64.0, margin: float = 0.5) -> Loss:
    """Return CurricularFace (Huang et al., CVPR 2020), which weighs hard negatives ever more.

    The positive's logit is ArcFace's, s cos(θ + m), continued by s (cos θ - m sin m) where θ + m >
    π. A negative with cos_ij > cos(θ_iy + m) is hard: its logit is s cos_ij (t + cos_ij), with t
    the running mean of the positives' cosines (statistic positive_mean from 0, updated before
    use). margin m in [0, 1.5), in radians.
    """

    def prepare(
        cos: jax.Array, norm: jax.Array, statistics: Statistics
    ) -> tuple[Context, Statistics]:
        mean = _averaged(statistics["positive_mean"], jnp.mean(cos))
        return (cosine_of_sum(cos, margin), jnp.broadcast_to(mean, cos.shape)), {
            "positive_mean": mean
        }

    def negative(cos: jax.Array, b: jax.Array, hard: jax.Array, mean: jax.Array) -> jax.Array:
        return scale * jnp.where(cos > hard, cos * (mean + cos), cos)

    return Loss(
        family="softmax",
        positive=lambda cos, b, *_: scale * added_angle(cos, margin),
        negative=negative,
        scale=scale,
        statistics={"positive_mean": 0.0},
        prepare=prepare,
    )
