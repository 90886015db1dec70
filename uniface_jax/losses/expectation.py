"""CosFace against prototypes, and then against class expectations too: PCO of LVFace."""

import jax
import jax.numpy as jnp

from uniface_jax.errors import UserError
from uniface_jax.losses.base import Context, Loss, Statistics
from uniface_jax.losses.softmax import cosface

STAGE = "expectation_stage"  # the statistic: 0, 1 from the first switch on, 2 from the second


def pco(
    scale: float = 64.0,
    margin: float = 0.4,
    expectation_margin: float = 0.4,
    expectation_after: float = 0.2,
    all_classes_after: float = 0.35,
) -> Loss:
    """Return PCO, progressive cluster optimization (You et al., LVFace, ICCV 2025), second-hand.

    The official repository is of inference alone: this goes by a summary of the paper and an
    independent configuration, and has no reference numbers. First CosFace with margin m1; then, e_j
    being class j's expectation (head/expectation.py), log(1 + sum_j e^(s cos θ_j) / e^(s (cos θ_y -
    m1)) + the same of e_j with m2); at last the same over all classes, where until then they are
    sampled. It goes on where the mean of a step's squared cosines of samples with their prototypes
    passes expectation_after and all_classes_after, and never back. scale s > 0; margin m1 and
    expectation_margin m2 in [0, 1.5), m2's number being this project's choice; both switches above
    0, below 1, the first below the second.

    Raises UserError where it is not.
    """
    if not expectation_after < all_classes_after:
        raise UserError(
            f"loss.expectation_after={expectation_after:g}: must be below "
            f"loss.all_classes_after={all_classes_after:g}"
        )
    own = cosface(scale, margin)

    def prepare(
        cos: jax.Array, norm: jax.Array, statistics: Statistics
    ) -> tuple[Context, Statistics]:
        squared = jnp.mean(jnp.square(cos))
        reached = (squared > expectation_after).astype(cos.dtype) + (squared > all_classes_after)
        return (), {STAGE: jnp.maximum(statistics[STAGE], reached)}

    return Loss(
        family="softmax",
        positive=own.positive,
        negative=own.negative,
        scale=scale,
        statistics={STAGE: 0.0},
        prepare=prepare,
        expectation=cosface(scale, expectation_margin),
    )
