"""State of training: what is trained, and which of its arrays have one row a class."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax import models
from uniface_jax.head.shards import create_prototypes
from uniface_jax.losses import Loss
from uniface_jax.losses.base import Statistics

Tree = Any


class Weights(NamedTuple):
    """All that is trained: the network's params, prototypes [C, D], bias [] or [C].

    sample_bias []: the threshold between samples, where the loss compares them; None elsewhere.
    Trees of the same form (gradients, momentum, marks) use it as well.
    """

    network: Tree
    prototypes: Any
    bias: Any
    sample_bias: Any = None


class Average(NamedTuple):
    """Mean of the weights over the updates so far, recent ones weighing more; of the network alone.

    updates [] int32, how many it is of. batch_stats: the mean of the running statistics.
    """

    updates: jax.Array
    network: Tree
    batch_stats: Tree


class TrainState(NamedTuple):
    """step [] int32, the number of steps done; momentum has the form of the weights.

    loss_statistics: scalars by name that some losses carry from batch to batch; none for most.
    Of adaptive optimizers (train/adaptive.py) momentum is the first moment; second_moments has the
    form of the weights, with [] where there is none, and updates counts those that the moments are
    of: [] int32 of the network, [C] of the prototypes, of the bias in its shape. average: where a
    mean of the weights is kept. memory [C, D]: where the loss compares samples, the last feature of
    each class as the network gave it, zeros before the first.
    """

    step: jax.Array
    weights: Weights
    momentum: Weights
    batch_stats: Tree
    loss_statistics: Statistics = {}  # noqa: RUF012 (never changed in place)
    second_moments: Weights | None = None
    updates: Weights | None = None
    average: Average | None = None
    memory: Any = None


def create_state(
    network: models.Network,
    loss: Loss,
    num_classes: int,
    sampling_rate: float,
    seed: int,
    rows: int | None = None,
) -> TrainState:
    """Create the logical state before the first step; with `rows`, so many for num_classes."""
    network_key, head_key = jax.random.split(jax.random.key(seed))
    params, batch_stats = models.initialize(network, network_key)
    prototypes, bias = create_prototypes(
        head_key, loss, num_classes, network.embedding_size, sampling_rate, rows
    )
    weights = Weights(params, prototypes, bias)
    momentum = jax.tree.map(jnp.zeros_like, weights)
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, weights, momentum, batch_stats, loss.initial_statistics())


def class_sharded(state: TrainState) -> TrainState:
    """Return a tree of bool of the state's form: True for arrays with one row a class."""
    replicated: TrainState = jax.tree.map(lambda x: False, state)

    def mark(weights: Weights) -> Weights:
        return weights._replace(prototypes=True, bias=bool(state.weights.bias.ndim))

    second, updates = replicated.second_moments, replicated.updates
    return replicated._replace(
        weights=mark(replicated.weights),
        momentum=mark(replicated.momentum),
        second_moments=None if second is None else mark(second),
        updates=None if updates is None else mark(updates),
        memory=None if state.memory is None else True,
    )
