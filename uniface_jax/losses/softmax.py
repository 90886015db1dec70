"""Losses of the softmax family whose margin is the same for every sample."""

import math

import jax
import jax.numpy as jnp

from uniface_jax.losses.base import Elementwise, Loss, angle, sine, straight_through


def margin_softmax(scale: float, positive: Elementwise, interclass_filtering: float = 0.0) -> Loss:
    """Cross-entropy with s positive(cos) as the positive's logit and s cos as the others'.

    interclass_filtering: cosine above which a negative counts as a wrong label; its logit is 0,
    without a gradient (insightface's interclass filtering, An et al., Killing Two Birds with One
    Stone, CVPR 2022, section 3.3). 0 turns it off.
    """

    def negative(cos: jax.Array, b: jax.Array) -> jax.Array:
        if interclass_filtering:
            cos = jnp.where(cos > interclass_filtering, 0.0, cos)
        return scale * cos

    return Loss("softmax", lambda cos, b: scale * positive(cos), negative, scale)


def nsl(scale: float = 64.0, margin: float = 0.0) -> Loss:
    """Normalised softmax (Wang et al., NormFace, ACM MM 2017): cross-entropy over s cos_ij."""
    return cosface(scale, margin)


def cosface(scale: float = 64.0, margin: float = 0.4, interclass_filtering: float = 0.0) -> Loss:
    """CosFace (Wang et al., CVPR 2018): the positive's logit is s (cos - m); m in [0, 1.5)."""
    return margin_softmax(scale, lambda cos: cos - margin, interclass_filtering)


def arcface(scale: float = 64.0, margin: float = 0.5, interclass_filtering: float = 0.0) -> Loss:
    """ArcFace (Deng et al., CVPR 2019): the positive's logit is s cos(arccos(cos) + m).

    m in [0, 1.5), in radians; no "easy margin".
    """

    def positive(cos: jax.Array) -> jax.Array:
        return cos * math.cos(margin) - sine(cos) * math.sin(margin)

    return margin_softmax(scale, positive, interclass_filtering)


def combined(
    scale: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.3,
    m3: float = 0.2,
    interclass_filtering: float = 0.0,
) -> Loss:
    """The combined margin (Deng et al., ArcFace, CVPR 2019, eq. 4): s (cos(m1 θ + m2) - m3).

    m1 >= 1 multiplies the angle, m2 in [0, 1.5) radians are added to it, m3 in [0, 1.5) is taken
    from its cosine. m1 θ + m2 is taken as at most π, beyond which the logit would rise again.
    """

    def positive(cos: jax.Array) -> jax.Array:
        return jnp.cos(jnp.minimum(m1 * angle(cos) + m2, math.pi)) - m3

    return margin_softmax(scale, positive, interclass_filtering)


def sphereface(scale: float = 30.0, m1: float = 1.5) -> Loss:
    """SphereFace (Liu et al., CVPR 2017) on features of length s: the logit is s ψ(θ).

    ψ(θ) = (-1)^k cos(m1 θ) - 2k for m1 θ in [kπ, (k+1)π], which falls over all of [0, π]; m1 >= 1.
    """
    return margin_softmax(scale, lambda cos: _falling_cosine(m1 * angle(cos)))


def _falling_cosine(theta: jax.Array) -> jax.Array:
    half_turns = jax.lax.stop_gradient(jnp.floor(theta / math.pi))
    return (1 - 2 * jnp.mod(half_turns, 2)) * jnp.cos(theta) - 2 * half_turns


def sphereface_r(scale: float = 30.0, m1: float = 1.5, loss_weight: float = 50.0) -> Loss:
    """SphereFace-R v1 (Liu et al., SphereFace Revived, TPAMI 2022), hard feature normalisation.

    w/s times the cross-entropy with s cos(min(m1, π/θ) θ) as the positive's logit. Gradients are
    those of s cos θ: the characteristic gradient detachment of the paper. m1 >= 1, loss_weight w >
    0 (the authors' release has 50).
    """

    def positive(cos: jax.Array, b: jax.Array) -> jax.Array:
        value = jnp.cos(jnp.minimum(m1 * angle(cos), math.pi))
        return scale * straight_through(value, cos)

    return Loss("softmax", positive, lambda cos, b: scale * cos, scale, weight=loss_weight / scale)


def sphereface_r_v2(scale: float = 30.0, m1: float = 1.5, loss_weight: float = 50.0) -> Loss:
    """SphereFace-R v2: as sphereface_r, with the margin on the negatives: s cos(θ / m1)."""

    def negative(cos: jax.Array, b: jax.Array) -> jax.Array:
        return scale * straight_through(jnp.cos(angle(cos) / m1), cos)

    return Loss("softmax", lambda cos, b: scale * cos, negative, scale, weight=loss_weight / scale)
