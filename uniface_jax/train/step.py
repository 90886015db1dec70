"""One training step as one per-device function, written with collectives over the axis AXIS.

It runs unchanged under jax.pmap and jax.shard_map (runtime.parallel). A device forwards its
images one micro-batch at a time: batch norm sees one micro-batch, gradients are averaged over all
of them. The groups of samples that batch norm sees are numbered device by device, and running
statistics and dropout go by that number, so that the result does not depend on how many devices
share the groups.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax import models
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Products, Result, Shard, loss_and_gradients
from uniface_jax.head.sampling import Subset, sample_classes
from uniface_jax.head.shards import owned_classes
from uniface_jax.losses import Loss
from uniface_jax.losses.base import Statistics
from uniface_jax.models.iresnet import IResNet
from uniface_jax.runtime import debug
from uniface_jax.runtime.parallel import AXIS
from uniface_jax.state import TrainState, Tree, Weights
from uniface_jax.train import optim

Metrics = dict[str, jax.Array]


class Settings(NamedTuple):
    """What a step is built from beside network, loss and schedule."""

    num_classes: int
    micro_batches: int = 1
    sampling_rate: float = 1.0
    block_size: int = 8192
    product_dtype: Any = None
    bn_momentum: float = 0.1  # in PyTorch's sense: the weight of the new statistics
    sgd: optim.Sgd = optim.Sgd()
    seed: int = 0
    skip_nonfinite: bool = False  # where loss or gradient are not finite, only `step` moves
    unrolled: bool | None = None  # the micro-batches; None: on the CPU alone, see _fold


class _Sums(NamedTuple):
    """What is added up over the micro-batches of one device."""

    gradients: Weights
    batch_stats: Tree


def _group_weight(momentum: float, group: jax.Array, groups: int) -> jax.Array:
    """What the statistics of one group weigh in the average after all groups were folded in.

    Folding r <- (1-m) r + m s_g in for g = 0..G-1 gives (1-m)^G r + sum m (1-m)^(G-1-g) s_g: a sum
    in any order, on any number of devices.
    """
    return momentum * (1 - momentum) ** (groups - 1 - group)


def make_step(
    network: IResNet, loss: Loss, schedule: optim.Schedule, settings: Settings
) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, Metrics]]:
    """The per-device step. Its batch: image [b, 112, 112, 3] uint8 or float in [-1, 1], label [b].

    Metrics are scalars: loss, learning_rate, grad_norm (before clipping), the four of
    Similarities, and for losses with a bias the
    unified threshold in both readings, b/s and (b - log(C-1))/s.
    """
    sgd, micro = settings.sgd, settings.micro_batches

    def forward_backward(
        state: TrainState, chosen: Prototypes, subset: Subset | None, carried, key, group, part
    ) -> tuple[_Sums, Result]:
        """Gradients and weighted statistics, and what the head says, of one micro-batch."""
        images = part["image"]
        if images.dtype == jnp.uint8:
            images = models.normalize(images)

        def forward(params: Tree) -> tuple[jax.Array, Tree]:
            features, updated = network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(key, group)},
            )
            return features, updated["batch_stats"]

        features, backward, statistics = jax.vjp(forward, state.weights.network, has_aux=True)
        rows = state.weights.prototypes.shape[0]
        start, _ = owned_classes(settings.num_classes, rows)
        result = loss_and_gradients(
            loss, Shard(chosen, start, rows, subset), features, part["label"], carried,
            Products(settings.block_size, settings.product_dtype),
        )  # fmt: skip
        (by_params,) = backward(result.gradients.features)
        weight = _group_weight(settings.bn_momentum, group, micro * jax.lax.axis_size(AXIS))
        statistics = jax.tree.map(lambda x: weight * x, statistics)
        by_weights = Weights(by_params, result.gradients.weight, result.gradients.bias)
        return _Sums(by_weights, statistics), result

    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        dropout_key, sample_key = jax.random.split(key)
        chosen, subset = _choose(state.weights, batch["label"], sample_key, settings)
        rows = state.weights.prototypes.shape[0]
        _, valid = owned_classes(settings.num_classes, rows)
        debug.check_labels(batch["label"], settings.num_classes)
        debug.check_state(state.weights.prototypes, valid, state.batch_stats)

        def body(carry: tuple[_Sums, Statistics], numbered):
            (sums, carried), (number, part) = carry, numbered
            group = jax.lax.axis_index(AXIS) * micro + number
            more, result = forward_backward(
                state, chosen, subset, carried, dropout_key, group, part
            )
            sums = jax.tree.map(jnp.add, sums, more)
            return (sums, result.statistics), (result.loss, result.similarities)

        parts = {
            key: batch[key].reshape(micro, -1, *batch[key].shape[1:]) for key in ("image", "label")
        }
        like = Weights(state.weights.network, chosen.weight, chosen.bias)
        zeros = jax.tree.map(jnp.zeros_like, _Sums(like, state.batch_stats))
        (sums, loss_statistics), (losses, similarities) = _fold(
            body, (zeros, state.loss_statistics), (jnp.arange(micro), parts), settings.unrolled
        )

        gradients = jax.tree.map(lambda x: x / micro, sums.gradients)
        gradients = gradients._replace(network=_over_devices(gradients.network))
        debug.check_gradients(gradients, losses)
        norm = _global_norm(gradients)
        factor = optim.clip_factor(norm, sgd.clip)
        gradients = jax.tree.map(lambda x: x * factor, gradients)
        lr = schedule(state.step)
        weights, momentum = _update(sgd, lr, state, gradients, subset)

        kept = (1 - settings.bn_momentum) ** (micro * jax.lax.axis_size(AXIS))
        batch_stats = jax.tree.map(
            lambda running, added: kept * running + added,
            state.batch_stats, _over_devices(sums.batch_stats),
        )  # fmt: skip
        metrics = {
            "loss": jnp.mean(losses),
            "learning_rate": jnp.asarray(lr),
            "grad_norm": norm,
            "min_positive": jnp.min(similarities.min_positive),
            "max_negative": jnp.max(similarities.max_negative),
            "positives_below": jnp.mean(similarities.positives_below),
            "negatives_above": jnp.mean(similarities.negatives_above),
            **_threshold_metrics(loss, state.weights.bias, settings.num_classes),
        }
        updated = TrainState(state.step + 1, weights, momentum, batch_stats, loss_statistics)
        if settings.skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"] + norm)
            kept_back = state._replace(step=updated.step)
            updated = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, kept_back)
        return updated, metrics

    return step


def _over_devices(tree: Tree) -> Tree:
    """The sum over all devices. Of one device alone there is none: XLA would copy the tree."""
    return tree if jax.lax.axis_size(AXIS) == 1 else jax.lax.psum(tree, AXIS)


def _fold(body, carry: Tree, xs: Tree, unrolled: bool | None) -> tuple[Tree, Tree]:
    """jax.lax.scan; unrolled on the CPU, where XLA's convolutions are 30 times slower in a loop.

    scan's own `unroll` is no help: the loop goes away only after convolutions were lowered.
    """
    if not (jax.default_backend() == "cpu" if unrolled is None else unrolled):
        return jax.lax.scan(body, carry, xs)
    outputs = []
    for index in range(jax.tree.leaves(xs)[0].shape[0]):
        carry, output = body(carry, jax.tree.map(lambda x, i=index: x[i], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *each: jnp.stack(each), *outputs)


def _choose(
    weights: Weights, labels: jax.Array, key: jax.Array, settings: Settings
) -> tuple[Prototypes, Subset | None]:
    """The step's classes, common to all micro-batches: all of them, or a random subset."""
    rows = weights.prototypes.shape[0]
    _, valid = owned_classes(settings.num_classes, rows)
    if settings.sampling_rate >= 1:
        return Prototypes(weights.prototypes, weights.bias, valid), None
    subset = sample_classes(key, labels, settings.num_classes, rows, settings.sampling_rate)
    bias = weights.bias[subset.row] if weights.bias.ndim else weights.bias
    return Prototypes(weights.prototypes[subset.row], bias, subset.valid), subset


def _global_norm(gradients: Weights) -> jax.Array:
    replicated, split = [gradients.network], [gradients.prototypes]
    (split if gradients.bias.ndim else replicated).append(gradients.bias)
    return jnp.sqrt(optim.square_norm(replicated) + jax.lax.psum(optim.square_norm(split), AXIS))


def _update(
    sgd: optim.Sgd, lr: jax.Array, state: TrainState, gradients: Weights, subset: Subset | None
) -> tuple[Weights, Weights]:
    """SGD on everything; with a subset, on its rows of the prototypes (and of a class bias)."""

    def update(weight: Tree, buffer: Tree, gradient: Tree, by_class: bool) -> tuple[Tree, Tree]:
        if subset is None or not by_class:
            return optim.sgd_update(sgd, lr, weight, buffer, gradient)
        index = jnp.where(subset.valid, subset.row, weight.shape[0])
        return optim.sgd_update_rows(sgd, lr, weight, buffer, gradient, index)

    by_class = Weights(network=False, prototypes=True, bias=bool(state.weights.bias.ndim))
    fields = zip(state.weights, state.momentum, gradients, by_class, strict=True)
    weights, momentum = zip(*(update(*field) for field in fields), strict=True)
    new = Weights(*weights)
    return new._replace(network=optim.clamp_slopes(new.network)), Weights(*momentum)


def _threshold_metrics(loss: Loss, bias: jax.Array, num_classes: int) -> Metrics:
    """Both readings of the unified threshold; of the mean bias where there is one a class."""
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
