"""Head: class prototypes split over the devices, sampled classes, and the loss over them.

Everything here is per device and runs under the named axis AXIS. Device d of n owns the classes
d*S .. d*S+S-1 with S = ceil(C/n); the rows beyond C are padding rows of the last shards, which
never enter a loss, a count or a checkpoint. Features are gathered, every device computes the loss
over its own classes (blocks.py), feature gradients are reduce-scattered.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from uniface_jax.head.blocks import (
    Prototypes,
    Samples,
    Sums,
    Terms,
    additive_pass,
    fill_terms,
    logsumexp_pass,
    share,
    slopes,
    softmax_pass,
)
from uniface_jax.head.by_norm import penalty_terms, positive_slope
from uniface_jax.head.pairs import Pairs, find_pairs
from uniface_jax.head.positives import Features, GlobalBatch, Positives, against_own
from uniface_jax.head.positives import Shard as Shard
from uniface_jax.losses import Loss
from uniface_jax.losses.base import Context, Statistics
from uniface_jax.runtime import low_precision
from uniface_jax.runtime.parallel import AXIS


@dataclass(frozen=True)
class Products:
    """Products of directions and prototypes: classes in a block, and the factors' dtype.

    dtype: bfloat16 or one of low_precision.LARGEST for speed, None for that of the arrays. Sums are
    in the prototypes' dtype.
    """

    block_size: int = 8192
    dtype: DTypeLike | None = None


class Gradients(NamedTuple):
    """Gradients of the mean loss over the global batch.

    features [b, D] of this device's samples; weight and bias as in the Prototypes given, weight
    None for frozen ones. A shared bias's is complete on every device.
    """

    features: jax.Array
    weight: jax.Array | None
    bias: jax.Array


class Similarities(NamedTuple):
    """Sample-to-class cosines of the global batch, as scalars.

    min_positive and max_negative are the extremes; with a threshold t = b/s, positives_below and
    negatives_above are the shares on the wrong side of it (of t = 0 for losses without a bias).
    One threshold separates positives from negatives where min_positive > max_negative.
    """

    min_positive: jax.Array
    max_negative: jax.Array
    positives_below: jax.Array
    negatives_above: jax.Array


class Relative(NamedTuple):
    """Cosines [b] of this device's samples: with their own class, and with the nearest other one.

    The latter is FILL where there is no other class.
    """

    own: jax.Array
    nearest: jax.Array


class Result(NamedTuple):
    """Mean loss [] of a batch, the same on all devices, and what comes with it.

    statistics are the loss's, after this batch. relative: where the loss is. odds [B] of a loss
    that is coupled with another: the logarithm of its own negatives over its positive.
    """

    loss: jax.Array
    gradients: Gradients
    similarities: Similarities
    statistics: Statistics
    relative: Relative | None = None
    odds: jax.Array | None = None


class _Slopes(NamedTuple):
    """Gradients with respect to the positives' cosines and biases, [B] each.

    by_norm: with respect to the feature norms, of a loss that goes by them.
    """

    by_cos: jax.Array
    by_bias: jax.Array
    by_norm: jax.Array | None = None


class _Summed(NamedTuple):
    """Loss [] of the global batch, the sums over a shard, and the positives' slopes.

    by_direction [B, D]: gradients through pairs of samples, the same on every device; odds as the
    result's.
    """

    loss: jax.Array
    sums: Sums
    slopes: _Slopes
    by_direction: jax.Array | None = None
    odds: jax.Array | None = None


def loss_and_gradients(
    loss: Loss,
    shard: Shard,
    batch: GlobalBatch,
    statistics: Statistics | None = None,
    products: Products = Products(),
) -> Result:
    """Return the loss over the global batch with its gradients.

    Args:
        loss: the loss with its hyperparameters; one that draws has its draws (draws.py).
        shard: this device's classes.
        batch: of gather; its labels are classes numbered over all devices.
        statistics: the scalars that the loss carries along, for losses that have any.
        products: how the matrix products are taken.

    Returns:
        The mean loss, its gradients with respect to features, prototypes and bias, the
        similarities and the new statistics.
    """
    prototypes = shard.prototypes
    features, positives = against_own(shard, batch)
    context, statistics = _prepare(loss, positives, features.values, statistics or {})
    samples = _samples(features, positives, products)._replace(context=context)
    if loss.family == "additive":
        summed = _sum_additive(loss, shard, samples, positives, products.block_size)
    else:
        pairs = find_pairs(loss, features.directions, batch.labels)
        summed = _sum_softmax(loss, shard, samples, positives, products.block_size, pairs)
    if loss.penalty is not None:
        summed = _penalized(loss, summed, context[0])
    gradients = _gradients(prototypes, features, positives, summed, batch.local)
    similarities = _similarities(loss, prototypes, summed.sums, positives)
    relative = _relative(summed.sums, positives, batch.local)
    return Result(summed.loss, gradients, similarities, statistics, relative, summed.odds)


def negatives_logsumexp(
    loss: Loss, shard: Shard, batch: GlobalBatch, products: Products
) -> jax.Array:
    """Return the log-sum-exp of each sample's negatives, [B] of the global batch, over all devices.

    loss: of the softmax family, without context. It is -inf where there are no negatives. All else
    is as loss_and_gradients has it.
    """
    features, own = against_own(shard, batch)
    samples = _samples(features, own, products)
    fill = fill_terms(loss, own.bias, ())
    return _log_negatives(loss, shard, samples, (own, fill), products.block_size)


def log_odds(loss: Loss, shard: Shard, batch: GlobalBatch, products: Products) -> jax.Array:
    """Return the logarithm [B] of each sample's negatives over its positive, over all devices.

    Arguments are as negatives_logsumexp's. It is -inf where there are no negatives, and for a class
    without a valid row.
    """
    features, own = against_own(shard, batch)
    samples = _samples(features, own, products)
    positive, fill = _own_terms(loss, own, samples)
    negatives = _log_negatives(loss, shard, samples, (own, fill), products.block_size)
    target = jax.lax.psum(jnp.where(own.owned, positive.value, 0), AXIS)
    return jnp.where(jax.lax.psum(own.owned, AXIS) > 0, negatives - target, -jnp.inf)


def _samples(batch: Features, own: Positives, products: Products) -> Samples:
    low = products.dtype or batch.directions.dtype
    directions = low_precision.rows(batch.directions, low)
    return Samples(directions.values, own.position, scale=directions.scale)


def _sum_additive(
    loss: Loss, shard: Shard, samples: Samples, positives: Positives, block_size: int
) -> _Summed:
    """Return an additive loss: one pass over the negatives, and the positives one by one."""
    factor = loss.weight / positives.cos.shape[0]
    positive, fill = _own_terms(loss, positives, samples)
    sums = additive_pass(loss, shard.prototypes, samples, block_size, factor, frozen=shard.frozen)
    value = jnp.where(positives.owned, positive.value - fill.value, 0)
    total = jax.lax.psum(jnp.sum(value) + jnp.sum(sums.loss), AXIS) * factor
    weights = (jnp.ones(()), jnp.ones(()))
    slopes_ = _own_slopes(positives, (positive, fill), weights, factor)
    return _Summed(total, sums, _with_norms(loss, slopes_, positives, samples, factor))


def _sum_softmax(
    loss: Loss,
    shard: Shard,
    samples: Samples,
    positives: Positives,
    block_size: int,
    pairs: Pairs | None = None,
) -> _Summed:
    """Return a softmax loss: a pass for the log-sum-exp and one for the gradients."""
    factor = loss.weight / positives.cos.shape[0]
    owned = positives.owned
    positive, fill = _own_terms(loss, positives, samples)
    negatives = _log_negatives(loss, shard, samples, (positives, fill), block_size)
    if pairs is not None:
        negatives = jnp.logaddexp(negatives, pairs.logsumexp)
    target = jax.lax.psum(jnp.where(owned, positive.value, 0), AXIS)
    logsumexp = jnp.logaddexp(negatives, target)
    by_target = jnp.exp(target - logsumexp) - 1
    if loss.odds is not None:
        own = jax.lax.psum(owned, AXIS) > 0
        logsumexp = jnp.logaddexp(logsumexp, target + loss.odds)
        # A class without an expectation has no part in the sum, and gets no gradient through it.
        logsumexp = jnp.where(own, logsumexp, jnp.inf)
        by_target = -jnp.exp(negatives - logsumexp)
    known = samples._replace(logsumexp=logsumexp)
    sums = softmax_pass(loss, shard.prototypes, known, block_size, factor, frozen=shard.frozen)
    total = jnp.sum(logsumexp - target) * factor
    # The slopes of the loss by the positive's logit and by the one at FILL.
    weights = (by_target, share(fill.value, logsumexp))
    slopes_ = _own_slopes(positives, (positive, fill), weights, factor)
    slopes_ = _with_norms(loss, slopes_, positives, samples, weights[0] * factor)
    by_direction = None if pairs is None else pairs.by_direction(logsumexp, factor)
    odds = None if loss.odds is None else negatives - target
    return _Summed(total, sums, slopes_, by_direction, odds)


def _with_norms(
    loss: Loss, found: _Slopes, positives: Positives, samples: Samples, weight: jax.Array | float
) -> _Slopes:
    """Return the slopes with those by the feature norms, each sample's on every device.

    weight: the slope of the loss by what loss.positive returns.
    """
    if not loss.by_norm:
        return found
    by_norm = positive_slope(loss, positives.cos, positives.bias, samples.context[0])
    return found._replace(
        by_norm=jax.lax.psum(jnp.where(positives.owned, by_norm * weight, 0), AXIS)
    )


def _penalized(loss: Loss, summed: _Summed, norm: jax.Array) -> _Summed:
    """Return the sums of a loss by norm with the penalties of the norms [B] and their slopes."""
    value, by_norm = penalty_terms(loss, norm)
    before = summed.slopes.by_norm
    assert before is not None
    slopes_ = summed.slopes._replace(by_norm=before + by_norm)
    return summed._replace(loss=summed.loss + jnp.sum(value), slopes=slopes_)


def _log_negatives(
    loss: Loss,
    shard: Shard,
    samples: Samples,
    own: tuple[Positives, Terms],
    block_size: int,
) -> jax.Array:
    """Return the log-sum-exp [B] of the negatives' logits over all devices.

    own: the positives, and what they are as negatives at FILL.
    """
    positives, fill = own
    maximum, summed = logsumexp_pass(loss, shard.prototypes, samples, block_size)
    summed -= jnp.where(positives.owned, jnp.exp(fill.value - maximum), 0)
    highest = jax.lax.pmax(maximum, AXIS)
    negatives = jax.lax.psum(jnp.maximum(summed, 0) * jnp.exp(maximum - highest), AXIS)
    logsumexp: jax.Array = highest + jnp.log(negatives)
    return logsumexp


def _own_terms(loss: Loss, positives: Positives, samples: Samples) -> tuple[Terms, Terms]:
    """Return what the samples' own classes are as positives, and as negatives at FILL."""
    positive = slopes(loss.positive, positives.cos, positives.bias, *samples.context)
    fill = fill_terms(loss, positives.bias, samples.context)
    if positives.chosen is not None:  # no gradient came from its cosine
        fill = fill._replace(by_cos=jnp.zeros_like(fill.by_cos))
    return positive, fill


def _own_slopes(
    positives: Positives,
    terms: tuple[Terms, Terms],
    weights: tuple[jax.Array, jax.Array],
    factor: float,
) -> _Slopes:
    """Return the positives' slopes less what the pass over the negatives had at FILL."""
    positive, fill = terms
    by_cos, by_bias = (
        jnp.where(positives.owned, weights[0] * of_positive - weights[1] * of_fill, 0) * factor
        for of_positive, of_fill in zip(positive[1:], fill[1:], strict=True)
    )
    return _Slopes(by_cos, by_bias)


def _gradients(
    prototypes: Prototypes, batch: Features, own: Positives, summed: _Summed, local: int
) -> Gradients:
    """Return the gradients with the positives' share, one row of prototypes a sample.

    `local` is the number of this device's samples, whose gradients are scattered back to it.
    """
    sums, (by_cos, by_bias, by_norm) = summed.sums, summed.slopes
    scaled = (by_cos * own.inverse_norm)[:, None]
    toward = scaled * (
        batch.directions - (own.cos * own.inverse_norm * own.unfloored)[:, None] * own.weight
    )
    weight = sums.weight
    if weight is not None:
        place = (own.position,) if own.chosen is None else (own.position, own.chosen)
        weight = weight.at[place].add(toward, mode="drop")
    if prototypes.bias.ndim:
        bias = sums.bias.at[own.position].add(by_bias, mode="drop")
    else:
        bias = jax.lax.psum(sums.bias + jnp.sum(by_bias), AXIS)

    by_direction = jax.lax.psum_scatter(sums.directions + scaled * own.weight, AXIS, tiled=True)
    mine = jax.lax.axis_index(AXIS) * local
    if summed.by_direction is not None:
        by_direction += jax.lax.dynamic_slice_in_dim(summed.by_direction, mine, local)
    direction, scale, slope = (
        jax.lax.dynamic_slice_in_dim(x, mine, local)
        for x in (batch.directions, batch.inverse_norm, batch.unfloored)
    )
    along = jnp.sum(by_direction * direction, -1) * slope
    by_feature = scale[:, None] * (by_direction - along[:, None] * direction)
    if by_norm is not None:
        by_feature += jax.lax.dynamic_slice_in_dim(by_norm, mine, local)[:, None] * direction
    return Gradients(by_feature.astype(batch.values.dtype), weight, bias)


def _prepare(
    loss: Loss, own: Positives, features: jax.Array, statistics: Statistics
) -> tuple[Context, Statistics]:
    """Return the samples' context and the new statistics; each device needs the whole batch's."""
    if loss.prepare is None and not loss.by_norm:
        return (), statistics
    positive = jax.lax.psum(jnp.where(own.owned, own.cos, 0), AXIS)
    norm = jnp.sqrt(jnp.sum(jnp.square(features), -1))
    context, updated = loss.context(positive, norm, statistics)
    # In a loop the statistics must keep their dtype, whatever that of the features.
    updated = {name: value.astype(statistics[name].dtype) for name, value in updated.items()}
    return tuple(x.astype(own.cos.dtype) for x in context), updated


def _relative(sums: Sums, own: Positives, local: int) -> Relative | None:
    """Return the cosines of this device's `local` samples; None for a loss that asks for none."""
    if sums.nearest is None:
        return None
    mine = jax.lax.axis_index(AXIS) * local
    everywhere = (
        jax.lax.psum(jnp.where(own.owned, own.cos, 0), AXIS), jax.lax.pmax(sums.nearest, AXIS)
    )  # fmt: skip
    return Relative(*(jax.lax.dynamic_slice_in_dim(x, mine, local) for x in everywhere))


def _similarities(loss: Loss, prototypes: Prototypes, sums: Sums, own: Positives) -> Similarities:
    below = own.owned & (own.cos <= loss.threshold(own.bias))
    positives = jax.lax.psum(jnp.sum(own.owned), AXIS)
    classes = jax.lax.psum(jnp.sum(prototypes.valid), AXIS)
    negatives = positives * (classes - 1).astype(jnp.float32)
    return Similarities(
        min_positive=jax.lax.pmin(jnp.min(jnp.where(own.owned, own.cos, jnp.inf)), AXIS),
        max_negative=jax.lax.pmax(sums.max_negative, AXIS),
        positives_below=jax.lax.psum(jnp.sum(below), AXIS) / positives,
        negatives_above=jax.lax.psum(sums.negatives_above, AXIS) / jnp.maximum(negatives, 1),
    )
