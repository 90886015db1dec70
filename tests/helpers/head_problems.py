"""Prototypes and samples drawn at random for the head's kernel, with what float32 may be off by."""

import numpy as np

from uniface_jax.head.blocks import NORM_FLOOR, Prototypes, Samples, Sums

FACTOR = 0.25  # of the gradients


def tolerance(scale):
    """Return that of exp(s cos): a cosine is known to a few 1e-7."""
    return 1e-5 + 5e-7 * scale


def draw(seed, batch, classes, dimension, scale, bias, by_class, saturated, invalid):
    """Prototypes and samples in float32; `bias` as a share of the scale."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((batch, dimension))
    weight = rng.standard_normal((classes, dimension))
    if saturated:  # cosines of 1 and of -1
        sign = rng.choice([-1, 1], (classes, 1))
        weight[:] = sign * directions[rng.integers(0, batch, classes)]
    weight *= rng.uniform(0.1, 10, (classes, 1))
    weight[rng.integers(0, classes)] = 0
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    biases = scale * bias + rng.normal(0, 1, classes if by_class else ())
    prototypes = Prototypes(
        weight.astype(np.float32),
        np.asarray(biases, np.float32),
        rng.random(classes) >= invalid,
    )
    # Some samples' own classes are on another shard.
    position = rng.integers(0, classes + classes // 3 + 1, batch).clip(max=classes)
    return prototypes, Samples(directions.astype(np.float32), position.astype(np.int32))


def _cosines(prototypes, samples):
    """Return cosines [B, C] in float64, own classes' at -1, and the prototypes' norms."""
    weight = prototypes.weight.astype(np.float64)
    norm = np.maximum(np.linalg.norm(weight, axis=1), NORM_FLOOR)
    cos = samples.directions.astype(np.float64) @ (weight / norm[:, None]).T
    own = samples.position[:, None] == np.arange(len(weight))
    return np.where(own, -1.0, np.clip(cos, -1, 1)), norm


def sums_in_float64(prototypes, samples, scale, negative_weight):
    """Return Sums of λ softplus(clip(s cos - b, -s, s)) from their definition."""
    weight, bias, valid = prototypes
    cos, norm = _cosines(prototypes, samples)
    z = scale * cos - bias
    size = valid * negative_weight
    slope = size * FACTOR / (1 + np.exp(-z)) * (np.abs(z) <= scale)
    units = weight.astype(np.float64) / norm[:, None]
    by_units = scale * slope.T @ samples.directions.astype(np.float64) / norm[:, None]
    along = np.sum(by_units * units, 1, keepdims=True) * (norm > NORM_FLOOR)[:, None]
    live = np.where(valid, cos, -1.0)
    return Sums(
        loss=np.sum(size * np.logaddexp(np.clip(z, -scale, scale), 0)),
        directions=scale * slope @ units,
        weight=by_units - along * units,
        bias=-slope.sum(0) if bias.ndim else -slope.sum(),
        max_negative=live.max(initial=-1.0),
        negatives_above=np.sum(valid * (z > 0)),
    )


def tolerances(scale, negative_weight, prototypes, samples):
    """Return what float32 may be off by: as Sums, of samples and of classes by row.

    Each is a share of the sum of its terms' sizes, and where a cosine is too near to a jump of the
    slope or of the threshold to say on which side it is, the whole term.
    """
    _, bias, valid = prototypes
    cos, norm = _cosines(prototypes, samples)
    z = scale * cos - bias
    inside = np.abs(z) <= scale
    jump = np.abs(np.abs(z) - scale) < 1e-3
    clipped = np.clip(z, -scale, scale)
    size = valid * negative_weight
    relative = tolerance(scale)
    slope = size * FACTOR / (1 + np.exp(-clipped)) * (relative * inside + jump)
    by_bias = slope.sum(0) if bias.ndim else slope.sum()
    return Sums(
        loss=relative * np.sum(size * np.logaddexp(clipped, 0)),
        directions=scale * slope.sum(1),
        weight=scale * slope.sum(0) / norm,
        bias=by_bias,
        max_negative=1e-6,
        negatives_above=np.sum(valid * (np.abs(z) < 1e-3)),
    )
