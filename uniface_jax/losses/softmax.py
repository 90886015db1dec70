"""Losses of the softmax family whose margin is the same for every sample."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from uniface_jax.losses.base import Gradient, Loss, added_angle, angle, with_gradient

Margin = Callable[[jax.Array], jax.Array]  # cosines to cosines with a margin


def margin_softmax(
    scale: float,
    positive: Margin | None = None,
    negative: Margin | None = None,
    *,
    gradient: Gradient = "formula",
    interclass_filtering: float = 0.0,
    weight: float = 1.0,
) -> Loss:
    """Return weight times the cross-entropy over s positive(cos) and s negative(cos).

    positive, negative: margins of the own and of the others' cosines, None for the cosine itself.
    gradient: of the margins; see `with_gradient`. interclass_filtering: cosine above which a
    negative counts as a wrong label; its logit is 0, without a gradient (insightface's interclass
    filtering, An et al., Killing Two Birds with One Stone, CVPR 2022, section 3.3). 0 turns it off.
    """
    own, others = (
        (lambda cos: cos) if margin is None else with_gradient(margin, gradient)
        for margin in (positive, negative)
    )

    def negative_logit(cos: jax.Array, b: jax.Array) -> jax.Array:
        if interclass_filtering:
            cos = jnp.where(cos > interclass_filtering, 0.0, cos)
        return scale * others(cos)

    return Loss("softmax", lambda cos, b: scale * own(cos), negative_logit, scale, weight=weight)


def nsl(scale: float = 64.0, margin: float = 0.0) -> Loss:
    """Return normalized softmax (Wang et al., NormFace, ACM MM 2017): logits s cos_ij."""
    return cosface(scale, margin)


def cosface(scale: float = 64.0, margin: float = 0.4, interclass_filtering: float = 0.0) -> Loss:
    """Return CosFace (Wang et al., CVPR 2018): own logit s (cos - m); m in [0, 1.5)."""
    return margin_softmax(
        scale, lambda cos: cos - margin, interclass_filtering=interclass_filtering
    )


def arcface(
    scale: float = 64.0,
    margin: float = 0.5,
    interclass_filtering: float = 0.0,
    gradient: Gradient = "formula",
) -> Loss:
    """Return ArcFace (Deng et al., CVPR 2019): the positive's logit is s cos(θ + m).

    margin m in [0, 1.5), in radians; no "easy margin". Where θ + m > π the logit keeps falling,
    as s (cos θ - m sin m); insightface's rises there. gradient: see `with_gradient`; the published
    numbers of arcface_torch are of "detached".
    """
    return margin_softmax(
        scale,
        lambda cos: added_angle(cos, margin),
        gradient=gradient,
        interclass_filtering=interclass_filtering,
    )


def combined(
    scale: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.3,
    m3: float = 0.2,
    interclass_filtering: float = 0.0,
    gradient: Gradient = "formula",
) -> Loss:
    """Return the combined margin (Deng et al., ArcFace, CVPR 2019, eq. 4): s (cos(m1 θ + m2) - m3).

    m1 >= 1 multiplies the angle, m2 in [0, 1.5) radians are added to it, m3 in [0, 1.5) is taken
    from its cosine. m1 θ + m2 is taken as at most π, beyond which the logit would rise again.
    gradient: see `with_gradient`. A triple of insightface's CombinedMarginLoss with m3 > 0 means
    (1, 0, m3) here: its code then takes m3 alone and ignores m1 and m2.
    """

    def positive(cos: jax.Array) -> jax.Array:
        return jnp.cos(jnp.minimum(m1 * angle(cos) + m2, math.pi)) - m3

    return margin_softmax(
        scale, positive, gradient=gradient, interclass_filtering=interclass_filtering
    )


def sphereface(scale: float = 30.0, m1: float = 1.5, gradient: Gradient = "formula") -> Loss:
    """Return SphereFace (Liu et al., CVPR 2017) on features of length s: the logit is s ψ(θ).

    ψ(θ) = (-1)^k cos(m1 θ) - 2k for m1 θ in [kπ, (k+1)π], which falls over all of [0, π]; m1 >= 1.
    gradient: see `with_gradient`.
    """
    return margin_softmax(scale, lambda cos: _falling_cosine(m1 * angle(cos)), gradient=gradient)


def _falling_cosine(theta: jax.Array) -> jax.Array:
    half_turns = jax.lax.stop_gradient(jnp.floor(theta / math.pi))
    return (1 - 2 * jnp.mod(half_turns, 2)) * jnp.cos(theta) - 2 * half_turns


def sphereface_r(
    scale: float = 30.0,
    m1: float = 1.5,
    loss_weight: float = 50.0,
    gradient: Gradient = "detached",
) -> Loss:
    """Return SphereFace-R v1 (Liu et al., TPAMI 2022), with hard feature normalization.

    w/s times the cross-entropy with s cos(min(m1, π/θ) θ) as the positive's logit. m1 >= 1,
    loss_weight w > 0 (the authors' release has 50). gradient: see `with_gradient`; "detached", the
    paper's characteristic gradient detachment, is the default.
    """

    def margin(cos: jax.Array) -> jax.Array:
        return jnp.cos(jnp.minimum(m1 * angle(cos), math.pi))

    return margin_softmax(scale, margin, gradient=gradient, weight=loss_weight / scale)


def sphereface_r_v0(
    scale: float = 30.0,
    m1: float = 1.5,
    loss_weight: float = 50.0,
    gradient: Gradient = "detached",
) -> Loss:
    """Return SphereFace-R v0, the default of its repository: sphereface_r with SphereFace's ψ(θ).

    SphereFaceR_H with magn_type v0 of ydwen/opensphere.
    """
    return margin_softmax(
        scale,
        lambda cos: _falling_cosine(m1 * angle(cos)),
        gradient=gradient,
        weight=loss_weight / scale,
    )


def sphereface_r_v2(
    scale: float = 30.0,
    m1: float = 1.5,
    loss_weight: float = 50.0,
    gradient: Gradient = "detached",
) -> Loss:
    """Return SphereFace-R v2: sphereface_r with the margin on the negatives: s cos(θ / m1)."""
    return margin_softmax(
        scale,
        negative=lambda cos: jnp.cos(angle(cos) / m1),
        gradient=gradient,
        weight=loss_weight / scale,
    )
