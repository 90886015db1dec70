"""The head: class prototypes split over the devices, sampled classes, and the loss over them.

Everything here is per device and runs under the named axis AXIS. Device d of n
owns the classes d*S .. d*S+S-1 with S = ceil(C/n); rows beyond C only fill up the last shards and
never enter a loss, a count or a checkpoint. Features are gathered, every device computes the loss
over its own classes (blocks.py), feature gradients are reduce-scattered.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.blocks import (
    Prototypes,
    Samples,
    Sums,
    additive_pass,
    fill_terms,
    inverse_norm,
    logsumexp_pass,
    share,
    slopes,
    softmax_pass,
)
from uniface_jax.head.sampling import Subset, _positions
from uniface_jax.losses import Loss
from uniface_jax.losses.base import Context, Statistics
from uniface_jax.runtime.parallel import AXIS


class Gradients(NamedTuple):
    """Of the mean loss over the global batch.

    features [b, D] of this device's samples; weight and bias as in the Prototypes given. A shared
    bias's is complete on every device.
    """

    features: jax.Array
    weight: jax.Array
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


class Result(NamedTuple):
    """Of one batch: the mean loss [] (the same on all devices) and what comes with it.

    statistics are the loss's, after this batch.
    """

    loss: jax.Array
    gradients: Gradients
    similarities: Similarities
    statistics: Statistics


def loss_and_gradients(
    loss: Loss,
    prototypes: Prototypes,
    features: jax.Array,
    labels: jax.Array,
    start: jax.Array,
    rows: int,
    subset: Subset | None = None,
    statistics: Statistics | None = None,
    block_size: int = 8192,
    product_dtype: jnp.dtype | None = None,
) -> Result:
    """The loss over the global batch with its gradients.

    features [b, D] and labels [b] int32 are this device's, `start` its first class and `rows` its
    number of classes; with a `subset`, `prototypes` are the rows subset.row of them. `statistics`
    are the scalars that the loss carries along, for losses that have any. Products are taken in
    `product_dtype` (bfloat16 for speed; None: as they are) and summed in the prototypes' dtype.
    """
    everywhere = jax.lax.all_gather(features, AXIS, tiled=True)
    all_labels = jax.lax.all_gather(labels, AXIS, tiled=True)
    feature_scale, feature_slope = inverse_norm(everywhere)
    directions = everywhere * feature_scale[:, None]
    position = _positions(all_labels, start, rows, subset)
    batch, size = directions.shape[0], prototypes.weight.shape[0]
    factor = loss.weight / batch

    owned = position < size
    own, own_scale, own_slope, own_bias = _positives(prototypes, position)
    own_cos = jnp.clip(jnp.sum(directions * own, -1) * own_scale, -1, 1)
    context, statistics = _prepare(loss, owned, own_cos, everywhere, statistics or {})
    samples = Samples(directions.astype(product_dtype or directions.dtype), position, context)
    positive = slopes(loss.positive, own_cos, own_bias, *context)
    fill = fill_terms(loss, own_bias, context)

    if loss.family == "additive":
        sums = additive_pass(loss, prototypes, samples, block_size, factor)
        value = jnp.where(owned, positive.value - fill.value, 0)
        total = jax.lax.psum(jnp.sum(value) + jnp.sum(sums.loss), AXIS) * factor
        weights = (jnp.ones(()), jnp.ones(()))
    else:
        maximum, summed = logsumexp_pass(loss, prototypes, samples, block_size)
        summed -= jnp.where(owned, jnp.exp(fill.value - maximum), 0)
        highest = jax.lax.pmax(maximum, AXIS)
        negatives = jax.lax.psum(jnp.maximum(summed, 0) * jnp.exp(maximum - highest), AXIS)
        target = jax.lax.psum(jnp.where(owned, positive.value, 0), AXIS)
        logsumexp = jnp.logaddexp(highest + jnp.log(negatives), target)
        sums = softmax_pass(loss, prototypes, samples, logsumexp, block_size, factor)
        total = jnp.sum(logsumexp - target) * factor
        # The slopes of the loss by the positive's logit and by the one at FILL.
        weights = (jnp.exp(target - logsumexp) - 1, share(fill.value, logsumexp))

    # The positives' gradients: one row of prototypes a sample, on the device that owns it.
    by_cos, by_bias = (
        jnp.where(owned, weights[0] * of_positive - weights[1] * of_fill, 0) * factor
        for of_positive, of_fill in zip(positive[1:], fill[1:], strict=True)
    )
    scaled = (by_cos * own_scale)[:, None]
    toward = scaled * (directions - (own_cos * own_scale * own_slope)[:, None] * own)
    weight = sums.weight.at[position].add(toward, mode="drop")
    if prototypes.bias.ndim:
        bias = sums.bias.at[position].add(by_bias, mode="drop")
    else:
        bias = jax.lax.psum(sums.bias + jnp.sum(by_bias), AXIS)

    by_direction = jax.lax.psum_scatter(sums.directions + scaled * own, AXIS, tiled=True)
    mine = jax.lax.axis_index(AXIS) * labels.shape[0]
    direction, scale, slope = (
        jax.lax.dynamic_slice_in_dim(x, mine, labels.shape[0])
        for x in (directions, feature_scale, feature_slope)
    )
    along = jnp.sum(by_direction * direction, -1) * slope
    by_feature = scale[:, None] * (by_direction - along[:, None] * direction)
    gradients = Gradients(by_feature.astype(features.dtype), weight, bias)
    similarities = _similarities(loss, prototypes, sums, owned, own_cos, own_bias)
    return Result(total, gradients, similarities, statistics)


def _positives(
    prototypes: Prototypes, position: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Own prototypes [B, D], their inverse norms, floors and biases [B]; any where not here."""
    row = jnp.minimum(position, prototypes.weight.shape[0] - 1)
    weight = prototypes.weight[row]
    bias = prototypes.bias[row] if prototypes.bias.ndim else prototypes.bias
    return weight, *inverse_norm(weight), jnp.broadcast_to(bias, row.shape)


def _prepare(
    loss: Loss, owned: jax.Array, own_cos: jax.Array, features: jax.Array, statistics: Statistics
) -> tuple[Context, Statistics]:
    """The samples' context and the new statistics; every device needs the whole batch's."""
    if loss.prepare is None:
        return (), statistics
    positive = jax.lax.psum(jnp.where(owned, own_cos, 0), AXIS)
    norm = jnp.sqrt(jnp.sum(jnp.square(features), -1))
    context, updated = loss.prepare(positive, norm, statistics)
    # In a loop the statistics must keep their dtype, whatever that of the features.
    updated = {name: value.astype(statistics[name].dtype) for name, value in updated.items()}
    return tuple(x.astype(own_cos.dtype) for x in context), updated


def _similarities(
    loss: Loss, prototypes: Prototypes, sums: Sums, owned: jax.Array, own_cos, own_bias
) -> Similarities:
    below = owned & (own_cos <= loss.threshold(own_bias))
    positives = jax.lax.psum(jnp.sum(owned), AXIS)
    classes = jax.lax.psum(jnp.sum(prototypes.valid), AXIS)
    negatives = positives * (classes - 1).astype(jnp.float32)
    return Similarities(
        min_positive=jax.lax.pmin(jnp.min(jnp.where(owned, own_cos, jnp.inf)), AXIS),
        max_negative=jax.lax.pmax(sums.max_negative, AXIS),
        positives_below=jax.lax.psum(jnp.sum(below), AXIS) / positives,
        negatives_above=jax.lax.psum(sums.negatives_above, AXIS) / jnp.maximum(negatives, 1),
    )
