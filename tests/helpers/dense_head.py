"""The losses over a whole [B, C] matrix of cosines, written plainly; and the head as tests run it.

The references take nothing from the package: formulas are the papers', gradients are autodiff's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from uniface_jax import losses
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Gradients, Products, Result, Shard, loss_and_gradients
from uniface_jax.head.sampling import Subset, sample_classes
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.runtime.parallel import AXIS


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


def sphereface_r_v2(cos, one_hot, bias, norm, scale=30.0, m1=1.5, loss_weight=50.0):
    negatives = frozen_slope(jnp.cos(arccos(cos) / m1), cos)
    logits = scale * jnp.where(one_hot, cos, negatives)
    return loss_weight / scale * cross_entropy(logits, one_hot)


def sphereface2(
    cos, one_hot, bias, norm, scale=40.0, margin=0.4, balance=0.7, exponent=3.0, loss_weight=50.0
):
    g = 2 * ((cos + 1) / 2) ** exponent - 1
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


REFERENCES = {
    "uce": uce,
    "bce": uce,
    "nsl": nsl,
    "cosface": cosface,
    "arcface": arcface,
    "combined": combined,
    "sphereface": sphereface,
    "sphereface_r": sphereface_r,
    "sphereface_r_v2": sphereface_r_v2,
    "sphereface2": sphereface2,
    "adaface": adaface,
    "curricularface": curricularface,
}


def dense(name, features, prototypes, bias, labels, classes=None, **hyperparameters):
    """(loss, gradients by features, prototypes and bias), over `classes` (None: all) in float64."""
    if classes is None:
        classes = np.arange(len(prototypes))
    one_hot = np.asarray(labels)[:, None] == classes[None]

    def loss(features, prototypes, bias):
        cos = normalized(features) @ normalized(prototypes[classes]).T
        chosen = bias[classes] if bias.ndim else bias
        norm = jnp.sqrt(jnp.sum(features**2, 1))
        return REFERENCES[name](cos, one_hot, chosen, norm, **hyperparameters)

    arrays = (jnp.asarray(features), jnp.asarray(prototypes), jnp.asarray(bias))
    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    value, gradients = both(*arrays)
    return value, *gradients


@functools.cache
def program(name, fixed, varied, shards, block, num_classes, by_class, subset, mode, product_dtype):
    """The compiled head: (samples, classes, rest) -> (Result, drawn classes); see run_head.

    `varied` names hyperparameters that are arguments of the program rather than built in, so that
    one compilation serves many cases. subset: "given", a rate to draw one at, or None.
    """
    rows = shard_size(num_classes, shards)

    def device(samples, classes, rest):
        loss = losses.LOSSES[name](**dict(fixed), **rest["varied"])
        bias = classes["bias"] if by_class else rest["bias"]
        start, valid = owned_classes(num_classes, rows)
        chosen = None
        if subset == "given":
            index = jnp.where(classes["taken"] & valid, jnp.arange(rows), rows)
            index = jnp.sort(index).astype(jnp.int32)
            chosen = Subset(jnp.minimum(index, rows - 1), index < rows)
        elif subset:
            chosen = sample_classes(rest["key"], samples["labels"], num_classes, rows, subset)
        prototypes = Prototypes(classes["weight"], bias, valid)
        if chosen is not None:
            prototypes = Prototypes(
                classes["weight"][chosen.row],
                bias[chosen.row] if by_class else bias,
                chosen.valid,
            )
        shard = Shard(prototypes, start, rows, chosen)
        result = loss_and_gradients(
            loss, shard, samples["features"], samples["labels"], rest["statistics"],
            Products(block, product_dtype),
        )  # fmt: skip
        if chosen is None:
            return result, valid
        target = jnp.where(chosen.valid, chosen.row, rows)

        def spread(x):
            return jnp.zeros((rows, *x.shape[1:]), x.dtype).at[target].set(x, mode="drop")

        gradients = result.gradients._replace(weight=spread(result.gradients.weight))
        if by_class:
            gradients = gradients._replace(bias=spread(gradients.bias))
        return result._replace(gradients=gradients), spread(jnp.ones(target.shape, bool))

    devices = jax.devices()[:shards]
    if mode == "pmap":
        return jax.pmap(device, AXIS, in_axes=(0, 0, None), devices=devices)
    gradient_specs = Gradients(P(AXIS), P(AXIS), P(AXIS) if by_class else P())
    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(devices), (AXIS,)),
        in_specs=(P(AXIS), P(AXIS), P()),
        out_specs=(Result(P(), gradient_specs, P(), P()), P(AXIS)),
        check_vma=False,
    )
    return jax.jit(mapped)


def run_head(
    name,
    features,
    prototypes,
    bias,
    labels,
    *,
    fixed=None,
    varied=None,
    shards=1,
    block=7,
    classes=None,
    sampling=None,
    statistics=None,
    mode="shard_map",
    product_dtype=None,
):
    """The head on `shards` devices: its Result, gradients [C, …], and the classes that took part.

    fixed, varied: hyperparameters, see program. classes: the numbers of a subset's classes;
    sampling: (key, rate) to draw one.
    """
    num_classes, by_class = len(prototypes), bool(np.ndim(bias))
    rows = shard_size(num_classes, shards)
    fixed, varied = fixed or {}, varied or {}
    taken = np.isin(np.arange(num_classes), classes) if classes is not None else None
    samples = {"features": np.asarray(features), "labels": np.asarray(labels, np.int32)}
    by_row = {"weight": prototypes, "bias": bias if by_class else None, "taken": taken}
    by_row = {
        key: np.pad(x, [(0, rows * shards - num_classes)] + [(0, 0)] * (np.ndim(x) - 1))
        for key, x in by_row.items()
        if x is not None
    }
    if statistics is None:
        statistics = losses.LOSSES[name](**fixed).initial_statistics()
    rest = {"statistics": statistics, "varied": {k: np.float64(x) for k, x in varied.items()}}
    if not by_class:
        rest["bias"] = np.asarray(bias)
    if sampling:
        rest["key"] = sampling[0]
    subset = sampling[1] if sampling else None if classes is None else "given"
    run = program(
        name, tuple(fixed.items()), tuple(varied), shards, block, num_classes, by_class, subset,
        mode, product_dtype,
    )  # fmt: skip
    if mode == "shard_map":
        result, drawn = run(samples, by_row, rest)
    else:

        def split(x):
            return x.reshape(shards, -1, *x.shape[1:])

        def join(x):
            return x.reshape(-1, *x.shape[2:])

        result, drawn = run(*jax.tree.map(split, (samples, by_row)), rest)
        gradients = jax.tree.map(join, result.gradients._replace(bias=None))
        every_bias = result.gradients.bias
        gradients = gradients._replace(bias=join(every_bias) if by_class else every_bias[0])
        first = jax.tree.map(lambda x: x[0], result._replace(gradients=None))
        result, drawn = first._replace(gradients=gradients), join(drawn)
    assert not np.any(np.asarray(result.gradients.weight)[num_classes:]), "padding has a gradient"
    assert not np.any(np.asarray(drawn)[num_classes:]), "padding takes part"
    gradients = result.gradients._replace(weight=result.gradients.weight[:num_classes])
    if by_class:
        gradients = gradients._replace(bias=gradients.bias[:num_classes])
    return result._replace(gradients=gradients), np.asarray(drawn)[:num_classes]


def assert_same(result, expected, rtol=1e-9, atol=1e-11):
    """The head's Result against (loss, by features, by prototypes, by bias)."""
    got = (result.loss, *result.gradients)
    names = ("loss", "features", "prototypes", "bias")
    for name, value, other in zip(names, got, expected, strict=True):
        largest = float(np.max(np.abs(other))) if np.size(other) else 0.0
        np.testing.assert_allclose(
            value, other, rtol=rtol, atol=atol + rtol * largest, err_msg=name
        )
