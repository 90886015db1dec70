"""Update of many arrays in few kernels, as XLA's compiler for GPUs has to be brought to.

A network has hundreds of arrays, most of a few hundred numbers. XLA makes kernels for each: for its
norm, for its update, and, of a convolution's kernel, whose gradient comes in cuDNN's order, for two
copies back into the arrays that are updated in place. Loops over arrays of one size become one
kernel where they share an operand of that size, and gradients that stand in one buffer have one
norm. Values are those of optim.py, but for the order of the norm's sum.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
# (weight, momentum, gradient, rate) -> the first two after a step; arrays of one size, flat.
Update = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

KERNEL_AXES = 4  # of a convolution's kernel


def gathered(gradients: Tree) -> Tree:
    """Return the gradients, those of convolutions' kernels as slices of one buffer."""
    leaves, form = jax.tree.flatten(gradients)
    kernels = [x for x in leaves if x.ndim == KERNEL_AXES]
    if not kernels:
        return gradients
    flat = jax.lax.optimization_barrier(jnp.concatenate([x.reshape(-1) for x in kernels]))
    parts = jax.lax.split(flat, [x.size for x in kernels])
    after = iter([x.reshape(kernel.shape) for x, kernel in zip(parts, kernels, strict=True)])
    return jax.tree.unflatten(form, [next(after) if x.ndim == KERNEL_AXES else x for x in leaves])


def square_norm(leaves: Sequence[jax.Array]) -> jax.Array:
    """Return the sum of the squares of all elements of vectors and convolutions' kernels, []."""
    by_axes = [[x.reshape(-1) for x in leaves if x.ndim == n] for n in (1, KERNEL_AXES)]
    sums = [jnp.sum(jnp.square(jnp.concatenate(group))) for group in by_axes if group]
    return sum(sums, jnp.zeros(()))


def is_one_of_many(x: jax.Array) -> bool:
    """Return True for a vector or a convolution's kernel."""
    return x.ndim in (1, KERNEL_AXES)


def by_size(
    update: Update, lr: jax.Array, weights: Tree, momentum: Tree, gradients: Tree
) -> tuple[Tree, Tree]:
    """Return weights and momentum after `update` of each array, those of a size in one kernel.

    lr []: given to update as an array of the size, or as it is where no other array has that size.
    """
    form = jax.tree.structure(weights)
    arrays = list(zip(*map(jax.tree.leaves, (weights, momentum, gradients)), strict=True))
    places = defaultdict(list)
    for place, (first, *_) in enumerate(arrays):
        places[first.size if is_one_of_many(first) else -place].append(place)
    found: list[tuple[jax.Array, jax.Array] | None] = [None] * len(arrays)
    for size, group in places.items():
        rate = lr
        if len(group) > 1:
            rate = jax.lax.optimization_barrier(jnp.broadcast_to(lr, (size,)))
        for place in group:
            shape = arrays[place][0].shape
            weight, buffer, gradient = (x.reshape(-1) for x in arrays[place])
            weight, buffer = update(weight, buffer, gradient, rate)
            found[place] = (weight.reshape(shape), buffer.reshape(shape))
    pairs = [pair for pair in found if pair is not None]
    return (
        jax.tree.unflatten(form, [weight for weight, _ in pairs]),
        jax.tree.unflatten(form, [buffer for _, buffer in pairs]),
    )
