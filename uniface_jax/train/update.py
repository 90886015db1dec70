"""Update of all weights by their gradients: norm, clipping, the optimizer, the mean of weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from uniface_jax.config.multipliers import factors, name_of
from uniface_jax.head import quality
from uniface_jax.head.beside import QUALITY, TO_TEACHER
from uniface_jax.head.sampling import Subset
from uniface_jax.runtime.parallel import AXIS
from uniface_jax.state import Average, TrainState, Weights, class_sharded
from uniface_jax.train import adaptive, few_kernels, optim
from uniface_jax.train.settings import Group, Settings, groups

Tree = Any
# Folded into the seed's key, so that the draws of what is beside the network are no other array's.
MAP_NUMBER, QUALITY_NUMBER, CENTERS_NUMBER = 0x6D6170, 0x716C74, 0x637472


def prepared(state: TrainState, settings: Settings) -> TrainState:
    """Return a first state with all that the settings ask to carry along.

    That is the optimizer's moments, the mean of the weights, a memory of features with the
    threshold between samples, the map to a teacher's features, and the head of the quality.
    """
    if settings.samples:
        state = _with_memory(state)
    if settings.expectation:
        state = state._replace(memory=_empty_memory(state))
    if settings.distillation and settings.distillation.teacher_width:
        state = _with_map(state, settings.seed, settings.distillation.teacher_width)
        if settings.distillation.centers:
            state = _with_centers(state, settings.seed, settings.distillation.teacher_width)
    if settings.quality:
        key = jax.random.fold_in(jax.random.key(settings.seed), QUALITY_NUMBER)
        head = quality.create(key, state.weights.prototypes.shape[-1])
        state = _with_beside(state, QUALITY, head)
    weights, optimizer = state.weights, settings.adaptive
    if optimizer is not None:
        second = jax.tree.map(
            lambda x, kind: jnp.zeros(() if kind.matrix else x.shape, x.dtype),
            weights, _kinds(optimizer, weights),
        )  # fmt: skip
        shapes = ((), weights.prototypes.shape[:1], weights.bias.shape)
        updates = Weights(*(jnp.zeros(shape, jnp.int32) for shape in shapes))
        if settings.samples:
            updates = updates._replace(sample_bias=jnp.zeros((), jnp.int32))
        state = state._replace(second_moments=second, updates=updates)
    if settings.ema:
        start = jax.tree.map(jnp.zeros_like, (weights.network, state.batch_stats))
        state = state._replace(average=Average(jnp.zeros((), jnp.int32), *start))
    return state


def _with_memory(state: TrainState) -> TrainState:
    """Return a first state with an empty memory of features and the threshold between samples."""
    zero = jnp.zeros((), state.weights.prototypes.dtype)
    return state._replace(
        weights=state.weights._replace(sample_bias=zero),
        momentum=state.momentum._replace(sample_bias=zero),
        memory=_empty_memory(state),
    )


def _empty_memory(state: TrainState) -> jax.Array:
    """Return zeros [C, D], of the classes and features of a first state."""
    prototypes = state.weights.prototypes
    return jnp.zeros_like(prototypes if prototypes.ndim == 2 else prototypes[:, 0])


def _with_map(state: TrainState, seed: int, width: int) -> TrainState:
    """Return a first state whose network has a linear map to a teacher's features beside it."""
    size = state.weights.prototypes.shape[-1]
    key = jax.random.fold_in(jax.random.key(seed), MAP_NUMBER)
    drawn = jax.random.normal(key, (size, width)) / math.sqrt(size)
    return _with_beside(state, TO_TEACHER, drawn)


def _with_centers(state: TrainState, seed: int, width: int) -> TrainState:
    """Return a first state with centers of a teacher's T numbers, of std 1/sqrt(T)."""
    key = jax.random.fold_in(jax.random.key(seed), CENTERS_NUMBER)
    rows = state.weights.prototypes.shape[0]
    with jax.threefry_partitionable(True):  # as create_prototypes
        drawn = jax.random.normal(key, (rows, width)) / math.sqrt(width)
    return state._replace(
        weights=state.weights._replace(prototypes=drawn),
        momentum=state.momentum._replace(prototypes=jnp.zeros_like(drawn)),
    )


def _with_beside(state: TrainState, name: str, drawn: Tree) -> TrainState:
    """Return a first state whose network has these arrays beside it, with momenta of 0."""

    def add(weights: Weights, arrays: Tree) -> Weights:
        return weights._replace(network={**weights.network, name: arrays})

    zeros = jax.tree.map(jnp.zeros_like, drawn)
    return state._replace(weights=add(state.weights, drawn), momentum=add(state.momentum, zeros))


def clipped(gradients: Weights, settings: Settings) -> tuple[Weights, dict[str, jax.Array]]:
    """Return the gradients after clipping, and their norms before by the name of their metric.

    grad_norm is that of all trained parameters; network_grad_norm that of the network's alone,
    where it is by this one that they are clipped.
    """
    network = jax.lax.platform_dependent(
        gradients.network, cuda=few_kernels.in_flax_order, default=lambda network: network
    )
    gradients = gradients._replace(network=network)
    trained, limit = _trained(gradients, settings), settings.optimizer.clip
    norm = _global_norm(trained)
    if not settings.clip_network:
        return _scaled(gradients, optim.clip_factor(norm, limit)), {"grad_norm": norm}
    own = jnp.sqrt(optim.square_norm(trained.network))
    network = _scaled(gradients.network, optim.clip_factor(own, limit))
    return gradients._replace(network=network), {"grad_norm": norm, "network_grad_norm": own}


def _scaled(tree: Tree, factor: jax.Array) -> Tree:
    return jax.tree.map(lambda x: x * factor, tree)


def _trained(gradients: Weights, settings: Settings) -> Weights:
    """Return the gradients with None for those of frozen parameters."""
    if not settings.multipliers:
        return gradients
    trained: Weights = jax.tree.map(
        lambda gradient, factor: gradient if factor else None,
        gradients, factors(settings.multipliers, gradients),
    )  # fmt: skip
    return trained


def _global_norm(gradients: Weights) -> jax.Array:
    replicated, split = [gradients.network, gradients.sample_bias], [gradients.prototypes]
    by_class = gradients.bias is not None and gradients.bias.ndim
    (split if by_class else replicated).append(gradients.bias)
    return jnp.sqrt(optim.square_norm(replicated) + jax.lax.psum(optim.square_norm(split), AXIS))


def updated(
    settings: Settings,
    slopes: Tree,
    lr: jax.Array,
    state: TrainState,
    gradients: Weights,
    subset: Subset | None,
) -> TrainState:
    """Return the state with new weights and moments; all else is as it was.

    slopes: the network's parameters that stay positive, see models.Marks. With a subset, its rows
    of the prototypes (and of a bias a class) are updated; of the rest SGD decays the weights, and
    the others leave all as it is.
    """
    if not settings.grouped:
        return _by_sgd(settings.sgd, slopes, lr, state, gradients, subset)
    groups_ = groups(settings, state.weights)
    by_group = _by_adaptive if settings.adaptive else _by_grouped_sgd
    new = by_group(settings, groups_, lr, state, gradients, subset)
    trained = jax.tree.map(
        lambda is_slope, group: is_slope and group.factor > 0, slopes, groups_.network
    )
    network = optim.clamp_slopes(new.weights.network, trained)
    return new._replace(weights=new.weights._replace(network=network))


def _by_sgd(
    sgd: optim.Sgd,
    slopes: Tree,
    lr: jax.Array,
    state: TrainState,
    gradients: Weights,
    subset: Subset | None,
) -> TrainState:
    """Return the state after SGD that is the same for all parameters."""

    def update(weight: Tree, buffer: Tree, gradient: Tree, by_class: bool) -> tuple[Tree, Tree]:
        return _sgd_step(sgd, lr, (weight, buffer, gradient), subset if by_class else None)

    by_class = class_sharded(state).weights._replace(network=False)
    fields = zip(state.weights, state.momentum, gradients, by_class, strict=True)
    weights, momentum = zip(*(update(*field) for field in fields), strict=True)
    new = Weights(*weights)
    network = optim.clamp_slopes(new.network, slopes)
    return state._replace(weights=new._replace(network=network), momentum=Weights(*momentum))


def _sgd_step(
    sgd: optim.Sgd, lr: jax.Array, arrays: tuple[Tree, Tree, Tree], subset: Subset | None
) -> tuple[Tree, Tree]:
    """Return the weights and the momentum after a step, of all rows or of a subset's.

    arrays: weights, momentum and gradients.
    """
    if subset is None:
        return optim.sgd_update(sgd, lr, *arrays)
    return optim.sgd_update_rows(sgd, lr, *arrays, _targets(subset, arrays[0]))


def _by_grouped_sgd(
    settings: Settings,
    by_group: Tree,
    lr: jax.Array,
    state: TrainState,
    gradients: Weights,
    subset: Subset | None,
) -> TrainState:
    """Return the state after SGD by groups; frozen arrays stay as they are, bitwise."""

    def update(
        weight: jax.Array, buffer: jax.Array, gradient: jax.Array, by_class: bool, group: Group
    ) -> tuple[jax.Array, jax.Array]:
        if not group.factor:
            return weight, buffer
        sgd = settings.sgd._replace(weight_decay=group.decay)
        arrays = (weight, buffer, gradient)
        return _sgd_step(sgd, lr * group.factor, arrays, subset if by_class else None)

    by_class = class_sharded(state).weights
    pairs = jax.tree.map(update, state.weights, state.momentum, gradients, by_class, by_group)
    weights, momentum = _transposed(state.weights, pairs, 2)
    return state._replace(weights=weights, momentum=momentum)


def _by_adaptive(
    settings: Settings,
    by_group: Tree,
    lr: jax.Array,
    state: TrainState,
    gradients: Weights,
    subset: Subset | None,
) -> TrainState:
    """Return the state after AdamW, LAMB or Muon; frozen arrays stay as they are, bitwise."""
    optimizer, counts, second = settings.adaptive, state.updates, state.second_moments
    assert optimizer is not None
    assert counts is not None
    assert second is not None

    def update(
        weight: jax.Array, moments: adaptive.Moments, gradient: jax.Array, kind: adaptive.Kind,
        by_class: bool, group: Group,
    ) -> tuple[jax.Array, ...]:  # fmt: skip
        if not group.factor:
            return weight, *moments
        rates = (lr * group.factor, group.decay)
        if by_class:
            index = None if subset is None else _targets(subset, weight)
            sampled = (gradient, index)
            weight, moments = adaptive.update_rows(optimizer, kind, rates, weight, moments, sampled)
        else:
            weight, moments = adaptive.update(optimizer, kind, rates, weight, moments, gradient)
        return weight, *moments

    each = counts._replace(network=jax.tree.map(lambda _: counts.network, second.network))
    moments = jax.tree.map(adaptive.Moments, each, state.momentum, second)
    marks = (_kinds(optimizer, state.weights), class_sharded(state).weights, by_group)
    pairs = jax.tree.map(update, state.weights, moments, gradients, *marks)
    weights, updates, momentum, second = _transposed(state.weights, pairs, 4)
    return state._replace(
        weights=weights,
        momentum=momentum,
        second_moments=second,
        updates=updates._replace(network=counts.network + 1),
    )


def averaged(state: TrainState, settings: Settings) -> TrainState:
    """Return the state with its network and statistics in the mean: see state.Average."""
    before = state.average
    if before is None:
        return state
    count = before.updates + 1
    # The mean in which update k of n weighs ema**(n - k): the first weights are not in it.
    share = (settings.ema - 1) / jnp.expm1(count * math.log(settings.ema))
    now = (state.weights.network, state.batch_stats)
    means = jax.tree.map(
        lambda old, new: old + share.astype(old.dtype) * (new - old), tuple(before[1:]), now
    )
    return state._replace(average=Average(count, *means))


def _kinds(optimizer: adaptive.Adaptive, weights: Weights) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, x: adaptive.kind_of(optimizer, name_of(path), x.shape), weights
    )


def _targets(subset: Subset, weight: jax.Array) -> jax.Array:
    """Return the row of each class of a subset [K]; one that there is not for padding."""
    return jnp.where(subset.valid, subset.row, weight.shape[0])


def _transposed(like: Tree, pairs: Tree, size: int) -> Any:
    """Turn a tree of tuples into a tuple of trees."""
    inner = jax.tree.structure((0,) * size)
    return jax.tree.transpose(jax.tree.structure(like), inner, pairs)
