"""The losses as pure functions of cosines, and the registry that the head looks them up in.

A loss compares the cosine of a sample with its own prototype (the positive) and with all other
prototypes (the negatives). There are two families:

- additive:  loss_i = positive(cos_iy) + sum over negatives j of negative(cos_ij)
- softmax:   loss_i = logsumexp(positive(cos_iy), negative(cos_ij) for all j) - positive(cos_iy)

The functions of an entry work element by element, so that the head can apply them to any block of
classes on any device (head.py). A new loss is one function here and one line in LOSSES.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Literal

import jax
import jax.numpy as jnp

from uniface_jax.errors import UserError

# (cosine, bias) -> value, element by element; the bias broadcasts against the cosine.
Elementwise = Callable[[jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Loss:
    """One loss with its hyperparameters bound.

    family: which of the two sums above; positive and negative are terms of the loss for the
        additive family and logits for softmax.
    scale: s, by which cosines are multiplied.
    bias: "none", "shared" (one learned scalar for all classes: the unified threshold) or "class"
        (one per class).
    """

    family: Literal["additive", "softmax"]
    positive: Elementwise
    negative: Elementwise
    scale: float
    bias: Literal["none", "shared", "class"] = "none"

    def initial_bias(self, num_classes: int, sampling_rate: float) -> float:
        """log(10 C r), the release's start for UCE and BCE; 0 for losses without a bias."""
        return 0.0 if self.bias == "none" else math.log(10 * num_classes * sampling_rate)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def clipped_softplus(z: jax.Array, limit: float) -> jax.Array:
    """log(1 + exp(clip(z, -limit, limit))), with no gradient outside, without overflow."""
    z = jnp.clip(z, -limit, limit)
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


@clipped_softplus.defjvp
def _clipped_softplus_jvp(limit, primals, tangents):
    (z,), (tangent,) = primals, tangents
    clipped = jnp.clip(z, -limit, limit)
    # One exp serves the value and the slope: this is the whole cost of an element.
    small = jnp.exp(-jnp.abs(clipped))
    value = jnp.maximum(clipped, 0) + jnp.log1p(small)
    sigmoid = jnp.where(clipped >= 0, 1.0, small) / (1 + small)
    return value, jnp.where(jnp.abs(z) <= limit, sigmoid, 0.0) * tangent


def _cross_entropy(
    bias: Literal["shared", "class"], scale: float, margin: float, negative_weight: float
) -> Loss:
    return Loss(
        family="additive",
        positive=lambda cos, b: clipped_softplus(b - scale * (cos - margin), scale),
        negative=lambda cos, b: negative_weight * clipped_softplus(scale * cos - b, scale),
        scale=scale,
        bias=bias,
    )


def uce(scale: float = 64.0, margin: float = 0.4, negative_weight: float = 1.0) -> Loss:
    """Unified cross-entropy (Zhou et al., UniFace, ICCV 2023), one learned threshold b.

    softplus(-(s (cos_iy - m) - b)) + λ sum_j softplus(s cos_ij - b), every z clamped to [-s, s].
    scale s > 0, margin m in [0, 1), negative_weight λ > 0.
    """
    return _cross_entropy("shared", scale, margin, negative_weight)


def bce(scale: float = 64.0, margin: float = 0.4, negative_weight: float = 1.0) -> Loss:
    """Normalised binary cross-entropy (UniFace, section 3): UCE with one bias a class."""
    return _cross_entropy("class", scale, margin, negative_weight)


def nsl(scale: float = 64.0, margin: float = 0.0) -> Loss:
    """Normalised softmax (Wang et al., NormFace, ACM MM 2017): cross-entropy over s cos_ij."""
    return cosface(scale, margin)


def cosface(scale: float = 64.0, margin: float = 0.4) -> Loss:
    """CosFace (Wang et al., CVPR 2018): the positive's logit is s (cos - m); m in [0, 1)."""
    return Loss(
        family="softmax",
        positive=lambda cos, b: scale * (cos - margin),
        negative=lambda cos, b: scale * cos,
        scale=scale,
    )


def arcface(scale: float = 64.0, margin: float = 0.5) -> Loss:
    """ArcFace (Deng et al., CVPR 2019): the positive's logit is s cos(arccos(cos) + m).

    m in [0, π/2), in radians; no "easy margin".
    """

    def positive(cos: jax.Array, b: jax.Array) -> jax.Array:
        # arccos written out; the floor keeps the slope finite at cos = ±1.
        sine = jnp.sqrt(jnp.maximum(1 - jnp.square(cos), jnp.finfo(cos.dtype).eps))
        return scale * (cos * math.cos(margin) - sine * math.sin(margin))

    return Loss(
        family="softmax",
        positive=positive,
        negative=lambda cos, b: scale * cos,
        scale=scale,
    )


LOSSES: Mapping[str, Callable[..., Loss]] = {
    "uce": uce,
    "bce": bce,
    "nsl": nsl,
    "cosface": cosface,
    "arcface": arcface,
}


# Hyperparameter -> (its allowed range in words, the test).
_RANGES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "scale": ("> 0", lambda value: value > 0),
    "margin": ("from 0 to below 1.5", lambda value: 0 <= value < 1.5),
    "negative_weight": ("> 0", lambda value: value > 0),
}


def create(name: str, **hyperparameters: Any) -> Loss:
    """The loss `name` of LOSSES with hyperparameters other than its defaults (None: the default).

    Raises UserError for an unknown name, a hyperparameter that this loss does not have, or a value
    out of range.
    """
    if name not in LOSSES:
        raise UserError(f"loss.name={name!r}: allowed are {', '.join(LOSSES)}")
    given = {key: value for key, value in hyperparameters.items() if value is not None}
    allowed = list(signature(LOSSES[name]).parameters)
    for key, value in given.items():
        if key not in allowed:
            raise UserError(f"loss.{key}={value}: {name} has only {', '.join(allowed)}")
        words, test = _RANGES[key]
        if not test(value):
            raise UserError(f"loss.{key}={value}: must be {words}")
    return LOSSES[name](**given)
