"""The training step of a config as a program: traced or compiled for devices that are not there.

Nothing here takes the memory that it talks about: arrays are shapes, and a compiled program is
asked for its memory and never run. One CPU process can have any number of virtual devices. The
kernels that programs for CPUs may have (uniface_jax.native) are left out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.head.shards import shard_size
from uniface_jax.models import IMAGE_SIZE
from uniface_jax.native import build
from uniface_jax.runtime.parallel import AXIS, ShardMapRunner
from uniface_jax.state import TrainState, class_sharded
from uniface_jax.train import step as steps
from uniface_jax.train.from_config import Plan, abstract_state, create_schedule, create_settings

Tree = Any
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
        """What has to fit."""
        return self.held + self.working


def for_accelerators(config: ConfigDict) -> ConfigDict:
    """A copy in which what depends on the kind of device is what it is on accelerators."""
    copy = config.copy_and_resolve_references()
    if copy.head.block_memory is None:
        copy.head.block_memory = ACCELERATOR_BLOCK
    return copy


def state_shapes(config: ConfigDict, num_classes: int) -> TrainState:
    """The logical state's shapes and dtypes."""
    return abstract_state(config, configs.create_network(config), num_classes)


def settings_of(config: ConfigDict, num_classes: int) -> steps.Settings:
    """The step's settings, with micro-batches in a loop as on accelerators."""
    return create_settings(config, num_classes)._replace(unrolled=False)


def _step(config: ConfigDict, num_classes: int) -> Any:
    network, loss = configs.create_network(config), configs.create_loss(config)
    # The schedule's length changes a constant in the program.
    schedule = create_schedule(config, Plan(1000.0, 20000))
    return steps.make_step(network, loss, schedule, settings_of(config, num_classes))


def _batch(images: int, **placed: Any) -> Mapping[str, jax.ShapeDtypeStruct]:
    shape = (images, IMAGE_SIZE, IMAGE_SIZE, 3)
    return {
        "image": jax.ShapeDtypeStruct(shape, jnp.uint8, **placed),
        "label": jax.ShapeDtypeStruct((images,), jnp.int32, **placed),
    }


def trace(config: ConfigDict, num_classes: int, devices: int) -> Any:
    """The jaxpr of one device's step among `devices`; collectives name the axis AXIS."""
    state = state_shapes(config, num_classes)
    rows = shard_size(num_classes, devices)

    def mine(x: jax.ShapeDtypeStruct, split: bool) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) if split else x

    placed = jax.tree.map(mine, state, class_sharded(state))
    make = jax.make_jaxpr(_step(config, num_classes), axis_env=[(AXIS, devices)])
    with build.off():
        return make(placed, _batch(config.batch_size // devices)).jaxpr


def compiled_memory(config: ConfigDict, num_classes: int, devices: int) -> CompiledMemory:
    """Compiles the step for the first `devices` (virtual) devices of this process."""
    state = state_shapes(config, num_classes)
    sharded = class_sharded(state)
    runner = ShardMapRunner(sharded, jax.devices()[:devices])
    arguments = runner.template(state)
    step: Any = runner.compile(_step(config, num_classes))
    batch = _batch(config.batch_size, sharding=NamedSharding(runner.mesh, PartitionSpec(AXIS)))
    with build.off():
        analysis = step.lower(arguments, batch).compile().memory_analysis()
    new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return CompiledMemory(analysis.argument_size_in_bytes + new, analysis.temp_size_in_bytes)
