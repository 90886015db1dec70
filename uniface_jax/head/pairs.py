"""Negative pairs of samples as further logits of every row: UNPG.

Jung et al., "Unified Negative Pair Generation toward Well-discriminative Feature Space for Face
Recognition", BMVC 2022. The pairs are those of the global batch, whose features every device has:
a [B, B] matrix of cosines is held, never one of [B, C].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax.losses import Loss


class Pairs(NamedTuple):
    """Kept negative pairs of a batch, the same on every device.

    directions [B, D] of the samples; logits [B, B], of which `kept` [B, B] bool count, above the
    diagonal; logsumexp [] of these, -inf where there is none; scale, by which cosines were
    multiplied.
    """

    directions: jax.Array
    logits: jax.Array
    kept: jax.Array
    logsumexp: jax.Array
    scale: float

    def by_direction(self, logsumexp: jax.Array, factor: float) -> jax.Array:
        """Return the gradients [B, D] of factor * sum_i logsumexp_i by the directions.

        logsumexp [B] is of all logits of each row, the pairs' among them.
        """
        total = jnp.sum(jnp.exp(self.logsumexp - logsumexp))
        highest = jnp.where(jnp.isfinite(self.logsumexp), self.logsumexp, 0)
        share = jnp.where(self.kept, jnp.exp(jnp.minimum(self.logits - highest, 0)), 0)
        by_cos = self.scale * factor * total * share
        return (by_cos + by_cos.T) @ self.directions


def find_pairs(loss: Loss, directions: jax.Array, labels: jax.Array) -> Pairs | None:
    """Return the negative pairs that every row of a softmax loss gets, None for a loss without.

    directions [B, D] and labels [B] of the global batch. Cosines are kept
    within [Q1 - w (Q3 - Q1), Q3 + w (Q3 - Q1)] of all pairs of different people, with w the loss's
    pair_whisker and quartiles as the release takes them: sorted[l // 4] and sorted[3 l // 4].
    """
    whisker = loss.pair_whisker
    if whisker is None:
        return None
    cos = directions @ directions.T
    upper = jnp.triu(jnp.ones(cos.shape, bool), 1)
    negative = upper & (labels[:, None] != labels[None])
    ordered = jnp.sort(jnp.where(negative, cos, jnp.inf), axis=None)
    count = jnp.sum(negative)
    last = ordered.shape[0] - 1
    low, high = (ordered[jnp.minimum(count * k // 4, last)] for k in (1, 3))
    spread = whisker * (high - low)
    kept = negative & (cos >= low - spread) & (cos <= high + spread)
    logits = loss.scale * cos
    summed = jax.nn.logsumexp(jnp.where(kept, logits, -jnp.inf))
    return Pairs(directions, logits, kept, summed, loss.scale)
