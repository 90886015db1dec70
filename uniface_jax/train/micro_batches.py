"""Micro-batches of a device's part of a step: split, run forward, and folded over."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from uniface_jax import models
from uniface_jax.head.beside import alone
from uniface_jax.state import Tree
from uniface_jax.train.settings import Settings

Batch = Mapping[str, jax.Array]


def split(network: models.Network, settings: Settings, batch: Batch) -> Batch:
    """Return what the step takes of a device's batch, as micro-batches [M, ...]."""
    micro = settings.micro_batches
    keys = ["image", "label"] + ["landmarks"] * models.takes_landmarks(network)
    keys += ["teacher"] * (settings.distillation is not None)
    return {key: batch[key].reshape(micro, -1, *batch[key].shape[1:]) for key in keys}


def forward(
    network: models.Network, batch_stats: Tree, part: Batch, key: jax.Array, params: Tree
) -> tuple[jax.Array, Tree]:
    """Return the features [b, D] of a micro-batch in training, and the batch statistics."""
    images = part["image"]
    if images.dtype == jnp.uint8:
        images = models.normalize(images)
    variables = {"params": alone(params), "batch_stats": batch_stats}
    return models.train_forward(network, variables, images, key, part.get("landmarks"))


def fold(
    body: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, xs: Tree, unrolled: bool | None
) -> tuple[Tree, Tree]:
    """Do as jax.lax.scan does; unrolled on the CPU.

    There XLA's convolutions are 30 times slower in a loop. scan's own `unroll` is no help: the loop
    goes away only after convolutions were lowered.
    """
    if not (jax.default_backend() == "cpu" if unrolled is None else unrolled):
        return jax.lax.scan(body, carry, xs)
    outputs = []
    for index in range(jax.tree.leaves(xs)[0].shape[0]):
        carry, output = body(carry, jax.tree.map(lambda x, i=index: x[i], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *each: jnp.stack(each), *outputs)
