"""Gradient of a loss with respect to the feature norms, where it goes by them."""

import jax
import jax.numpy as jnp

from uniface_jax.losses import Loss


def positive_slope(loss: Loss, cos: jax.Array, bias: jax.Array, norm: jax.Array) -> jax.Array:
    """Return the derivative [B] of loss.positive(cos, bias, norm) with respect to the norm."""

    def of_norm(norm: jax.Array) -> jax.Array:
        return loss.positive(cos, bias, norm)

    slope: jax.Array = jax.jvp(of_norm, (norm,), (jnp.ones_like(norm),))[1]
    return slope


def penalty_terms(loss: Loss, norm: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the penalties of feature norms [B] and their derivatives, times loss.weight / B."""
    assert loss.penalty is not None
    factor = loss.weight / norm.shape[0]
    value, slope = jax.jvp(loss.penalty, (norm,), (jnp.ones_like(norm),))
    return factor * value, factor * slope
