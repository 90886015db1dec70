"""Draws of the standard normal for losses that take one a sample, the same on any devices."""

import jax
import jax.numpy as jnp

from uniface_jax.losses import Loss
from uniface_jax.runtime.parallel import AXIS


def with_own_draws(loss: Loss, key: jax.Array, count: int) -> Loss:
    """Return the loss with the draws of the global batch; itself where it draws nothing.

    key: of this device's `count` samples, by the number of their group, so that a sample's draw
    does not depend on how the groups are shared by devices.
    """
    if not loss.draws:
        return loss
    return with_gathered(loss, jax.random.normal(key, (count,), jnp.float32))


def with_gathered(loss: Loss, draws: jax.Array) -> Loss:
    """Return the loss with these draws [b] of every device's samples."""
    return loss.with_draws(jax.lax.all_gather(draws, AXIS, tiled=True))
