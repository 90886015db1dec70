"""A loss and its gradient as curves over one cosine, for both families of losses alike.

A loss of the softmax family has no term of its own for each class. So the curves are those of a
whole sample's loss while one of its cosines moves and all others are held.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.losses import Loss

COSINES = np.linspace(-1, 1, 401)


@dataclass(frozen=True)
class Held:
    """A sample, as far as it does not move.

    own: cosine with its own prototype, while a negative moves. rest: cosine with every other
    prototype that does not move. norm: the feature's length, which some losses go by.
    """

    own: float = 0.5
    rest: float = 0.0
    norm: float = 20.0


class Curves(NamedTuple):
    """One sample's loss while one cosine moves; all arrays float [K].

    cos: where the curves are taken. positive: the loss while the cosine with its own prototype is
    `cos`; negative: while that with one other prototype is. The slopes are their derivatives with
    respect to that cosine: at most 0 where a positive is pulled closer, at least 0 where a
    negative is pushed away.
    """

    cos: np.ndarray
    positive: np.ndarray
    positive_slope: np.ndarray
    negative: np.ndarray
    negative_slope: np.ndarray


def loss_curves(
    loss: Loss,
    num_classes: int,
    bias: float | None = None,
    *,
    held: Held = Held(),
    statistics: Mapping[str, jax.Array] | None = None,
    cos: np.ndarray = COSINES,
) -> Curves:
    """Return the curves of `loss` for one sample, with the mean of margins that it draws.

    Args:
        loss: of either family.
        num_classes: at least 2.
        bias: b; None is the bias before training.
        held: the sample while one of its cosines moves.
        statistics: of a loss that carries some; None are those before training.
        cos: where the curves are taken, [K] in -1..1.

    Raises:
        ValueError: there are fewer than 2 classes.

    Example:
        >>> from uniface_jax import losses
        >>> curves = loss_curves(losses.create("nsl"), 10, cos=np.array([0.0, 0.5, 1.0]))
        >>> bool(np.all(curves.positive_slope <= 0) and np.all(curves.negative_slope >= 0))
        True
    """
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a negative takes at least 2 classes")
    b = jnp.asarray(loss.initial_bias(num_classes, 1.0) if bias is None else bias)
    carried = loss.initial_statistics() if statistics is None else statistics
    loss = loss.with_draws(jnp.zeros(1))

    def of_sample(own_cos: jax.Array, other_cos: jax.Array) -> jax.Array:
        made, _ = loss.context(own_cos[None], jnp.full(1, held.norm), carried)
        context = tuple(jax.lax.stop_gradient(x[0]) for x in made)
        positive = loss.positive(own_cos, b, *context)
        other = loss.negative(other_cos, b, *context)
        others = loss.negative(jnp.asarray(held.rest), b, *context)
        count = num_classes - 2
        if loss.family == "additive":
            return loss.weight * (positive + other + count * others)
        logits = jnp.stack([positive, other, others])
        weights = jnp.array([1.0, 1.0, count])
        return loss.weight * (jax.scipy.special.logsumexp(logits, b=weights) - positive)

    moving = jnp.asarray(cos, jnp.float32)
    held_own, held_other = (jnp.asarray(x, jnp.float32) for x in (held.own, held.rest))
    of_positive = _along(lambda x: of_sample(x, held_other), moving)
    of_negative = _along(lambda x: of_sample(held_own, x), moving)
    arrays = (np.asarray(x) for x in (*of_positive, *of_negative))
    return Curves(np.asarray(cos), *arrays)


def _along(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return value and derivative of `function` at each of x [K]."""
    value, derivative = jax.jit(jax.vmap(jax.value_and_grad(function)))(x)
    return value, derivative
