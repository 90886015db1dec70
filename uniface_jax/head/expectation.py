"""Class expectations: running means of features that a loss of prototypes is coupled with (PCO).

LVFace (You et al., ICCV 2025) as a second-hand description has it, see losses/expectation.py. The
expectation e_y of class y becomes α e_y + (1 - α) x with each image, α = sigmoid(cos(x, e_y)). No
gradient reaches it. It is kept [C, D] where a loss between samples keeps its memory, split over the
devices, and passed over by the same blocks; classes that no sample was seen of have zeros, and no
part in the second sum.

Everything here is per device and runs under the named axis AXIS.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from uniface_jax.head.blocks import unit
from uniface_jax.head.loss import Products, Result, Shard, log_odds, loss_and_gradients
from uniface_jax.head.positives import GlobalBatch, gather
from uniface_jax.head.samples import last_rows
from uniface_jax.losses import Loss
from uniface_jax.losses.base import Statistics


def coupled(
    loss: Loss,
    shards: tuple[Shard, Shard],
    mine: tuple[jax.Array, jax.Array],
    statistics: Statistics,
    products: Products,
    counts: jax.Array,
) -> Result:
    """Return a loss against prototypes, and where `counts` [] is True against expectations too.

    It is log(1 + Σ e^(z_j - z_y) + Σ e^(u_j - u_y)), the mean over the global batch, with logits z
    of the loss and u of loss.expectation. Of the expectations there are three passes, two for the
    log-sum-exp.

    Args:
        loss: with an expectation.
        shards: this device's prototypes, and its expectations as samples.in_shard has them.
        mine: features [b, D] and labels [b] of this device's samples.
        statistics: as loss_and_gradients.
        products: how the matrix products are taken.
        counts: the same on all devices.
    """
    prototypes, memory = shards
    second = loss.expectation
    assert second is not None

    # Each branch gathers for itself: compiled with batches from outside it would round otherwise.
    def both() -> Result:
        batch = gather(*mine)
        odds = log_odds(second, memory, batch, products)
        first = loss_and_gradients(
            replace(loss, odds=odds), prototypes, batch, statistics, products
        )
        against = replace(second, odds=first.odds)
        rest = loss_and_gradients(against, memory, batch, products=products)
        by_features = first.gradients.features + rest.gradients.features
        gradients = first.gradients._replace(features=by_features)
        return first._replace(gradients=gradients, odds=None)

    def alone() -> Result:
        return loss_and_gradients(loss, prototypes, gather(*mine), statistics, products)

    result: Result = jax.lax.cond(counts, both, alone)
    return result


def expected(
    memory: jax.Array, batch: GlobalBatch, start: jax.Array | int, after: jax.Array
) -> jax.Array:
    """Return the expectations [S, D] after the features of the global batch.

    All start from those before the step, and of several samples of a class the last of the batch
    counts. Arguments are as those of samples.written.
    """
    everyone, classes = batch
    rows = memory.shape[0]
    own = memory[jnp.clip(classes - start, 0, rows - 1)]
    cos = jnp.sum(unit(everyone) * unit(own), -1)
    kept = jax.nn.sigmoid(cos)[:, None]
    moved = kept * own + (1 - kept) * everyone
    order, target = last_rows(classes, start, rows)
    target = jnp.where(jnp.all(jnp.isfinite(after)), target, rows)
    return memory.at[target].set(moved[order].astype(memory.dtype), mode="drop")
