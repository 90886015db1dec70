"""Predicts what a step needs on each device: the compiler's account of small probes, and formulas.

What the network needs within a step grows evenly with the images and with the blocks of each
stage. So the compiler is asked about networks with one and two blocks a stage and hardly a head,
which takes seconds where a ResNet-200 takes minutes, and the rest is a sum. Weights, momentum,
prototypes and the head's working arrays follow from shapes (scripts/table_head_memory.py compares
the latter with the compiler). `compiled_memory` of program.py is what predictions are held against.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.head.block_size import even_block, working_bytes
from uniface_jax.head.shards import shard_size
from uniface_jax.models import IMAGE_SIZE, IResNet
from uniface_jax.plan.program import compiled_memory, settings_of, state_shapes
from uniface_jax.state import TrainState

FLOAT = 4
IMAGE = IMAGE_SIZE * IMAGE_SIZE * 3 + FLOAT  # bytes of an image and its label
PROBE_CLASSES = 8  # hardly a head
MIN_PROBE = 8  # images; below, weights rather than activations decide
PREFETCHED = 2  # batches that training holds on the device beside the one in work


class NetworkMemory(NamedTuple):
    """Bytes that the network needs within a step: constant + slope * images of a micro-batch."""

    constant: float
    slope: float

    def __call__(self, images: int) -> float:
        """For so many images in each device's micro-batch."""
        return self.constant + self.slope * images


class Needs(NamedTuple):
    """Bytes on each device. Those before `activations` last from step to step."""

    network: int  # parameters and running statistics
    network_momentum: int
    prototypes: int
    prototype_momentum: int
    batches: int  # images: the batch in work and those ahead of it
    activations: int  # what the network needs within a step, its gradients among it
    prototype_gradients: int
    head_tiles: int  # of the block of classes in work
    decayed: int  # with sampled classes: all prototypes after weight decay, which are ready early

    @property
    def total(self) -> int:
        """What has to fit."""
        return sum(self)


def probe_network(
    config: ConfigDict,
    progress: Callable[[str], None] = lambda text: None,
    known: dict[str, int] | None = None,
) -> NetworkMemory:
    """Asks the compiler about shallow networks; `config` is of one device.

    It gives model, micro_batches and the number of images: of batch_size / micro_batches. `known`
    collects answers by question, so that networks that differ in depth alone are asked about once.
    """
    known = {} if known is None else known
    images = max(config.batch_size // config.micro_batches, MIN_PROBE)
    whole = configs.create_network(config)
    # A network from outside has no depth that is known here, and is asked about as it is.
    depths = tuple(whole.stage_sizes) if isinstance(whole, IResNet) else ()

    def working(stages: tuple[int, ...], images: int) -> int:
        probe = config.copy_and_resolve_references()
        probe.model.stage_sizes = stages or None
        probe.micro_batches = min(config.micro_batches, 2)
        probe.batch_size = images * probe.micro_batches
        probe.loss, probe.head.sampling_rate = configs.base().loss, 1.0
        network = configs.create_network(probe)
        question = f"{network} {images} {probe.micro_batches}"
        if question not in known:
            shape = f"{'-'.join(map(str, stages))} blocks" if stages else config.model.name
            progress(f"{shape}, {images} images")
            known[question] = compiled_memory(probe, PROBE_CLASSES, 1).working
        return known[question]

    base = (1,) * len(depths)
    small, large = working(base, images), working(base, 2 * images)
    slope = (large - small) / images
    constant = small - slope * images
    for stage in range(len(depths)):
        more = depths[stage] - base[stage]
        if more:
            deeper = tuple(size + (index == stage) for index, size in enumerate(base))
            slope += more * (working(deeper, images) - small) / images
    return NetworkMemory(constant, slope)


def predict(
    config: ConfigDict,
    num_classes: int,
    devices: int,
    network: NetworkMemory,
    state: TrainState | None = None,
) -> Needs:
    """The needs of `config` on each of `devices`, given the probes of its network.

    state: state_shapes(config, num_classes), where they are known already.
    """
    state = state or state_shapes(config, num_classes)
    parameters = _bytes(state.weights.network)
    rows = shard_size(num_classes, devices)
    width = config.model.embedding_size
    shard = FLOAT * rows * (width + state.weights.bias.ndim)
    batch = config.batch_size // devices
    group = config.batch_size // config.micro_batches
    gradients, tiles = _head(config, num_classes, rows, group)
    return Needs(
        network=parameters + _bytes(state.batch_stats),
        network_momentum=parameters,
        prototypes=shard,
        prototype_momentum=shard,
        batches=(1 + PREFETCHED) * batch * IMAGE,
        activations=round(network(batch // config.micro_batches)),
        prototype_gradients=gradients,
        head_tiles=tiles,
        decayed=FLOAT * rows * width if config.head.sampling_rate < 1 else 0,
    )


def _head(config: ConfigDict, num_classes: int, rows: int, group: int) -> tuple[int, int]:
    """Bytes of the prototypes' gradients, and of what the loss works in; group: samples at once."""
    width = config.model.embedding_size
    chosen, copies = rows, 1
    if config.head.sampling_rate < 1:
        most = max(int(rows * config.head.sampling_rate), config.batch_size, 1)
        chosen, copies = min(rows, most), 2  # the rows are gathered first
    if config.micro_batches > 1:
        copies += 1  # the sum over the micro-batches
    block = even_block(chosen, settings_of(config, num_classes).block_size)
    return FLOAT * copies * chosen * width, working_bytes(group, width, chosen, block)


def largest(allowed: Callable[[int], bool], most: int) -> int:
    """The largest n of 0..most with allowed(n), which holds up to some n and then no more."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if allowed(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _bytes(tree: object) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
