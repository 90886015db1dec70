"""The head as tests run it: on several devices, with a subset of classes, in blocks."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from uniface_jax import losses
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.draws import with_gathered
from uniface_jax.head.loss import (
    Gradients,
    Products,
    Relative,
    Result,
    Shard,
    loss_and_gradients,
)
from uniface_jax.head.positives import gather
from uniface_jax.head.sampling import Subset, sample_classes
from uniface_jax.head.shards import owned_classes, shard_size
from uniface_jax.runtime.parallel import AXIS


def layouts(*fast):
    """Parameters (shards, block) of golden tests, of which those not among `fast` are slow."""
    return [
        pytest.param(shards, block, marks=() if (shards, block) in fast else pytest.mark.slow)
        for shards in (1, 2, 3, 8)
        for block in (1, 7, 37)
    ]


LAYOUTS = layouts((3, 7))


def draws_of(batch):
    """Draws [B] of the standard normal, for losses that take them."""
    return np.random.default_rng(17).standard_normal(batch)


class Program(NamedTuple):
    """All that a compiled head is made from.

    fixed, varied: hyperparameters that are built in, and the names of those that are arguments of
    the program, so that one compilation serves many cases. subset: "given", a rate to draw one at,
    or None.
    """

    loss: str
    num_classes: int
    by_class: bool
    fixed: tuple[tuple[str, float], ...]
    varied: tuple[str, ...]
    subset: str | float | None
    shards: int
    block: int
    mode: str
    product_dtype: Any
    pair_whisker: float | None = None
    relative: bool = False

    @property
    def rows(self):
        return shard_size(self.num_classes, self.shards)


def run_head(name, features, prototypes, bias, labels, **settings):
    """The head on some devices: its Result, gradients [C, …], and the classes that took part.

    settings: fixed and varied hyperparameters by name; shards, block, mode ("shard_map" or "pmap"),
    product_dtype, pair_whisker and relative, see Program; classes, the numbers of a subset's
    classes, or sampling, (key, rate) to draw one; statistics, of losses that have any; draws [B],
    of losses that take them, by default those of `draws_of`.
    """
    fixed, varied = settings.pop("fixed", None) or {}, settings.pop("varied", None) or {}
    classes, sampling = settings.pop("classes", None), settings.pop("sampling", None)
    statistics, draws = settings.pop("statistics", None), settings.pop("draws", None)
    if statistics is None:
        statistics = losses.LOSSES[name](**fixed).initial_statistics()
    num_classes, by_class = len(prototypes), bool(np.ndim(bias))
    options = {"shards": 1, "block": 7, "mode": "shard_map", "product_dtype": None} | settings
    head = Program(
        name, num_classes, by_class, tuple(fixed.items()), tuple(varied),
        sampling[1] if sampling else None if classes is None else "given", **options,
    )  # fmt: skip
    taken = np.isin(np.arange(num_classes), classes) if classes is not None else None
    by_row = {"weight": prototypes, "bias": bias if by_class else None, "taken": taken}
    padding = head.rows * head.shards - num_classes
    by_row = {
        key: np.pad(x, [(0, padding)] + [(0, 0)] * (np.ndim(x) - 1))
        for key, x in by_row.items()
        if x is not None
    }
    samples = {"features": np.asarray(features), "labels": np.asarray(labels, np.int32)}
    samples["draws"] = draws_of(len(labels)) if draws is None else np.asarray(draws)
    rest = {"statistics": statistics, "varied": {k: np.float64(x) for k, x in varied.items()}}
    rest |= {} if by_class else {"bias": np.asarray(bias)}
    rest |= {"key": sampling[0]} if sampling else {}
    run = compiled(head) if head.mode == "shard_map" else functools.partial(run_by_pmap, head)
    return without_padding(head, *run(samples, by_row, rest))


def without_padding(head, result, drawn):
    """Result and classes of the num_classes alone; padding rows have no part in anything."""
    assert not np.any(np.asarray(result.gradients.weight)[head.num_classes :]), "a padding row"
    assert not np.any(np.asarray(drawn)[head.num_classes :]), "padding takes part"
    gradients = result.gradients._replace(weight=result.gradients.weight[: head.num_classes])
    if head.by_class:
        gradients = gradients._replace(bias=gradients.bias[: head.num_classes])
    return result._replace(gradients=gradients), np.asarray(drawn)[: head.num_classes]


def run_by_pmap(head, samples, by_row, rest):
    """Take and give whole arrays, as the program of jax.shard_map does."""

    def split(x):
        return x.reshape(head.shards, -1, *x.shape[1:])

    def join(x):
        return x.reshape(-1, *x.shape[2:])

    result, drawn = compiled(head)(*jax.tree.map(split, (samples, by_row)), rest)
    gradients = jax.tree.map(join, result.gradients._replace(bias=None))
    every_bias = result.gradients.bias
    gradients = gradients._replace(bias=join(every_bias) if head.by_class else every_bias[0])
    first = jax.tree.map(lambda x: x[0], result._replace(gradients=None))
    return first._replace(gradients=gradients), join(drawn)


@functools.cache
def compiled(head):
    """The compiled head: (samples, classes, rest) -> (Result, drawn classes)."""
    device = functools.partial(on_device, head)
    devices = jax.devices()[: head.shards]
    if head.mode == "pmap":
        return jax.pmap(device, AXIS, in_axes=(0, 0, None), devices=devices)
    gradient_specs = Gradients(P(AXIS), P(AXIS), P(AXIS) if head.by_class else P())
    relative = Relative(P(AXIS), P(AXIS)) if head.relative else None
    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(devices), (AXIS,)),
        in_specs=(P(AXIS), P(AXIS), P()),
        out_specs=(Result(P(), gradient_specs, P(), P(), relative), P(AXIS)),
        check_vma=False,
    )
    return jax.jit(mapped)


def on_device(head, samples, classes, rest):
    """The loss of one device, with gradients of all its rows, and which rows took part."""
    loss = losses.LOSSES[head.loss](**dict(head.fixed), **rest["varied"])
    loss = dataclasses.replace(loss, pair_whisker=head.pair_whisker, relative=head.relative)
    loss = with_gathered(loss, samples["draws"]) if loss.draws else loss
    bias = classes["bias"] if head.by_class else rest["bias"]
    start, valid = owned_classes(head.num_classes, head.rows)
    chosen = chosen_rows(head, samples, classes, rest, valid)
    prototypes = Prototypes(classes["weight"], bias, valid)
    if chosen is not None:
        prototypes = Prototypes(
            classes["weight"][chosen.row], bias[chosen.row] if head.by_class else bias, chosen.valid
        )
    shard = Shard(prototypes, start, head.rows, chosen)
    result = loss_and_gradients(
        loss, shard, gather(samples["features"], samples["labels"]), rest["statistics"],
        Products(head.block, head.product_dtype),
    )  # fmt: skip
    if chosen is None:
        return result, valid
    target = jnp.where(chosen.valid, chosen.row, head.rows)

    def spread(x):
        return jnp.zeros((head.rows, *x.shape[1:]), x.dtype).at[target].set(x, mode="drop")

    gradients = result.gradients._replace(weight=spread(result.gradients.weight))
    if head.by_class:
        gradients = gradients._replace(bias=spread(gradients.bias))
    return result._replace(gradients=gradients), spread(jnp.ones(target.shape, bool))


def chosen_rows(head, samples, classes, rest, valid):
    """The subset of a device's rows: given, drawn, or None for all."""
    if head.subset == "given":
        index = jnp.where(classes["taken"] & valid, jnp.arange(head.rows), head.rows)
        index = jnp.sort(index).astype(jnp.int32)
        return Subset(jnp.minimum(index, head.rows - 1), index < head.rows)
    if head.subset:
        labels = samples["labels"]
        return sample_classes(rest["key"], labels, head.num_classes, head.rows, head.subset)
    return None
