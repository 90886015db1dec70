"""The head: class prototypes split over the devices, sampled classes, and the loss over them.

Everything here but `initialize` is per device and runs under the named axis AXIS. Device d of n
owns the classes d*S .. d*S+S-1 with S = ceil(C/n); rows beyond C only fill up the last shards and
never enter a loss, a count or a checkpoint. Features are gathered, every device computes the loss
over its own classes (blockwise.py), feature gradients are reduce-scattered.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.blockwise import (
    Prototypes,
    Samples,
    Sums,
    additive_pass,
    inverse_norm,
    logsumexp_pass,
    slopes,
    softmax_pass,
)
from uniface_jax.losses import Loss
from uniface_jax.parallel import AXIS


class Gradients(NamedTuple):
    """Of the mean loss over the global batch.

    features [b, D] of this device's samples; weight and bias as in the Prototypes given.
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


class Subset(NamedTuple):
    """The classes of this device that take part in a step.

    index [K] int32, increasing: rows of the shard. valid [K] bool: False for what fills up.
    """

    index: jax.Array
    valid: jax.Array


def shard_size(num_classes: int, num_devices: int) -> int:
    """Rows of prototypes on each device: ceil(C / n)."""
    return -(-num_classes // num_devices)


def initialize(
    key: jax.Array, loss: Loss, num_classes: int, embedding_size: int, sampling_rate: float
) -> tuple[jax.Array, jax.Array]:
    """Prototypes [C, D], normal with std 1/sqrt(D) (Kaiming, fan-in), and the bias ([] or [C])."""
    shape = (num_classes, embedding_size)
    weight = jax.random.normal(key, shape) / jnp.sqrt(float(embedding_size))
    bias_shape = (num_classes,) if loss.bias == "class" else ()
    return weight, jnp.full(bias_shape, loss.initial_bias(num_classes, sampling_rate))


def owned_classes(num_classes: int, rows: int) -> tuple[jax.Array, jax.Array]:
    """This device's first class [] and which of its rows are classes [rows] bool."""
    start = jax.lax.axis_index(AXIS) * rows
    return start, start + jnp.arange(rows) < num_classes


def sample_classes(
    key: jax.Array, labels: jax.Array, num_classes: int, rows: int, sampling_rate: float
) -> Subset:
    """The step's classes on this device: all positives, filled up with random negatives.

    labels [b] are this device's, of the whole optimiser step; key is the same on all devices. Each
    device takes int(rows * r) of its classes, or all of its positives where these are more; that
    is Partial FC's scheme (An et al., 2021), by which no class index has to be gathered.
    """
    start, valid = owned_classes(num_classes, rows)
    local = jax.lax.all_gather(labels, AXIS, tiled=True) - start
    positive = jnp.zeros(rows, bool).at[jnp.where(local >= 0, local, rows)].set(True, mode="drop")
    wanted = int(rows * sampling_rate)
    size = min(rows, max(wanted, local.shape[0], 1))
    draw = jax.random.uniform(jax.random.fold_in(key, jax.lax.axis_index(AXIS)), (rows,))
    order = jnp.where(positive, 2.0, jnp.where(valid, draw, -1.0))
    score, index = jax.lax.top_k(order, size)
    taken = (score >= 2) | ((score >= 0) & (jnp.arange(size) < wanted))
    # Increasing rows make the gathers and scatters of the update run through memory in order.
    index = jnp.where(taken, index, rows)
    index = jnp.sort(index)
    return Subset(jnp.minimum(index, rows - 1).astype(jnp.int32), index < rows)


def _positions(labels: jax.Array, start: jax.Array, rows: int, subset: Subset | None) -> jax.Array:
    """Row of each label's prototype among the K given, or K where it is on another device."""
    local = labels - start
    here = (local >= 0) & (local < rows)
    if subset is None:
        return jnp.where(here, local, rows).astype(jnp.int32)
    size = subset.index.shape[0]
    # Rows that fill up repeat the last index and stand at the end: the first match is the class.
    found = jnp.searchsorted(subset.index, local)
    return jnp.where(here, found, size).astype(jnp.int32)


def _positives(
    loss: Loss, prototypes: Prototypes, samples: Samples
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Own prototypes' rows [B, D] and their inverse norms, biases and floors, where owned."""
    row = jnp.minimum(samples.position, prototypes.weight.shape[0] - 1)
    weight = prototypes.weight[row]
    bias = prototypes.bias[row] if prototypes.bias.ndim else prototypes.bias
    return weight, *inverse_norm(weight), jnp.broadcast_to(bias, row.shape)


def loss_and_gradients(
    loss: Loss,
    prototypes: Prototypes,
    features: jax.Array,
    labels: jax.Array,
    start: jax.Array,
    rows: int,
    subset: Subset | None = None,
    block_size: int = 8192,
    product_dtype: jnp.dtype | None = None,
) -> tuple[jax.Array, Gradients, Similarities]:
    """Mean loss over the global batch (a scalar, the same on all devices), gradients, cosines.

    features [b, D] and labels [b] int32 are this device's, `start` its first class and `rows` its
    number of classes; with a `subset`, `prototypes` are the rows subset.index of them. Products
    are taken in `product_dtype` (bfloat16 for speed; None: as they are) and summed in the
    prototypes' dtype. A bias's gradient is complete on every device (shared) or for the own rows.
    """
    everywhere = jax.lax.all_gather(features, AXIS, tiled=True)
    all_labels = jax.lax.all_gather(labels, AXIS, tiled=True)
    feature_scale, feature_slope = inverse_norm(everywhere)
    directions = everywhere * feature_scale[:, None]
    position = _positions(all_labels, start, rows, subset)
    samples = Samples(directions.astype(product_dtype or directions.dtype), position)
    batch, size = directions.shape[0], prototypes.weight.shape[0]
    factor = 1.0 / batch

    owned = position < size
    own, own_scale, own_slope, own_bias = _positives(loss, prototypes, samples)
    own_cos = jnp.sum(directions * own, -1) * own_scale
    value, by_cos, by_bias = slopes(loss.positive, own_cos, own_bias)
    value = jnp.where(owned, value, 0)

    if loss.family == "additive":
        sums = additive_pass(loss, prototypes, samples, block_size, factor)
        total = jax.lax.psum(jnp.sum(value) + jnp.sum(sums.loss), AXIS) * factor
    else:
        maximum, summed = logsumexp_pass(loss, prototypes, samples, block_size)
        highest = jax.lax.pmax(maximum, AXIS)
        negatives = jax.lax.psum(summed * jnp.exp(maximum - highest), AXIS)
        target = jax.lax.psum(value, AXIS)
        logsumexp = jnp.logaddexp(highest + jnp.log(negatives), target)
        sums = softmax_pass(loss, prototypes, samples, logsumexp, block_size, factor)
        total = jnp.mean(logsumexp - target)
        missing = jnp.exp(target - logsumexp) - 1  # slope of the loss by the positive's logit
        by_cos, by_bias = missing * by_cos, missing * by_bias

    # The positives' gradients: one row of prototypes a sample, on the device that owns it.
    by_cos, by_bias = (jnp.where(owned, slope, 0) * factor for slope in (by_cos, by_bias))
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
    return total, gradients, _similarities(loss, prototypes, sums, owned, own_cos, own_bias)


def _similarities(
    loss: Loss, prototypes: Prototypes, sums: Sums, owned: jax.Array, own_cos, own_bias
) -> Similarities:
    below = owned & (loss.scale * own_cos <= own_bias)
    positives = jax.lax.psum(jnp.sum(owned), AXIS)
    classes = jax.lax.psum(jnp.sum(prototypes.valid), AXIS)
    negatives = positives * (classes - 1).astype(jnp.float32)
    return Similarities(
        min_positive=jax.lax.pmin(jnp.min(jnp.where(owned, own_cos, jnp.inf)), AXIS),
        max_negative=jax.lax.pmax(sums.max_negative, AXIS),
        positives_below=jax.lax.psum(jnp.sum(below), AXIS) / positives,
        negatives_above=jax.lax.psum(sums.negatives_above, AXIS) / jnp.maximum(negatives, 1),
    )
