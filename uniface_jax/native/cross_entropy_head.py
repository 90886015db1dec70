"""Loss and gradients of the negatives of UCE and BCE: arrays to arrays, on the CPU, float32."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.native import build

# Parts of the classes with sums of their own, the same on any number of threads up to this many.
MIN_TASKS = 4


class Constants(NamedTuple):
    """Hyperparameters of a clipped cross-entropy, and the factor of its gradients.

    frozen: the gradients with respect to the prototypes are left out.
    """

    scale: float
    negative_weight: float
    factor: float
    frozen: bool = False


def sums(
    directions: jax.Array,
    position: jax.Array,
    weight: jax.Array,
    bias: jax.Array,
    valid: jax.Array,
    constants: Constants,
) -> tuple[Any, ...]:
    """Return blocks.Sums of λ softplus(clip(s cos - b, -s, s)), own classes at FILL included.

    directions [B, D] float32 of unit length; position [B] int32, the own class's row, K where there
    is none; weight [K, D] float32; bias [] or [K] float32; valid [K] bool. D must divide by
    build.vector_width(), and build.available() be true. Of frozen ones the weight's sum is None.
    """
    *numbers, frozen = constants
    (batch, dimension), classes = directions.shape, weight.shape[0]
    tasks = min(max(MIN_TASKS, os.cpu_count() or 1), max(classes, 1))

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    call = jax.ffi.ffi_call(
        "uniface_cross_entropy_head",
        (
            array(), array(batch, dimension), array(0 if frozen else classes, dimension),
            array(*bias.shape), array(), array(),
            array(build.scratch("UnifaceHeadScratch", batch, dimension, tasks, frozen)),
        ),
        vmap_method="sequential",
    )  # fmt: skip
    loss, by_directions, by_weight, *rest, _ = call(
        directions, position, weight, bias, valid, tasks=np.int32(tasks),
        **dict(zip(("scale", "negative_weight", "factor"), map(np.float32, numbers), strict=True)),
    )  # fmt: skip
    return loss, by_directions, None if frozen else by_weight, *rest
