"""Predicts what a step needs on each device: the compiler's account of small probes, and formulas.

What the network needs within a step grows evenly with the images and with the blocks of each
stage. So the compiler is asked about networks with one and two blocks a stage and hardly a head,
which takes seconds where a ResNet-200 takes minutes, and the rest is a sum. Weights, momentum,
prototypes and the head's working arrays follow from shapes (scripts/table_head_memory.py compares
the latter with the compiler). `compiled_memory` of program.py is what predictions are held against.
For an accelerator by name, the arrays of the traced step are followed instead (liveness.py), since
CPUs widen bfloat16 and fuse otherwise.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from uniface_jax import config as configs
from uniface_jax.head.block_size import even_block, working_bytes
from uniface_jax.head.shards import shard_size
from uniface_jax.models import IMAGE_SIZE, IResNet, ViT
from uniface_jax.plan import liveness
from uniface_jax.plan.program import compiled_memory, planned, trace
from uniface_jax.plan.targets import Target
from uniface_jax.state import TrainState, Weights, class_sharded
from uniface_jax.train.adaptive import BLOCK_ARRAYS, BLOCK_ELEMENTS
from uniface_jax.train.from_config import Recipe

FLOAT_BYTES = 4
IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3 + FLOAT_BYTES  # and its label
PROBE_CLASSES = 8  # hardly a head
MIN_PROBE_IMAGES = 8  # below, weights rather than activations decide
PREFETCHED_BATCHES = 2  # batches that training holds on the device beside the one in work


class NetworkMemory(NamedTuple):
    """Bytes that the network needs within a step: constant + slope * images of a micro-batch."""

    constant: float
    slope: float

    def __call__(self, images: int) -> float:
        """Return the memory for so many images in each device's micro-batch."""
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
    decayed: int  # with SGD and sampled classes: all prototypes after weight decay, ready early
    average: int  # of the network's weights and statistics, which lasts as well
    memory: int  # of features, for a loss between samples, which lasts too; and its sampled rows

    @property
    def total(self) -> int:
        """Return the bytes that have to fit."""
        return sum(self)


def probe_network(
    recipe: Recipe,
    devices: int,
    progress: Callable[[str], None] = lambda text: None,
    known: dict[str, int] | None = None,
) -> NetworkMemory:
    """Ask the compiler about shallow networks, with what one of `devices` has of the batch.

    `known` collects answers by question, so that networks that differ in depth alone are asked
    about once.
    """
    known = {} if known is None else known
    config, network = recipe.config, recipe.network
    images = max(recipe.batch_norm_group(devices), MIN_PROBE_IMAGES)
    # Others have no depth that is known here, or little, and are asked about as they are.
    depths = tuple(network.stage_sizes) if isinstance(network, IResNet) else ()
    if isinstance(network, ViT):
        depths = (network.depth,)
    probes, asked = 2 + sum(depth > 1 for depth in depths), itertools.count(1)

    def working(stages: tuple[int, ...], images: int) -> int:
        probe = config.copy_and_resolve_references()
        if isinstance(network, ViT):
            probe.model.vit.update(depth=stages[0], attention="einsum")  # which CPUs compile
        else:
            probe.model.stage_sizes = stages or None
        probe.micro_batches = min(config.micro_batches, 2)
        probe.batch_size = images * probe.micro_batches
        probe.loss, probe.head.sampling_rate = configs.base().loss, 1.0
        number = next(asked)
        question = f"{configs.create_network(probe)} {images} {probe.micro_batches}"
        if question not in known:
            shape = f"{'-'.join(map(str, stages))} blocks" if stages else config.model.name
            progress(f"compiling probe {number} of {probes}: {shape}, {images} images")
            shallow = planned(probe, recipe.num_images, PROBE_CLASSES)
            known[question] = compiled_memory(shallow, 1).working
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


def traced_network(recipe: Recipe, target: Target, jaxpr: Any) -> NetworkMemory:
    """Return the network's part of what the traced step works in, on each device of a target.

    jaxpr: the step as program.trace gives it. A second one, of twice the images, tells what grows
    with them. A GPU's products have the workspace of cuBLAS beside them.
    """
    devices, images = target.devices, recipe.batch_norm_group(target.devices)
    tpu = liveness.TPU._replace(on_chip=target.card.on_chip)
    compiler = liveness.GPU if target.is_gpu else tpu

    def part(recipe: Recipe, jaxpr: Any) -> int:
        working = liveness.working_bytes(jaxpr, compiler) + target.card.workspace
        return working - _of_the_head(recipe, devices)

    double = recipe.with_batch_size(2 * recipe.config.batch_size)
    small, large = part(recipe, jaxpr), part(double, trace(double, devices))
    slope = (large - small) / images
    return NetworkMemory(small - slope * images, slope)


def network_of(recipe: Recipe, devices: int, working: int) -> NetworkMemory:
    """Return the network's part of the bytes that the compiled step works in, all by images."""
    part = max(working - _of_the_head(recipe, devices), 0)
    return NetworkMemory(0.0, part / recipe.batch_norm_group(devices))


def _of_the_head(recipe: Recipe, devices: int) -> int:
    """Return the bytes that the head works in."""
    head = predict(recipe, devices, NetworkMemory(0.0, 0.0))
    rows, width = shard_size(recipe.num_classes, devices), recipe.config.model.embedding_size
    gathered = 0 if recipe.shapes.memory is None else FLOAT_BYTES * width * _sampled(recipe, rows)
    return head.prototype_gradients + head.head_tiles + head.decayed + gathered


def predict(recipe: Recipe, devices: int, network: NetworkMemory) -> Needs:
    """Return the needs of `recipe` on each of `devices`, given the probes of its network."""
    config, state = recipe.config, recipe.shapes
    parameters = _bytes(state.weights.network)
    rows = shard_size(recipe.num_classes, devices)
    shard = FLOAT_BYTES * rows * (_prototype_floats(state) + state.weights.bias.ndim)
    moments, sgd = _moments(state), recipe.settings.adaptive is None
    gradients, tiles = _head(recipe, rows)
    return Needs(
        network=parameters + _bytes(state.batch_stats),
        network_momentum=moments.network,
        prototypes=shard,
        prototype_momentum=rows * moments.prototypes,
        batches=(1 + PREFETCHED_BATCHES) * (config.batch_size // devices) * IMAGE_BYTES,
        activations=round(network(recipe.batch_norm_group(devices))),
        prototype_gradients=gradients,
        head_tiles=tiles if sgd else max(tiles, FLOAT_BYTES * BLOCK_ARRAYS * BLOCK_ELEMENTS),
        decayed=FLOAT_BYTES * rows * _prototype_floats(state)
        if sgd and config.head.sampling_rate < 1
        else 0,
        average=_bytes(state.average),
        memory=0
        if state.memory is None
        else FLOAT_BYTES * config.model.embedding_size * (rows + _sampled(recipe, rows)),
    )


def _prototype_floats(state: TrainState) -> int:
    """Return the numbers in a class's prototype, or in its several."""
    return math.prod(state.weights.prototypes.shape[1:])


def _moments(state: TrainState) -> Weights:
    """Return the bytes of the optimizer's moments and counts: of the network, and of one class."""
    found, by_class = Weights(0, 0, 0), class_sharded(state)
    for name in ("momentum", "second_moments", "updates"):
        tree, marks = getattr(state, name), getattr(by_class, name)
        if tree is not None:
            heads = zip(tree[1:], marks[1:], strict=True)
            row = sum(_bytes(x) // x.shape[0] for x, split in heads if split)
            found = Weights(found.network + _bytes(tree.network), found.prototypes + row, 0)
    return found


def _head(recipe: Recipe, rows: int) -> tuple[int, int]:
    """Return the bytes of the prototypes' gradients, and of what the loss works in."""
    config, settings = recipe.config, recipe.settings
    width, samples = config.model.embedding_size, config.batch_size // settings.micro_batches
    sampled = _sampled(recipe, rows)
    chosen, copies = (sampled, 2) if sampled else (rows, 1)  # sampled rows are gathered first
    if settings.micro_batches > 1:
        copies += 1  # the sum over the micro-batches
    block = even_block(chosen, settings.block_size)
    several = config.head.subcentres
    tiles = working_bytes(samples, width, chosen * several, block * several)
    return FLOAT_BYTES * copies * chosen * several * width, tiles


def _sampled(recipe: Recipe, rows: int) -> int:
    """Return how many of a device's rows are drawn for a step; 0 where all of them take part."""
    rate, batch = recipe.settings.sampling_rate, int(recipe.config.batch_size)
    return min(rows, max(int(rows * rate), batch, 1)) if rate < 1 else 0


def largest(allowed: Callable[[int], bool], most: int) -> int:
    """Return the largest n of 0..most with allowed(n), true up to some n and then no more."""
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
