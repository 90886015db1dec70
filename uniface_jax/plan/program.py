"""Training step of a config as a program, traced or compiled for devices that are not there.

Nothing here takes the memory that it talks about: arrays are shapes, and a compiled program is
asked for its memory and never run. One CPU process can have any number of virtual devices. The
kernels that programs for CPUs may have (uniface_jax.native) are left out.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.data.formats.landmarks import POINTS
from uniface_jax.head.shards import shard_size
from uniface_jax.models import IMAGE_SIZE, takes_landmarks
from uniface_jax.native import build
from uniface_jax.plan.targets import GPUS, Target
from uniface_jax.runtime.parallel import AXIS, ShardMapRunner
from uniface_jax.runtime.xla_flags import never_run_options
from uniface_jax.state import class_sharded
from uniface_jax.train.from_config import Recipe, make_recipe

ACCELERATOR_BLOCK = 512.0  # MiB: what block_of_budget takes on accelerators where none is given


class CompiledMemory(NamedTuple):
    """Bytes on each device by the compiler's account.

    held: arguments and results that are no arguments given back (weights, momentum, the batch).
    working: whatever lives only within a step.
    """

    held: int
    working: int

    @property
    def total(self) -> int:
        """Return the bytes that have to fit."""
        return self.held + self.working


def for_accelerators(config: ConfigDict, gpu: bool) -> ConfigDict:
    """Return a copy with accelerators' choice of what depends on the kind of device.

    gpu: whether it is one, or another accelerator.
    """
    copy = configs.with_kernels(config, gpu).copy_and_resolve_references()
    if copy.head.block_memory is None:
        copy.head.block_memory = ACCELERATOR_BLOCK
    return copy


def planned(
    config: ConfigDict, num_images: int, num_classes: int, target: Target | None = None
) -> Recipe:
    """Return the recipe as accelerators run it: their block of classes, micro-batches in a loop.

    target: the accelerator, as far as that matters; None leaves the network plain.
    """
    gpu = target is not None and target.kind in GPUS
    recipe = make_recipe(for_accelerators(config, gpu), num_images, num_classes)
    return replace(recipe, settings=recipe.settings._replace(unrolled=False))


def _batch(recipe: Recipe, images: int, **placed: Any) -> Mapping[str, jax.ShapeDtypeStruct]:
    shape = (images, IMAGE_SIZE, IMAGE_SIZE, 3)
    batch = {
        "image": jax.ShapeDtypeStruct(shape, jnp.uint8, **placed),
        "label": jax.ShapeDtypeStruct((images,), jnp.int32, **placed),
    }
    if takes_landmarks(recipe.network):
        batch["landmarks"] = jax.ShapeDtypeStruct((images, POINTS, 2), jnp.float32, **placed)
    if recipe.settings.distillation:  # features as long as the network's: the teacher isn't opened
        features = (images, recipe.network.embedding_size)
        batch["teacher"] = jax.ShapeDtypeStruct(features, jnp.float32, **placed)
    return batch


def trace(recipe: Recipe, devices: int) -> Any:
    """Return the jaxpr of one device's step among `devices`; collectives name the axis AXIS."""
    rows = shard_size(recipe.num_classes, devices)

    def mine(x: jax.ShapeDtypeStruct, split: bool) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) if split else x

    placed = jax.tree.map(mine, recipe.shapes, class_sharded(recipe.shapes))
    make = jax.make_jaxpr(recipe.make_step(), axis_env=[(AXIS, devices)])
    with build.off():
        return make(placed, _batch(recipe, recipe.config.batch_size // devices)).jaxpr


def lowered(recipe: Recipe, devices: list[jax.Device]) -> jax.stages.Lowered:
    """Return the step for these devices as their compiler takes it; as compiled().

    Programs for CPUs have the project's kernels unless the caller is within build.off().
    """
    runner = ShardMapRunner(class_sharded(recipe.shapes), devices)
    arguments = runner.template(recipe.shapes)
    step: Any = runner.compile(recipe.make_step())
    sharding = NamedSharding(runner.mesh, PartitionSpec(AXIS))
    batch = _batch(recipe, recipe.config.batch_size, sharding=sharding)
    found: jax.stages.Lowered = step.lower(arguments, batch)
    return found


def compiled(
    recipe: Recipe,
    devices: list[jax.Device],
    kernels: AbstractContextManager[object] | None = None,
    options: Mapping[str, Any] | None = None,
) -> jax.stages.Compiled:
    """Compile the step for these devices, which need not be there (topology.devices_of).

    kernels: the context of compiling; None leaves out the project's kernels for CPUs. options: of
    the compiler.
    """
    with kernels or build.off():
        program: jax.stages.Compiled = lowered(recipe, devices).compile(dict(options or {}))
    return program


def memory_of(program: jax.stages.Compiled, tpu: bool = False) -> CompiledMemory:
    """Return the bytes that a compiled step takes on each device.

    tpu: whether it is for one, whose account has the gaps between arrays twice: once in the memory
    that is taken, as its assignment of buffers shows, and once more beside it. What lives at the
    peak tells them; where the peak is that of the chip's own memory it does not, and the account is
    an upper bound.
    """
    analysis: Any = program.memory_analysis()
    held, working = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    live = analysis.peak_memory_in_bytes - held if tpu else working
    if live < working:
        working = (working + live) // 2
    new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return CompiledMemory(held + new, working)


def compiled_memory(
    recipe: Recipe, devices: int, kernels: AbstractContextManager[object] | None = None
) -> CompiledMemory:
    """Compile the step for the first `devices` (virtual) devices of this process; as compiled()."""
    options = never_run_options()
    return memory_of(compiled(recipe, jax.devices()[:devices], kernels, options))
