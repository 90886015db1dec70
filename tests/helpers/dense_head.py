"""The losses over a whole [B, C] matrix of cosines, written plainly.

The references take nothing from the package: formulas are the papers', gradients are autodiff's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.sharded_head import draws_of


def normalized(x):
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, -1, keepdims=True)), 1e-5)


def arccos(cos):
    return jnp.arccos(jnp.clip(cos, -1 + 1e-5, 1 - 1e-5))


def frozen_slope(value, cos):
    return cos + jax.lax.stop_gradient(value - cos)


def binary(positive_z, negative_z, one_hot, limit, weight):
    """softplus(-z+) + weight * sum softplus(z-), z clipped."""

    def clip(z):
        return jnp.clip(z, -limit, limit)

    def log1pexp(z):
        return jnp.logaddexp(z, 0.0)

    losses = jnp.where(one_hot, log1pexp(-clip(positive_z)), weight * log1pexp(clip(negative_z)))
    return jnp.mean(jnp.sum(losses, 1))


def cross_entropy(logits, one_hot):
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.sum(jnp.where(one_hot, logits, 0), 1))


def softmax_with_margin(cos, one_hot, scale, positive, interclass_filtering=0.0):
    others = jnp.where(cos > interclass_filtering, 0, cos) if interclass_filtering else cos
    return cross_entropy(scale * jnp.where(one_hot, positive(cos), others), one_hot)


def uce(cos, one_hot, bias, norm, scale=64.0, margin=0.4, negative_weight=1.0):
    bias = jnp.broadcast_to(bias, cos.shape[1:])[None]
    return binary(
        scale * (cos - margin) - bias, scale * cos - bias, one_hot, scale, negative_weight
    )


def cosface(cos, one_hot, bias, norm, scale=64.0, margin=0.4, **filtering):
    return softmax_with_margin(cos, one_hot, scale, lambda c: c - margin, **filtering)


def nsl(cos, one_hot, bias, norm, scale=64.0, margin=0.0):
    return cosface(cos, one_hot, bias, norm, scale, margin)


def arcface(cos, one_hot, bias, norm, scale=64.0, margin=0.5, **filtering):
    def positive(c):
        wraps = arccos(c) + margin >= np.pi
        return jnp.where(wraps, c - margin * np.sin(margin), jnp.cos(arccos(c) + margin))

    return softmax_with_margin(cos, one_hot, scale, positive, **filtering)


def combined(cos, one_hot, bias, norm, scale=64.0, m1=1.0, m2=0.3, m3=0.2, **filtering):
    def positive(c):
        return jnp.cos(jnp.minimum(m1 * arccos(c) + m2, np.pi)) - m3

    return softmax_with_margin(cos, one_hot, scale, positive, **filtering)


def sphereface(cos, one_hot, bias, norm, scale=30.0, m1=1.5):
    def psi(c):
        theta = m1 * arccos(c)
        pieces = [(-1) ** k * jnp.cos(theta) - 2 * k for k in range(6)]
        return jnp.select([theta < (k + 1) * jnp.pi for k in range(6)], pieces)

    return softmax_with_margin(cos, one_hot, scale, psi)


def sphereface_r(cos, one_hot, bias, norm, scale=30.0, m1=1.5, loss_weight=50.0):
    def psi(c):
        theta = arccos(c)
        return frozen_slope(jnp.cos(jnp.minimum(m1, jnp.pi / theta) * theta), c)

    return loss_weight / scale * softmax_with_margin(cos, one_hot, scale, psi)


def sphereface_r_v0(cos, one_hot, bias, norm, scale=30.0, m1=1.5, loss_weight=50.0):
    """SphereFaceR_H of opensphere: φ(θ) = (-1)^k cos(m θ) - 2k, found without its gradient."""
    theta = m1 * arccos(cos)
    k = jnp.floor(theta / jnp.pi)
    phi = jnp.where(k % 2 == 0, 1, -1) * jnp.cos(theta) - 2 * k
    logits = scale * jnp.where(one_hot, frozen_slope(phi, cos), cos)
    return loss_weight / scale * cross_entropy(logits, one_hot)


def sphereface_r_v2(cos, one_hot, bias, norm, scale=30.0, m1=1.5, loss_weight=50.0):
    negatives = frozen_slope(jnp.cos(arccos(cos) / m1), cos)
    logits = scale * jnp.where(one_hot, cos, negatives)
    return loss_weight / scale * cross_entropy(logits, one_hot)


def sphereface2(
    cos, one_hot, bias, norm, scale=40.0, margin=0.4, balance=0.7, exponent=3.0, loss_weight=50.0,
    gradient="formula",
):  # fmt: skip
    g = 2 * ((cos + 1) / 2) ** exponent - 1
    g = frozen_slope(g, cos) if gradient == "detached" else g
    positive = balance / scale * jnp.logaddexp(0, -scale * (g - margin) + bias)
    negative = (1 - balance) / scale * jnp.logaddexp(0, scale * (g + margin) - bias)
    return loss_weight * jnp.mean(jnp.sum(jnp.where(one_hot, positive, negative), 1))


def adaface(cos, one_hot, bias, norm, scale=64.0, margin=0.4, concentration=0.333):
    norm = jax.lax.stop_gradient(jnp.clip(norm, 0.001, 100))
    mean = 0.01 * norm.mean() + 0.99 * 20
    std = 0.01 * norm.std(ddof=1) + 0.99 * 100
    quality = jnp.clip(concentration * (norm - mean) / (std + 1e-3), -1, 1)[:, None]
    cos = jnp.clip(cos, -0.999, 0.999)
    theta = jnp.arccos(cos) - margin * quality
    positive = jnp.cos(jnp.clip(theta, 1e-3, np.pi - 1e-3)) - (margin + margin * quality)
    return cross_entropy(scale * jnp.where(one_hot, positive, cos), one_hot)


def curricularface(cos, one_hot, bias, norm, scale=64.0, margin=0.5):
    own = jnp.sum(jnp.where(one_hot, cos, 0), 1, keepdims=True)
    mean = jax.lax.stop_gradient(0.01 * own.mean())
    target = jnp.cos(arccos(own) + margin)
    hard = cos > jax.lax.stop_gradient(target)
    negatives = jnp.where(hard, cos * (mean + cos), cos)
    wraps = arccos(own) + margin >= np.pi
    positive = jnp.where(wraps, own - margin * np.sin(margin), target)
    return cross_entropy(scale * jnp.where(one_hot, positive, negatives), one_hot)


def magface(
    cos, one_hot, bias, norm, scale=64.0, low_norm=10.0, high_norm=110.0, low_margin=0.45,
    high_margin=0.8, norm_weight=35.0, easy=True,
):  # fmt: skip
    a = jnp.clip(norm, low_norm, high_norm)[:, None]
    margin = low_margin + (high_margin - low_margin) / (high_norm - low_norm) * (a - low_norm)
    target = jnp.cos(arccos(cos) + margin)
    positive = jnp.where(cos > 0, target, cos)
    if not easy:
        wraps = arccos(cos) + margin >= np.pi
        positive = jnp.where(wraps, cos - margin * jnp.sin(margin), target)
    penalty = jnp.mean(a / high_norm**2 + 1 / a)
    logits = scale * jnp.where(one_hot, positive, cos)
    return cross_entropy(logits, one_hot) + norm_weight * penalty


def elastic(plus, angular):
    """ElasticFace with the tests' draws; plus: the lowest own cosine gets the largest margin."""

    def loss(
        cos, one_hot, bias, norm, scale=64.0, margin=0.5 if angular else 0.35,
        deviation=(0.0175 if angular else 0.02) if plus else 0.05,
    ):  # fmt: skip
        margins = margin + deviation * draws_of(len(cos))
        if plus:
            own = jax.lax.stop_gradient(jnp.sum(jnp.where(one_hot, cos, 0), 1))
            rank = jnp.sum(own[None] > own[:, None], 1)  # 0 for the highest cosine
            margins = jnp.sort(margins)[rank]
        margins = jnp.asarray(margins)[:, None]
        positive = jnp.cos(arccos(cos) + margins) if angular else cos - margins
        return cross_entropy(scale * jnp.where(one_hot, positive, cos), one_hot)

    return loss


def pco(cos, one_hot, bias, norm, scale=64.0, margin=0.4, **later):
    """Return the loss before class expectations count: CosFace."""
    return cosface(cos, one_hot, bias, norm, scale, margin)


REFERENCES = {
    "uce": uce,
    "bce": uce,
    "nsl": nsl,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "sphereface": sphereface,
    "sphereface_r": sphereface_r,
    "sphereface_r_v0": sphereface_r_v0,
    "sphereface_r_v2": sphereface_r_v2,
    "sphereface2": sphereface2,
    "adaface": adaface,
    "curricularface": curricularface,
    "magface": magface,
    "magface_hard": functools.partial(magface, easy=False),
    "pco": pco,
    "elastic_arc": elastic(False, True),
    "elastic_cos": elastic(False, False),
    "elastic_arc_plus": elastic(True, True),
    "elastic_cos_plus": elastic(True, False),
}


def dense(name, features, prototypes, bias, labels, classes=None, **hyperparameters):
    """(loss, gradients by features, prototypes and bias), over `classes` (None: all) in float64."""
    if classes is None:
        classes = np.arange(len(prototypes))
    several = prototypes.ndim == 3
    one_hot = np.asarray(labels)[:, None] == classes[None]

    def loss(features, prototypes, bias):
        chosen = normalized(prototypes[classes])
        cos = jnp.einsum("nd,c...d->nc...", normalized(features), chosen)
        cos = jnp.max(cos, -1) if several else cos
        chosen = bias[classes] if bias.ndim else bias
        norm = jnp.sqrt(jnp.sum(features**2, 1))
        return REFERENCES[name](cos, one_hot, chosen, norm, **hyperparameters)

    arrays = (jnp.asarray(features), jnp.asarray(prototypes), jnp.asarray(bias))
    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    value, gradients = both(*arrays)
    return value, *gradients


def assert_same(result, expected, rtol=1e-9, atol=1e-11):
    """The head's Result against (loss, by features, by prototypes, by bias)."""
    got = (result.loss, *result.gradients)
    names = ("loss", "features", "prototypes", "bias")
    for name, value, other in zip(names, got, expected, strict=True):
        largest = float(np.max(np.abs(other))) if np.size(other) else 0.0
        np.testing.assert_allclose(
            value, other, rtol=rtol, atol=atol + rtol * largest, err_msg=name
        )
