"""Optimizers beside SGD, by optax: AdamW, LAMB, and Muon for matrices; the head's by rows.

An array's moments are what optax keeps of it. Of an array with one row a class every row is an
array of its own, with its own count of updates: rows that take no part in a step stay as they are,
weight, moments and count.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

OPTIMIZERS = ("sgd", "adamw", "lamb", "muon")
MUON_RMS = 0.2  # of Muon's updates, about AdamW's: one learning rate is for both (arXiv 2502.16982)
BLOCK_ELEMENTS = 2**20  # of the head's rows that are updated at a time
BLOCK_ARRAYS = 5  # of this size, that the update of a block works in


class Adaptive(NamedTuple):
    """Hyperparameters of an adaptive optimizer.

    name: of OPTIMIZERS but sgd. momentum: of Muon's matrices. decoupled: weights decay by
    lr * weight_decay; else the decay is added to the gradient. clip: of the gradient's norm.
    """

    name: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.95
    weight_decay: float = 0.0
    clip: float = 10.0
    decoupled: bool = True


class Moments(NamedTuple):
    """Moments of one array, and how many updates they are of: [] int32, or [rows].

    second is [] for a matrix of Muon, which has none.
    """

    updates: jax.Array
    first: jax.Array
    second: jax.Array


_Rows = tuple[jax.Array, Moments]
_UpdateRows = Callable[[jax.Array, Moments, jax.Array], _Rows]  # by weights, moments, gradients


class Kind(NamedTuple):
    """Treatment of one array: matrix, Muon's; layer, LAMB's, by the ratio of its norms."""

    matrix: bool = False
    layer: bool = False


def kind_of(optimizer: Adaptive, name: str, shape: tuple[int, ...]) -> Kind:
    """Return how an array is treated, by its name as multipliers.name_of has it.

    Muon's matrices are the network's kernels, convolutions as [height * width * in, out], but
    depthwise ones: these, embeddings, vectors and the head move as AdamW's. LAMB's layers are the
    network's arrays, and every prototype; the bias moves as AdamW's.
    """
    network = name.startswith("network.")
    kernel = network and name.endswith(".kernel") and len(shape) >= 2 and shape[-2] > 1
    return Kind(
        matrix=optimizer.name == "muon" and kernel,
        layer=optimizer.name == "lamb" and (network or name == "prototypes"),
    )


def update(
    optimizer: Adaptive,
    kind: Kind,
    rates: tuple[jax.Array, float],
    weight: jax.Array,
    moments: Moments,
    gradient: jax.Array,
) -> tuple[jax.Array, Moments]:
    """Return an array after one update, and its moments. rates: learning rate and weight decay."""
    lr, decay = rates
    if decay and not optimizer.decoupled:
        gradient = gradient + decay * weight
    if kind.matrix:
        direction, moments = _orthogonal(optimizer, gradient, moments)
    else:
        transform = optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.eps)
        before = optax.ScaleByAdamState(moments.updates, moments.first, moments.second)
        direction, after = transform.update(gradient, before)
        moments = Moments(after.count, after.mu, after.nu)
    if decay and optimizer.decoupled:
        direction = direction + decay * weight
    if kind.layer:
        direction, _ = optax.scale_by_trust_ratio().update(direction, optax.EmptyState(), weight)
    return weight - lr * direction, moments


def _orthogonal(
    optimizer: Adaptive, gradient: jax.Array, moments: Moments
) -> tuple[jax.Array, Moments]:
    """Return Muon's direction for a kernel, whose last axis is the output, and its moments."""
    *inner, outputs = gradient.shape
    transform = contrib.scale_by_muon(
        beta=optimizer.momentum,
        weight_dimension_numbers=contrib.MuonDimensionNumbers(
            tuple(range(len(inner))), (len(inner),)
        ),
    )
    fixed = transform.init(gradient)  # the coefficients of its iteration
    before = fixed._replace(count=moments.updates, mu=moments.first)
    direction, after = transform.update(gradient, before)
    size = max(gradient.size // outputs, outputs)
    return MUON_RMS * size**0.5 * direction, Moments(after.count, after.mu, moments.second)


def update_rows(
    optimizer: Adaptive,
    kind: Kind,
    rates: tuple[jax.Array, float],
    weights: jax.Array,
    moments: Moments,
    sampled: tuple[jax.Array, jax.Array | None],
) -> tuple[jax.Array, Moments]:
    """Return an array [S, ...] and its moments after an update of some rows, each by itself.

    sampled: gradients [K, ...], and the row [K] of each, S for one that belongs to no row; None
    for all rows in order. Works on a block of rows at a time, in place: nothing of the size of
    `weights` or of the gradients is held beside them.
    """
    gradients, index = sampled
    count = gradients.shape[0]
    each: _UpdateRows = jax.vmap(partial(update, optimizer, kind, rates))
    if index is None and not kind.layer:
        return each(weights, moments, gradients)  # element by element, which is in place
    block = max(1, min(count, BLOCK_ELEMENTS // max(1, gradients[0].size)))

    def one_block(number: jax.Array, all_rows: _Rows) -> _Rows:
        # The last block ends with the last row, and leaves those that the one before has updated.
        start = jnp.minimum(number * block, count - block)
        place = start + jnp.arange(block)
        # Gathered also where they are consecutive: slices would be fused with what is written, and
        # the compiler then copies whole arrays first.
        rows = place if index is None else jax.lax.dynamic_slice_in_dim(index, start, block)
        weight, old = jax.tree.map(lambda x: x[rows], all_rows)
        new = each(weight, old, jax.lax.dynamic_slice_in_dim(gradients, start, block))
        target = jnp.where(place >= number * block, rows, weights.shape[0])
        scattered: _Rows = jax.tree.map(
            lambda x, y: x.at[target].set(y, mode="drop"), all_rows, new
        )
        return scattered

    if block == count:
        return one_block(jnp.zeros((), jnp.int32), (weights, moments))
    done: _Rows = jax.lax.fori_loop(0, -(-count // block), one_block, (weights, moments))
    return done
