"""Classes sampled for a step: Partial FC, on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.shards import owned_classes
from uniface_jax.runtime.parallel import AXIS


class Subset(NamedTuple):
    """Classes of this device that take part in a step.

    row [K] int32, increasing, of the shard. valid [K] bool, False for padding rows.
    """

    row: jax.Array
    valid: jax.Array


def sample_classes(
    key: jax.Array,
    labels: jax.Array,
    num_classes: int,
    rows: int,
    sampling_rate: float,
    whole: jax.Array | None = None,
) -> Subset:
    """Sample the step's classes on this device: all positives, and random negatives.

    Each device takes int(r * its number of classes), or all of its positives where these are more:
    Partial FC's scheme (An et al., 2021), by which no class index has to be gathered.

    Args:
        key: the same on all devices.
        labels: [b], of this device's samples of the whole optimizer step.
        num_classes: C, over all devices.
        rows: of prototypes on each device, padding rows included.
        sampling_rate: r in (0, 1].
        whole: [] bool, whether all classes take part after all; a subset then has room for them,
            and costs as much as they do.
    """
    start, valid = owned_classes(num_classes, rows)
    local = jax.lax.all_gather(labels, AXIS, tiled=True) - start
    positive = jnp.zeros(rows, bool).at[jnp.where(local >= 0, local, rows)].set(True, mode="drop")
    # Only the last shard that has classes at all can have fewer than `rows` of them.
    full, last = int(rows * sampling_rate), int(num_classes % rows * sampling_rate)
    owned = jnp.sum(valid)
    wanted = jnp.where(owned == rows, full, jnp.where(owned > 0, last, 0))
    size = min(rows, max(full, local.shape[0], 1))
    if whole is not None:
        wanted, size = jnp.where(whole, owned, wanted), rows
    draw = jax.random.uniform(jax.random.fold_in(key, jax.lax.axis_index(AXIS)), (rows,))
    order = jnp.where(positive, 2.0, jnp.where(valid, draw, -1.0))
    score, index = jax.lax.top_k(order, size)
    taken = (score >= 2) | ((score >= 0) & (jnp.arange(size) < wanted))
    # Increasing rows make the gathers and scatters of the update run through memory in order.
    index = jnp.sort(jnp.where(taken, index, rows))
    return Subset(jnp.minimum(index, rows - 1).astype(jnp.int32), index < rows)


def positions(
    labels: jax.Array, start: jax.Array | int, rows: int, subset: Subset | None
) -> jax.Array:
    """Return the row [B] int32 of each label's prototype, K where another shard has it."""
    local = labels - start
    here = (local >= 0) & (local < rows)
    if subset is None:
        return jnp.where(here, local, rows).astype(jnp.int32)
    size = subset.row.shape[0]
    # Padding rows repeat the last index and stand at the end: the first match is the class.
    found = jnp.searchsorted(subset.row, local)
    return jnp.where(here, found, size).astype(jnp.int32)
