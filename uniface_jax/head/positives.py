"""Global batch as a shard sees it: features gathered, and each sample against its own class.

Everything here is per device and runs under the named axis AXIS.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.blocks import Prototypes, inverse_norm
from uniface_jax.head.sampling import Subset, positions
from uniface_jax.runtime.parallel import AXIS


class Shard(NamedTuple):
    """Classes of one device, or those of them that take part in a step.

    prototypes: of all `rows` classes, or with a `subset` of its K rows alone.
    start [] int32, the number of the device's first class; rows, its classes and padding rows.
    frozen: the prototypes are not trained, and have no gradient; a class whose row is not valid
    then has no positives either, which a softmax loss must not meet.
    """

    prototypes: Prototypes
    start: jax.Array | int
    rows: int
    subset: Subset | None = None
    frozen: bool = False


class GlobalBatch(NamedTuple):
    """Samples of all devices, on each of them: features [B, D] and labels [B], device by device."""

    features: jax.Array
    labels: jax.Array

    @property
    def local(self) -> int:
        """Return how many of them are of one device."""
        return int(self.labels.shape[0]) // jax.lax.axis_size(AXIS)


def gather(features: jax.Array, labels: jax.Array) -> GlobalBatch:
    """Return the global batch of every device's features [b, D] and labels [b] int32."""
    return GlobalBatch(*(jax.lax.all_gather(x, AXIS, tiled=True) for x in (features, labels)))


class Features(NamedTuple):
    """Features of the global batch, [B, D], and their unit directions.

    inverse_norm and unfloored [B] as blocks.inverse_norm returns them.
    """

    values: jax.Array
    directions: jax.Array
    inverse_norm: jax.Array
    unfloored: jax.Array


class Positives(NamedTuple):
    """Each sample of the global batch against its own class.

    owned [B] bool: the class is on this device; everything else is arbitrary where it is not.
    position [B] int32, the row among the shard's prototypes; weight [B, D]; all others [B]. chosen:
    with several prototypes a class, that of the largest cosine, which weight and cos are of.
    """

    owned: jax.Array
    position: jax.Array
    weight: jax.Array
    inverse_norm: jax.Array
    unfloored: jax.Array
    bias: jax.Array
    cos: jax.Array
    chosen: jax.Array | None = None


def against_own(shard: Shard, batch: GlobalBatch) -> tuple[Features, Positives]:
    """Return the features of the global batch, and each of its samples against its own class."""
    features = _unit(batch.features)
    return features, _positives(shard, features, batch.labels)


def _unit(features: jax.Array) -> Features:
    """Return the features with their directions."""
    scale, unfloored = inverse_norm(features)
    return Features(features, features * scale[:, None], scale, unfloored)


def _positives(shard: Shard, batch: Features, labels: jax.Array) -> Positives:
    """Return the prototypes and cosines of the samples' own classes."""
    prototypes = shard.prototypes
    position = positions(labels, shard.start, shard.rows, shard.subset)
    size = prototypes.weight.shape[0]
    owned = position < size
    row = jnp.minimum(position, size - 1)
    if shard.frozen:
        owned &= prototypes.valid[row]
    weight = prototypes.weight[row]
    bias = prototypes.bias[row] if prototypes.bias.ndim else prototypes.bias
    chosen = None
    if weight.ndim == 3:
        every = jnp.sum(batch.directions[:, None] * weight, -1) * inverse_norm(weight)[0]
        chosen = jnp.argmax(every, -1)
        weight = jnp.take_along_axis(weight, chosen[:, None, None], 1)[:, 0]
    scale, unfloored = inverse_norm(weight)
    bias = jnp.broadcast_to(bias, row.shape)
    cos = jnp.clip(jnp.sum(batch.directions * weight, -1) * scale, -1, 1)
    return Positives(owned, position, weight, scale, unfloored, bias, cos, chosen)
