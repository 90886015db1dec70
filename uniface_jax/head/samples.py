"""Second head: the samples of a batch against a memory of features, one a class.

USS of UniTSFace (Li et al., NeurIPS 2023): UCE in which the prototype of class j is the last
feature that was seen of it, as the network gave it. The memory [C, D] is split over the devices as
the prototypes are and is passed over by the same blocks; no gradient reaches it. Where classes are
sampled, both heads take the same ones. Classes that no sample was seen of have zeros: they are no
negatives, and their samples have no positive.

Everything here is per device and runs under the named axis AXIS.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Products, Shard, loss_and_gradients, negatives_logsumexp
from uniface_jax.head.positives import GlobalBatch
from uniface_jax.losses import Loss
from uniface_jax.losses.softmax import nsl


class SampleResult(NamedTuple):
    """Mean loss [] between the global batch and the memory, with its gradients.

    by_features [b, D] of this device's samples; by_bias [] and the bias [] that the loss is of,
    the same on all devices.
    """

    loss: jax.Array
    by_features: jax.Array
    by_bias: jax.Array
    bias: jax.Array


def in_shard(memory: jax.Array, shard: Shard) -> Shard:
    """Return the memory's rows [S, D] of a shard's classes as a frozen shard, its bias at 0."""
    rows = memory if shard.subset is None else memory[shard.subset.row]
    seen = jnp.any(rows != 0, 1) & shard.prototypes.valid
    bias = jnp.zeros((), memory.dtype)
    return shard._replace(prototypes=Prototypes(rows, bias, seen), frozen=True)


def sample_to_sample(
    loss: Loss,
    memory: Shard,
    bias: jax.Array,
    batch: GlobalBatch,
    products: Products,
) -> SampleResult:
    """Return the loss between the samples of the global batch and the memory.

    Args:
        loss: additive, with a shared bias: losses.additive.uss.
        memory: this device's, of in_shard.
        bias: [], the threshold; where it is not above 0 it is set first (first_bias).
        batch: as loss_and_gradients.
        products: how the matrix products are taken.

    Returns:
        The mean loss and its gradients. None flows through the bias's setting.
    """
    bias = jax.lax.cond(
        bias > 0, lambda: bias, lambda: first_bias(loss.scale, memory, bias, batch, products)
    )
    memory = memory._replace(prototypes=memory.prototypes._replace(bias=bias))
    found = loss_and_gradients(loss, memory, batch, products=products)
    return SampleResult(found.loss, found.gradients.features, found.gradients.bias, bias)


def first_bias(
    scale: float,
    memory: Shard,
    bias: jax.Array,
    batch: GlobalBatch,
    products: Products,
) -> jax.Array:
    """Return the mean over the global batch of log sum_{j != y} exp(scale cos_ij).

    Samples without negatives in memory are left out; where there are no others it is `bias`.
    """
    each = negatives_logsumexp(nsl(scale), memory, batch, products)
    finite = jnp.isfinite(each)
    mean = jnp.sum(jnp.where(finite, each, 0)) / jnp.maximum(jnp.sum(finite), 1)
    return jnp.where(jnp.any(finite), mean, bias).astype(bias.dtype)


def written(
    memory: jax.Array, batch: GlobalBatch, start: jax.Array | int, after: jax.Array
) -> jax.Array:
    """Return the memory [S, D] with the features of the global batch in their classes' rows.

    start: the number of this device's first class.
    Of several samples of a class the last of the batch stays. after: the loss of whatever has read
    the memory. Nothing is written where it is not finite; and so the compiler knows that it is
    written last, in place, where it would else copy it whole.
    """
    rows = memory.shape[0]
    order, target = last_rows(batch.labels, start, rows)
    target = jnp.where(jnp.all(jnp.isfinite(after)), target, rows)
    return memory.at[target].set(batch.features[order].astype(memory.dtype), mode="drop")


def last_rows(labels: jax.Array, start: jax.Array | int, rows: int) -> tuple[jax.Array, jax.Array]:
    """Return an order [B] of the samples, and the row [B] that each may write in that order.

    labels [B] of the global batch; start, the number of the first class of these rows. The row is
    `rows`, which is none, for all but the last sample of a class, and for classes elsewhere.
    """
    # In a stable order by class, so that a class's last sample comes before the next class.
    order = jnp.argsort(labels, stable=True)
    by_class = labels[order]
    last = jnp.concatenate([by_class[1:] != by_class[:-1], jnp.ones(1, bool)])
    local = by_class - start
    return order, jnp.where(last & (local >= 0) & (local < rows), local, rows)
