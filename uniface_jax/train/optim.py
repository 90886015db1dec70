"""Schedules, clipping, SGD as in the recipes (decay after clipping), slopes kept positive."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from uniface_jax.models.channels import channel_sums
from uniface_jax.train import few_kernels

Tree = Any
LearningRate = Callable[[jax.Array], jax.Array]  # by step

SLOPE_FLOOR = 0.01  # of PReLU slopes after every update, as the release has it


class Sgd(NamedTuple):
    """Hyperparameters of SGD with momentum (PyTorch's, no Nesterov)."""

    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 10.0  # of the global gradient norm, before the decay is added
    decoupled: bool = False  # weights decay by lr * weight_decay, beside the momentum


def step_schedule(lr: float, milestones: Sequence[int], factor: float) -> LearningRate:
    """Return lr, multiplied by `factor` at each of the milestones (steps)."""
    constant: LearningRate = optax.piecewise_constant_schedule(
        lr, dict.fromkeys(milestones, factor)
    )
    return constant


def polynomial_schedule(
    lr: float, power: float, warmup_steps: int, total_steps: int
) -> LearningRate:
    """Return lr after a linear warm-up from 0, then lr * (1 - progress)**power to 0 at the end."""
    decay = optax.polynomial_schedule(lr, 0.0, power, max(total_steps - warmup_steps, 1))
    return _warmed_up(decay, lr, warmup_steps)


def cosine_schedule(lr: float, warmup_steps: int, total_steps: int) -> LearningRate:
    """Return lr after a linear warm-up from 0, then half a cosine down to 0 at the end."""
    decay = optax.cosine_decay_schedule(lr, max(total_steps - warmup_steps, 1))
    return _warmed_up(decay, lr, warmup_steps)


def constant_schedule(lr: float, warmup_steps: int) -> LearningRate:
    """Return lr after a linear warm-up from 0."""
    return _warmed_up(optax.constant_schedule(lr), lr, warmup_steps)


def full_first_step(schedule: LearningRate, lr: float) -> LearningRate:
    """Return the schedule with `lr` at step 0.

    arcface_torch's scheduler leaves the first step at the full rate, and warms up from the second.
    """
    return lambda step: jnp.where(step == 0, lr, schedule(step))


def _warmed_up(decay: LearningRate, lr: float, warmup_steps: int) -> LearningRate:
    if not warmup_steps:
        return decay
    warmup = optax.linear_schedule(0.0, lr, warmup_steps)
    joined: LearningRate = optax.join_schedules([warmup, decay], [warmup_steps])
    return joined


def square_norm(tree: Tree) -> jax.Array:
    """Sum of the squares of all elements, a scalar."""
    total: jax.Array = jax.lax.platform_dependent(
        jax.tree.leaves(tree), cuda=_square_norm_together, default=_square_norm_of_each
    )
    return total


def _square_norm_of_each(leaves: list[jax.Array]) -> jax.Array:
    return sum(map(_square_sum, leaves), jnp.zeros(()))


def _square_sum(x: jax.Array) -> jax.Array:
    if x.ndim < 2:
        return jnp.sum(jnp.square(x))
    return jnp.sum(channel_sums(_squares, [x])[0])


def _squares(rows: jax.Array) -> tuple[jax.Array]:
    return (jnp.square(rows),)


def _square_norm_together(leaves: list[jax.Array]) -> jax.Array:
    many = [x for x in leaves if few_kernels.is_one_of_many(x)]
    others = [x for x in leaves if not few_kernels.is_one_of_many(x)]
    return few_kernels.square_norm(many) + sum(jnp.sum(jnp.square(x)) for x in others)


def clip_factor(norm: jax.Array, limit: float) -> jax.Array:
    """Return the factor of gradients of this norm: limit / (norm + 1e-6), at most 1 (PyTorch's)."""
    return jnp.minimum(limit / (norm + 1e-6), 1.0)


def sgd_update(
    sgd: Sgd, lr: jax.Array, weights: Tree, momentum: Tree, gradients: Tree
) -> tuple[Tree, Tree]:
    """Compute weights and momentum: buffer = momentum * buffer + (gradient + decay * weight).

    Decoupled, the decay is in no buffer: weight = weight * (1 - lr * decay) - lr * buffer.
    """
    if sgd.decoupled:
        plain, decay = sgd._replace(weight_decay=0.0, decoupled=False), lr * sgd.weight_decay
        moved, momentum = sgd_update(plain, lr, weights, momentum, gradients)
        return jax.tree.map(lambda new, old: new - decay * old, moved, weights), momentum

    def step(
        weight: jax.Array, buffer: jax.Array, gradient: jax.Array, rate: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        buffer = sgd.momentum * buffer + (gradient + sgd.weight_decay * weight)
        return weight - rate * buffer, buffer

    def each(rate: jax.Array, *trees: Tree) -> tuple[Tree, Tree]:
        arrays = zip(*map(jax.tree.leaves, trees), strict=True)
        pairs = [step(weight, buffer, gradient, rate) for weight, buffer, gradient in arrays]
        form = jax.tree.structure(trees[0])
        weights, momentum = zip(*pairs, strict=True) if pairs else ((), ())
        return jax.tree.unflatten(form, weights), jax.tree.unflatten(form, momentum)

    def by_size(rate: jax.Array, *trees: Tree) -> tuple[Tree, Tree]:
        return few_kernels.by_size(step, rate, *trees)

    after: tuple[Tree, Tree] = jax.lax.platform_dependent(
        jnp.asarray(lr), weights, momentum, gradients, cuda=by_size, default=each
    )
    return after


def sgd_update_rows(
    sgd: Sgd,
    lr: jax.Array,
    weights: jax.Array,
    momentum: jax.Array,
    gradients: jax.Array,
    index: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Update the rows `index` [K] of weights [S, ...] by gradients [K, ...], as sgd_update.

    All other rows keep their momentum as it is and are reached by weight decay alone. An index of
    S (out of range) marks a gradient that belongs to no row.
    """
    rows, buffers = weights[index], momentum[index]
    rows, buffers = sgd_update(sgd, lr, rows, buffers, gradients)
    decayed = weights * (1 - lr * sgd.weight_decay)
    return decayed.at[index].set(rows, mode="drop"), momentum.at[index].set(buffers, mode="drop")


def clamp_slopes(params: Tree, slopes: Tree) -> Tree:
    """Return the network's parameters with every PReLU slope at least SLOPE_FLOOR.

    slopes: a tree of bool of the same form, True where a parameter is one (models.Marks).
    """

    def clamp(x: jax.Array, is_slope: bool) -> jax.Array:
        return jnp.maximum(x, SLOPE_FLOOR) if is_slope else x

    return jax.tree.map(clamp, params, slopes)
