"""One training step as one per-device function, written with collectives over the axis AXIS.

It runs unchanged under jax.pmap and jax.shard_map (runtime.parallel). A device forwards its
images one micro-batch at a time: batch norm sees one micro-batch, gradients are averaged over all
of them. The groups of samples that batch norm sees are numbered device by device, and running
statistics and dropout go by that number, so that the result does not depend on how many devices
share the groups.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax import models
from uniface_jax.head.beside import QUALITY, TO_TEACHER
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.draws import with_own_draws
from uniface_jax.head.expectation import coupled, expected
from uniface_jax.head.loss import Products, Shard, Similarities, loss_and_gradients
from uniface_jax.head.positives import GlobalBatch, gather
from uniface_jax.head.samples import SampleResult, in_shard, sample_to_sample, written
from uniface_jax.head.sampling import sample_classes
from uniface_jax.head.shards import owned_classes
from uniface_jax.losses import Loss
from uniface_jax.losses.base import Statistics
from uniface_jax.losses.expectation import STAGE
from uniface_jax.runtime import debug
from uniface_jax.runtime.parallel import AXIS
from uniface_jax.state import TrainState, Tree, Weights
from uniface_jax.train import few_kernels, optim, update
from uniface_jax.train.beside import beside, compared, metrics_of, with_moved_centers
from uniface_jax.train.micro_batches import Batch as Batch
from uniface_jax.train.micro_batches import fold, forward, split
from uniface_jax.train.settings import Settings as Settings

DRAWS = 2  # of the keys of a step, behind those of dropout and of sampled classes

Metrics = dict[str, jax.Array]


class _Parts(NamedTuple):
    """Parts of a step; see make_step. marks: of the network's variables."""

    network: models.Network
    loss: Loss
    learning_rate: optim.LearningRate
    settings: Settings
    marks: models.Marks


class _Shared(NamedTuple):
    """Values that all micro-batches of one step on one device share.

    network: the state's, as it is differentiated.
    """

    state: TrainState
    network: Tree
    shard: Shard
    memory: Shard | None
    dropout_key: jax.Array
    draw_key: jax.Array


class _Sums(NamedTuple):
    """Sums over the micro-batches of one device."""

    gradients: Weights
    batch_stats: Tree


class _Measured(NamedTuple):
    """Measurements by the head of each micro-batch, arrays [M], and what is kept of its samples.

    beside: by name, of what beside.beside adds.
    """

    loss: jax.Array
    similarities: Similarities
    beside: dict[str, jax.Array]
    samples: "_Kept | None"


class _Kept(NamedTuple):
    """Rest of a loss between samples: its value [], its bias [] as it was set, and its batch.

    Of each micro-batch, gathered once for all that is made of it; all are stacked, [M, ...].
    Without a bias it is what class expectations are made of, and of this device's samples alone.
    """

    loss: jax.Array
    bias: jax.Array | None
    batch: GlobalBatch


def make_step(
    network: models.Network, loss: Loss, learning_rate: optim.LearningRate, settings: Settings
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return the per-device step of (state, batch) -> (new state, metrics).

    batch: image [b, 112, 112, 3] uint8, or float in [-1, 1], label [b], and landmarks [b, 5, 2] for
    a network that takes them; of a distilled run also teacher [b, T]. `loss` holds what a teacher
    and the regression of the quality add. Metrics are scalars: loss, learning_rate, grad_norm and
    what else update.clipped measures, the four of Similarities, and for losses with a bias the
    unified threshold in both readings, b/s and (b - log(C-1))/s. With a loss between samples `loss`
    is the sum of both, and sample_loss and sample_threshold are its own.
    """
    marks = models.marks(network)
    if settings.distillation and settings.distillation.teacher_width:
        marks = marks._replace(slopes={**marks.slopes, TO_TEACHER: False})
    if settings.quality:
        no_slopes = {"kernel": False, "bias": False}
        marks = marks._replace(slopes={**marks.slopes, QUALITY: no_slopes})
        loss = replace(loss, relative=True)
    return partial(_step, _Parts(network, loss, learning_rate, settings, marks))


def _step(parts: _Parts, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    settings = parts.settings
    key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
    dropout_key, sample_key = jax.random.split(key)
    before, of_centers = state, Metrics()
    if settings.distillation and settings.distillation.centers:
        state, of_centers = with_moved_centers((parts.network, settings), state, batch, dropout_key)
    shard = _shard(state, batch["label"], sample_key, settings)
    _, valid = owned_classes(settings.num_classes, shard.rows)
    debug.check_labels(batch["label"], settings.num_classes)
    debug.check_state(state.weights.prototypes, valid, state.batch_stats)

    memory = None if state.memory is None else in_shard(state.memory, shard)
    network = jax.lax.platform_dependent(
        state.weights.network, cuda=few_kernels.in_cudnn_order, default=lambda network: network
    )
    draw_key = jax.random.fold_in(key, DRAWS)
    shared = _Shared(state, network, shard, memory, dropout_key, draw_key)
    sums, loss_statistics, measured = _all_micro_batches(parts, shared, batch)
    gradients = jax.tree.map(lambda x: x / settings.micro_batches, sums.gradients)
    gradients = gradients._replace(network=_over_devices(gradients.network))
    debug.check_gradients(gradients, measured.loss)
    gradients, norms = update.clipped(gradients, settings)
    lr = parts.learning_rate(state.step)
    seen = _remember(state, shard, measured.samples)
    updated = update.updated(settings, parts.marks.slopes, lr, seen, gradients, shard.subset)
    batch_stats = state.batch_stats
    if not settings.frozen_statistics:
        batch_stats = _running(parts, batch_stats, _over_devices(sums.batch_stats))
    metrics = _metrics(parts, seen.weights, measured) | {
        "learning_rate": jnp.asarray(lr),
        **norms,
        **of_centers,
        **({STAGE: loss_statistics[STAGE]} if settings.expectation else {}),
    }
    updated = updated._replace(
        step=state.step + 1, batch_stats=batch_stats, loss_statistics=loss_statistics
    )
    updated = update.averaged(updated, settings)
    if settings.skip_nonfinite:
        updated = _unless_nonfinite(metrics["loss"] + norms["grad_norm"], updated, before)
    return updated, metrics


def _all_micro_batches(
    parts: _Parts, shared: _Shared, batch: Batch
) -> tuple[_Sums, Statistics, _Measured]:
    """Run one micro-batch after another, forward and back, the loss's statistics between."""
    state = shared.state
    chosen = shared.shard.prototypes
    like = state.weights._replace(prototypes=chosen.weight, bias=chosen.bias)
    zeros = jax.tree.map(jnp.zeros_like, _Sums(like, state.batch_stats))
    (sums, loss_statistics), measured = fold(
        partial(_micro_batch, parts, shared),
        (zeros, state.loss_statistics),
        (jnp.arange(parts.settings.micro_batches), split(parts.network, parts.settings, batch)),
        parts.settings.unrolled,
    )
    return sums, loss_statistics, measured


def _micro_batch(
    parts: _Parts,
    shared: _Shared,
    carry: tuple[_Sums, Statistics],
    numbered: tuple[jax.Array, Batch],
) -> tuple[tuple[_Sums, Statistics], _Measured]:
    """Add one micro-batch's gradients and weighted batch statistics to the sums in `carry`."""
    (sums, carried), (number, part), settings = carry, numbered, parts.settings
    group = jax.lax.axis_index(AXIS) * settings.micro_batches + number
    run = partial(
        forward, parts.network, shared.state.batch_stats, part,
        jax.random.fold_in(shared.dropout_key, group),
    )  # fmt: skip
    features, backward, statistics = jax.vjp(run, shared.network, has_aux=True)
    products = Products(settings.block_size, settings.product_dtype)
    draw_key = jax.random.fold_in(shared.draw_key, group)
    loss = with_own_draws(parts.loss, draw_key, part["label"].shape[0])
    network, prototypes = shared.state.weights.network, shared.shard.prototypes.weight
    seen, back = compared(settings, network, prototypes, features)
    samples = gather(seen, part["label"])
    own = samples if seen is features else gather(features, part["label"])
    if settings.expectation and shared.memory:
        shards, counts = (shared.shard, shared.memory), _stage(shared.state) >= 1
        result = coupled(loss, shards, (seen, part["label"]), carried, products, counts)
    else:
        result = loss_and_gradients(loss, shared.shard, samples, carried, products)
    result, by_map = back(result)
    by_features, value, by_sample_bias = result.gradients.features, result.loss, None
    mine = GlobalBatch(features, part["label"])
    kept = _Kept(value, None, mine) if settings.expectation else None
    if settings.samples:
        second = _between_samples(parts, shared, own, products)
        by_features, value = by_features + second.by_features, value + second.loss
        by_sample_bias, kept = second.by_bias, _Kept(second.loss, second.bias, own)
    added = beside(settings, shared.state.weights.network, features, part, result)
    for each in added:
        by_features, value = by_features + each.by_features, value + each.loss
    (by_params,) = backward(by_features)
    for by_network in (by_map, *(each.by_network for each in added)):
        by_params = {**by_params, **by_network}
    groups = settings.micro_batches * jax.lax.axis_size(AXIS)
    weight = _group_weight(settings.bn_momentum, group, groups)
    statistics = jax.tree.map(
        lambda x, folded: (weight if folded else 1 / groups) * x, statistics, parts.marks.folded
    )
    by_head = (result.gradients.weight, result.gradients.bias, by_sample_bias)
    by_weights = Weights(by_params, *by_head)
    sums = jax.tree.map(jnp.add, sums, _Sums(by_weights, statistics))
    measured = {name: x for each in added for name, x in each.measured.items()}
    return (sums, result.statistics), _Measured(value, result.similarities, measured, kept)


def _between_samples(
    parts: _Parts, shared: _Shared, batch: GlobalBatch, products: Products
) -> SampleResult:
    """Return the loss between samples, nothing while the memory fills."""
    samples, memory = parts.settings.samples, shared.memory
    bias = shared.state.weights.sample_bias
    assert samples is not None
    assert memory is not None

    def nothing() -> SampleResult:
        zero, mine = jnp.zeros_like(bias), batch.features[: batch.local]
        return SampleResult(zero, jnp.zeros_like(mine), zero, bias)

    result: SampleResult = jax.lax.cond(
        shared.state.step >= samples.start,
        lambda: sample_to_sample(samples.loss, memory, bias, batch, products),
        nothing,
    )
    return result


def _remember(state: TrainState, shard: Shard, kept: _Kept | None) -> TrainState:
    """Return the state with the step's features in memory, and with the sample bias that was set.

    Both are of the whole step's batch in its order, and so the same on any number of devices: a
    bias that every micro-batch has set for itself becomes their mean.
    """
    if kept is None:
        return state
    if kept.bias is None:
        mine = (x.reshape(-1, *x.shape[2:]) for x in kept.batch)
        return state._replace(memory=expected(state.memory, gather(*mine), shard.start, kept.loss))
    batch = _device_by_device(kept.batch)
    before = state.weights.sample_bias
    bias = jnp.where(before > 0, before, jnp.mean(kept.bias))
    return state._replace(
        weights=state.weights._replace(sample_bias=bias),
        memory=written(state.memory, batch, shard.start, kept.loss),
    )


def _device_by_device(micro: GlobalBatch) -> GlobalBatch:
    """Return the step's batch of its micro-batches, [M, B / M, ...] each device by device.

    That is its order on one device, whose number of micro-batches has no part in it.
    """
    devices = jax.lax.axis_size(AXIS)

    def ordered(x: jax.Array) -> jax.Array:
        each = x.reshape(x.shape[0], devices, -1, *x.shape[2:])
        return each.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    return GlobalBatch(*map(ordered, micro))


def _group_weight(momentum: float, group: jax.Array, groups: int) -> jax.Array:
    """Return what the statistics of one group weigh in the average after all were folded in.

    Folding r <- (1-m) r + m s_g in for g = 0..G-1 gives (1-m)^G r + sum m (1-m)^(G-1-g) s_g: a sum
    in any order, on any number of devices.
    """
    return momentum * (1 - momentum) ** (groups - 1 - group)


def _running(parts: _Parts, running: Tree, added: Tree) -> Tree:
    """Return the new running statistics, of the old ones and the sum over all groups."""
    devices = jax.lax.axis_size(AXIS)
    share = (1 - parts.settings.bn_momentum) ** (parts.settings.micro_batches * devices)
    plain = partial(jax.tree.map, lambda old: share * old)
    # On one GPU each is added to in the kernel of its own sums.
    on_gpus = partial(few_kernels.scaled, factor=share) if devices > 1 else plain
    kept = jax.lax.platform_dependent(running, cuda=on_gpus, default=plain)
    return jax.tree.map(
        lambda old, new, folded: old + new if folded else new,
        kept, added, parts.marks.folded,
    )  # fmt: skip


def _metrics(parts: _Parts, weights: Weights, measured: _Measured) -> Metrics:
    """Return what the head says of the whole step, and the thresholds before it."""
    similarities, samples, between = measured.similarities, parts.settings.samples, {}
    if samples and measured.samples:
        between = {
            "sample_loss": jnp.mean(measured.samples.loss),
            "sample_threshold": samples.loss.threshold(weights.sample_bias),
        }
    return {
        "loss": jnp.mean(measured.loss),
        "min_positive": jnp.min(similarities.min_positive),
        "max_negative": jnp.max(similarities.max_negative),
        "positives_below": jnp.mean(similarities.positives_below),
        "negatives_above": jnp.mean(similarities.negatives_above),
        **_threshold_metrics(parts.loss, weights.bias, parts.settings.num_classes),
        **between,
        **metrics_of(parts.settings, measured.beside),
    }


def _unless_nonfinite(value: jax.Array, updated: TrainState, before: TrainState) -> TrainState:
    """Return `updated` where `value` is finite, else what was before with `step` moved on."""
    finite = jnp.isfinite(value)
    kept_back = before._replace(step=updated.step)
    chosen: TrainState = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), updated, kept_back
    )
    return chosen


def _over_devices(tree: Tree) -> Tree:
    """Sum over all devices; over one alone nothing is done: XLA would copy the tree."""
    if jax.lax.axis_size(AXIS) == 1:
        return tree
    return jax.lax.platform_dependent(
        tree, cuda=few_kernels.over_devices, default=lambda tree: jax.lax.psum(tree, AXIS)
    )


def _stage(state: TrainState) -> jax.Array:
    """Return the stage [] that a loss with class expectations had reached before the step."""
    return state.loss_statistics[STAGE]


def _shard(state: TrainState, labels: jax.Array, key: jax.Array, settings: Settings) -> Shard:
    """Return the step's classes on this device, all or a random subset, for all micro-batches."""
    weights = state.weights
    rows = weights.prototypes.shape[0]
    start, valid = owned_classes(settings.num_classes, rows)
    frozen = settings.distillation is not None and settings.distillation.centers
    if settings.sampling_rate >= 1:
        all_of = Prototypes(weights.prototypes, weights.bias, valid)
        return Shard(all_of, start, rows, frozen=frozen)
    whole = _stage(state) >= 2 if settings.expectation else None
    subset = sample_classes(key, labels, settings.num_classes, rows, settings.sampling_rate, whole)
    bias = weights.bias[subset.row] if weights.bias.ndim else weights.bias
    prototypes = Prototypes(weights.prototypes[subset.row], bias, subset.valid)
    return Shard(prototypes, start, rows, subset, frozen)


def _threshold_metrics(loss: Loss, bias: jax.Array, num_classes: int) -> Metrics:
    """Return both readings of the unified threshold; of the mean bias where it is by class."""
    if loss.bias == "none":
        return {}
    if bias.ndim:
        _, valid = owned_classes(num_classes, bias.shape[0])
        bias = jax.lax.psum(jnp.sum(jnp.where(valid, bias, 0)), AXIS) / num_classes
    log_negatives = jnp.log(jnp.maximum(num_classes - 1.0, 1.0))
    return {
        "threshold": loss.threshold(bias),
        "threshold_without_log": loss.threshold(bias - log_negatives),
    }
