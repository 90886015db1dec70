"""Distillation: features of a student, drawn to those that a teacher gave of the same images."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.blocks import inverse_norm
from uniface_jax.runtime.parallel import AXIS


class Distilled(NamedTuple):
    """Mean of w (1 - cos) over the global batch, [], with its gradients.

    by_features [b, D] of this device's samples; by_map [D, T] of them alone, to be summed over the
    devices, None without a map.
    """

    loss: jax.Array
    by_features: jax.Array
    by_map: jax.Array | None


def toward_teacher(
    weight: float, features: jax.Array, teacher: jax.Array, to_teacher: jax.Array | None = None
) -> Distilled:
    """Return w (1 - cos(student, teacher)), the mean over the global batch; runs under AXIS.

    A feature of length 0 has the cosine 0 with all others.

    Args:
        weight: w.
        features: the student's, [b, D].
        teacher: the teacher's, [b, T].
        to_teacher: [D, T], which makes T numbers of the student's D; None where both are as many.
    """
    mapped = features if to_teacher is None else features @ to_teacher
    scale, unfloored = inverse_norm(mapped)
    directions = mapped * scale[:, None]
    targets = teacher.astype(mapped.dtype)
    targets = targets * inverse_norm(targets)[0][:, None]
    cos = jnp.sum(directions * targets, -1)
    factor = weight / (cos.shape[0] * jax.lax.axis_size(AXIS))
    along = (cos * unfloored)[:, None] * directions
    by_mapped = factor * scale[:, None] * (along - targets)
    loss = jax.lax.psum(jnp.sum(1 - cos), AXIS) * factor
    if to_teacher is None:
        return Distilled(loss, by_mapped, None)
    return Distilled(loss, by_mapped @ to_teacher.T, features.T @ by_mapped)
