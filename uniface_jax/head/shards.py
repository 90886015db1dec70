"""Shards of prototypes: which device owns which classes, and their first values."""

import jax
import jax.numpy as jnp

from uniface_jax.losses import Loss
from uniface_jax.runtime.parallel import AXIS


def shard_size(num_classes: int, num_devices: int) -> int:
    """Return the rows of prototypes on each device: ceil(C / n).

    >>> shard_size(10, 4)
    3
    """
    return -(-num_classes // num_devices)


def create_prototypes(
    key: jax.Array,
    loss: Loss,
    num_classes: int,
    embedding_size: int,
    sampling_rate: float,
    rows: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draw prototypes [C, D] with std 1/sqrt(D) (Kaiming, fan-in), and make the bias, [] or [C].

    With loss.subcentres S > 1 the prototypes are [C, S, D].
    rows: so many in place of C; those beyond C are padding rows. A class's numbers depend neither
    on it nor on how the compiler splits the rows over devices, each of which makes its own alone.
    """
    rows = rows or num_classes
    # Counts elements, and so splits by rows; it is JAX's default, which the environment can change.
    with jax.threefry_partitionable(True):
        several = (loss.subcentres,) if loss.subcentres > 1 else ()
        weight = jax.random.normal(key, (rows, *several, embedding_size))
    weight /= jnp.sqrt(float(embedding_size))
    bias_shape = (rows,) if loss.bias == "class" else ()
    return weight, jnp.full(bias_shape, loss.initial_bias(num_classes, sampling_rate))


def owned_classes(num_classes: int, rows: int) -> tuple[jax.Array, jax.Array]:
    """Return the device's first class [] and which rows are classes, [rows] bool, not padding."""
    start = jax.lax.axis_index(AXIS) * rows
    return start, start + jnp.arange(rows) < num_classes
