"""Arithmetic on a network's arrays in few kernels, as XLA's compiler for GPUs has to be brought to.

A network has hundreds of arrays, most of a few hundred numbers. XLA makes kernels for each: to
transpose a convolution's kernel into cuDNN's order and its gradient back, for the gradient's sum
over devices and norm, for the update, and for running statistics. Loops over arrays of one shape
become one kernel where they share an operand, be it of two numbers, but not of one. Values are
those of optim.py and step.py, but for the order of the norm's sum.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from uniface_jax.models.convolution import TO_CUDNN, TO_FLAX
from uniface_jax.runtime.parallel import AXIS

Tree = Any
# (weight, momentum, gradient, rate []) -> the first two after a step; flat arrays.
Update = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

KERNEL_AXES = 4  # of a convolution's kernel
MOST_ARRAYS = 90  # that a norm is taken of at once: XLA lets a kernel take 96


def in_cudnn_order(network: Tree) -> Tree:
    """Return the parameters, convolutions' kernels the same but in memory in cuDNN's order."""
    least = _shared(-jnp.inf)

    def order(x: jax.Array) -> jax.Array:
        if x.ndim != KERNEL_AXES:
            return x
        return _joined(x.transpose(TO_CUDNN), least).transpose(TO_FLAX)

    return jax.tree.map(order, network)


def in_flax_order(gradients: Tree) -> Tree:
    """Return the gradients, kernels' in memory in the order of the parameters, vectors as well."""
    least = _shared(-jnp.inf)

    def order(x: jax.Array) -> jax.Array:
        if not is_one_of_many(x):
            return x
        # Flat, so that it is brought in order before it is joined to others.
        return _kept(_joined(x.reshape(-1), least)).reshape(x.shape)

    return jax.tree.map(order, gradients)


def over_devices(tree: Tree) -> Tree:
    """Return the sum over all devices, of the vectors of a type as one array.

    XLA sums many arrays as one, too, but joins them after its kernels are made: by then each vector
    is finished by a kernel of its own, and is taken from the sum by another.
    """
    leaves, form = jax.tree.flatten(tree)
    least, by_type = _shared(-jnp.inf), defaultdict[Any, dict[int, jax.Array]](dict)
    for at, x in enumerate(leaves):
        if x.ndim == 1:
            by_type[x.dtype][at] = _kept(_joined(x, least))
    joined = [ravel_pytree(vectors) for vectors in by_type.values()]
    others = {at: x for at, x in enumerate(leaves) if x.ndim != 1}
    flats, summed = jax.lax.psum(([flat for flat, _ in joined], others), AXIS)
    for flat, (_, taken_apart) in zip(flats, joined, strict=True):
        summed |= taken_apart(flat)
    return jax.tree.unflatten(form, [summed[at] for at in range(len(leaves))])


def scaled(tree: Tree, factor: float) -> Tree:
    """Return the arrays times a factor; those of a shape become one kernel with what takes them."""
    shared = _shared(factor)
    return jax.tree.map(lambda x: shared.astype(x.dtype) * x, tree)


def square_norm(leaves: Sequence[jax.Array]) -> jax.Array:
    """Return the sum of the squares of all elements of arrays, []."""
    flat = [x.reshape(-1) for x in leaves]
    groups = [flat[at : at + MOST_ARRAYS] for at in range(0, len(flat), MOST_ARRAYS)]
    return sum((jnp.sum(jnp.square(jnp.concatenate(x))) for x in groups), jnp.zeros(()))


def _joined(x: jax.Array, least: jax.Array) -> jax.Array:
    """Return x as it is, in one kernel with all that are bound by the same least number, -inf.

    Not by maximum: XLA would take that after a convolution's kernel is mirrored, by which it knows
    an input gradient, and make a convolution of a map with zeros between of it.
    """
    return jax.lax.clamp(least.astype(x.dtype), x, jnp.asarray(jnp.inf, x.dtype))


def _shared(number: jax.Array | float) -> jax.Array:
    """Return a number [] that, to the compiler, is an element of an array."""
    return _kept(jnp.broadcast_to(number, (2,)))[0]


def _kept(x: jax.Array) -> jax.Array:
    kept: jax.Array = jax.lax.optimization_barrier(x)
    return kept


def is_one_of_many(x: jax.Array) -> bool:
    """Return True for a vector or a convolution's kernel."""
    return x.ndim in (1, KERNEL_AXES)


def by_size(
    update: Update, lr: jax.Array, weights: Tree, momentum: Tree, gradients: Tree
) -> tuple[Tree, Tree]:
    """Return weights and momentum after `update` of each array, those of a size in one kernel."""
    form = jax.tree.structure(weights)
    many, pairs = _shared(lr), []
    for weight, buffer, gradient in zip(
        *map(jax.tree.leaves, (weights, momentum, gradients)), strict=True
    ):
        rate = many if is_one_of_many(weight) else lr
        after = update(weight.reshape(-1), buffer.reshape(-1), gradient.reshape(-1), rate)
        pairs.append([x.reshape(weight.shape) for x in after])
    return (
        jax.tree.unflatten(form, [weight for weight, _ in pairs]),
        jax.tree.unflatten(form, [buffer for _, buffer in pairs]),
    )
