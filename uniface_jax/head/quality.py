"""Quality of an image: a linear head that learns how clearly a sample stands with its own class.

CR-FIQA (Boutros et al., CVPR 2023). The target is a sample's certainty ratio, of its cosine with
its own prototype to that with the nearest wrong one: what the head of the classes sees anyway, in
training alone. The linear head learns to say it of the feature, and so of any image later.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.head.loss import Relative
from uniface_jax.runtime.parallel import AXIS

EPSILON = 1e-9  # of the paper's denominator, nearest + 1 + epsilon
FLOOR = 1e-12  # of the release's: of the nearest cosine itself, whose own class counts as -FLOOR

Linear = dict[str, jax.Array]  # kernel [D] and bias []


class Regression(NamedTuple):
    """Regression of certainty ratios: λ, β of smooth L1, and the release's ratio or the paper's."""

    weight: float
    beta: float = 0.5
    as_published: bool = False


class Graded(NamedTuple):
    """Mean of λ SmoothL1(ratio, quality) over the global batch, [], with its gradients.

    by_features [b, D] of this device's samples; by_head of them alone, to be summed over the
    devices; ratio [], the mean of the targets.
    """

    loss: jax.Array
    by_features: jax.Array
    by_head: Linear
    ratio: jax.Array


def create(key: jax.Array, size: int) -> Linear:
    """Draw kernel [D] and bias [] evenly within 1/sqrt(D), as PyTorch's Linear(D, 1)."""
    bound = size**-0.5
    drawn = jax.random.uniform(key, (size + 1,), minval=-bound, maxval=bound)
    return {"kernel": drawn[:size], "bias": drawn[size]}


def certainty_ratio(cosines: Relative, as_published: bool = False) -> jax.Array:
    """Return the targets: own / (nearest + 1 + 1e-9), of the cosines' shape.

    as_published: own / nearest, as the release's code has it. There the own class stands among the
    others with -1e-12: where all of them lie behind, ratios come to 1e11. A cosine nearer to 0 than
    that counts as 1e-12.
    """
    if not as_published:
        # In float32 the sum is 0 where all others lie straight behind.
        return cosines.own / jnp.maximum(cosines.nearest + (1 + EPSILON), EPSILON)
    nearest = jnp.maximum(cosines.nearest, -FLOOR)
    return cosines.own / jnp.where(jnp.abs(nearest) < FLOOR, FLOOR, nearest)


def graded(regression: Regression, head: Linear, features: jax.Array, cosines: Relative) -> Graded:
    """Return the regression of this device's samples; runs under AXIS.

    No gradient flows through the targets.

    Args:
        regression: how it is taken.
        head: its kernel and bias.
        features: [b, D], as the network gave them, not normalized.
        cosines: [b], of the head's Result.
    """
    ratio = certainty_ratio(cosines, regression.as_published).astype(features.dtype)
    distance = features @ head["kernel"] + head["bias"] - ratio
    count = distance.shape[0] * jax.lax.axis_size(AXIS)
    factor, beta = regression.weight / count, regression.beta
    size = jnp.abs(distance)
    value = jnp.where(size < beta, 0.5 * jnp.square(distance) / beta, size - 0.5 * beta)
    slope = factor * jnp.clip(distance / beta, -1, 1)
    by_head = {"kernel": slope @ features, "bias": jnp.sum(slope)}
    return Graded(
        loss=jax.lax.psum(jnp.sum(value), AXIS) * factor,
        by_features=slope[:, None] * head["kernel"][None],
        by_head=by_head,
        ratio=jax.lax.psum(jnp.sum(ratio), AXIS) / count,
    )
