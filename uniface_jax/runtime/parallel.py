"""Runs a per-device function on all devices: jax.pmap in one process, jax.shard_map over many.

A training state has three forms. The logical one: plain host arrays, class-sharded ones [C, ...].
The placed one is what a runner's step takes and gives: class-sharded arrays are padded to
n*ceil(C/n) rows and split over the devices, all others are replicated; pmap keeps every placed
array as [n, ...]. The global one is what checkpoints take and give: one jax.Array each, padded and
split as the placed ones, in the same form for both runners. shard_map's placed arrays are global.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from typing_extensions import override

from uniface_jax.errors import UserError
from uniface_jax.runtime import kept_memory
from uniface_jax.runtime.xla_flags import compiler_options

AXIS = "devices"  # the one named axis of the project: every device of every process

Tree = Any
Layout = tuple[PartitionSpec, ...]  # of each array of a state
Step = Callable[[Tree, Mapping[str, jax.Array]], tuple[Tree, Mapping[str, jax.Array]]]


class Runner(ABC):
    """Runs a per-device step `(state, batch) -> (state, metrics)` on a mesh of devices.

    `sharded` is a tree of bool of the state's form: which arrays are split by class (axis 0).
    Metrics come out as scalars, the same on all devices. The state given to a step is donated.
    """

    def __init__(self, sharded: Tree, devices: list[jax.Device] | None = None) -> None:
        self.devices = list(devices or jax.devices())
        self.mesh = Mesh(np.array(self.devices), (AXIS,))
        self.sharded = sharded
        self._classes: Tree = None

    @property
    def num_devices(self) -> int:
        """Return the number of devices of all processes."""
        return len(self.devices)

    def place(self, state: Tree) -> Tree:
        """Place a logical state. Every process gives the same."""
        self._classes = jax.tree.map(lambda x: np.shape(x)[:1], state)
        return jax.tree.map(self._place, state, self.sharded)

    def logical(self, state: Tree) -> Tree:
        """Fetch a placed state as logical: host arrays without padding, in every process."""
        return jax.tree.map(self._fetch, state, self.sharded, self._classes)

    def host(self, tree: Tree) -> Tree:
        """Copy to the host a part of the placed state in which nothing is split by class."""
        return jax.tree.map(lambda x: self._fetch(x, False, ()), tree)

    def template(self, abstract: Tree) -> Tree:
        """Return shapes, dtypes and shardings of the global layout of a logical state's shapes."""
        self._classes = jax.tree.map(lambda x: x.shape[:1], abstract)

        def describe(x: Any, sharded: bool) -> jax.ShapeDtypeStruct:
            shape, spec = x.shape, PartitionSpec()
            if sharded:
                rows = x.shape[0] + -x.shape[0] % self.num_devices
                shape, spec = (rows, *x.shape[1:]), PartitionSpec(AXIS)
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=NamedSharding(self.mesh, spec))

        return jax.tree.map(describe, abstract, self.sharded)

    @abstractmethod
    def to_global(self, state: Tree) -> Tree:
        """Turn a placed state into a global one. Shards stay on their devices."""

    @abstractmethod
    def from_global(self, state: Tree) -> Tree:
        """Turn a global state into a placed one. Shards stay on their devices."""

    @abstractmethod
    def compile(self, step: Step) -> Step:
        """Return the step on all devices, compiled at its first call."""

    @abstractmethod
    def put(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, jax.Array]:
        """Put the local part [B_local, ...] of a global batch onto this process's devices."""

    @abstractmethod
    def _place(self, x: Any, sharded: bool) -> jax.Array: ...

    @abstractmethod
    def _fetch(self, x: jax.Array, sharded: bool, classes: tuple[int, ...]) -> np.ndarray: ...

    def _padded(self, x: Any) -> np.ndarray:
        rows = np.shape(x)[0]
        filler = -rows % self.num_devices
        return np.pad(np.asarray(x), [(0, filler)] + [(0, 0)] * (np.ndim(x) - 1))

    def _put_global(self, x: np.ndarray, spec: PartitionSpec) -> jax.Array:
        sharding = NamedSharding(self.mesh, spec)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def compiled_for(step: Any, *arguments: Any) -> Step:
    """Compile a runner's step now, for arguments of these shapes and no others.

    What the compiler took and has freed, hundreds of megabytes, is given back to the system where
    the C library can: before the step takes its own memory, not beside it.
    """
    compiled: Step = step.lower(*arguments).compile()
    kept_memory.give_back()
    return compiled


class ShardMapRunner(Runner):
    """Runs the step by jax.shard_map: global arrays, any number of processes."""

    @override
    def compile(self, step: Step) -> Step:
        specs = jax.tree.map(
            lambda split: PartitionSpec(AXIS) if split else PartitionSpec(), self.sharded
        )
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(specs, PartitionSpec(AXIS)),
            out_specs=(specs, PartitionSpec()),
            # The step reduces by hand; the checker cannot see that its results agree.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0, compiler_options=compiler_options())

    @override
    def put(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, jax.Array]:
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return {
            key: jax.make_array_from_process_local_data(sharding, value)
            for key, value in batch.items()
        }

    @override
    def to_global(self, state: Tree) -> Tree:
        return state

    @override
    def from_global(self, state: Tree) -> Tree:
        return state

    @override
    def _place(self, x: Any, sharded: bool) -> jax.Array:
        if sharded:
            return self._put_global(self._padded(x), PartitionSpec(AXIS))
        return self._put_global(np.asarray(x), PartitionSpec())

    @override
    def _fetch(self, x: jax.Array, sharded: bool, classes: tuple[int, ...]) -> np.ndarray:
        if not sharded:
            return np.asarray(x.addressable_data(0))
        whole = x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(whole)[: classes[0]]


def _on_each_device(
    change: Callable[[jax.Array], jax.Array],
    arrays: list[jax.Array],
    mesh: Mesh,
    before: Layout,
    after: Layout,
) -> list[jax.Array]:
    """Change what each device has of the arrays, whose layout changes so; nothing is sent."""
    changed: Callable[..., list[jax.Array]] = jax.shard_map(
        lambda mine: [change(x) for x in mine],
        mesh=mesh,
        in_specs=(list(before),),
        out_specs=list(after),
        check_vma=False,
    )
    return changed(arrays)


# One program for all arrays: by themselves they are one for each shape and device.
@partial(jax.jit, static_argnums=(1, 2, 3))
def _without_axis(
    arrays: list[jax.Array], mesh: Mesh, stacked: Layout, whole: Layout
) -> list[jax.Array]:
    return _on_each_device(lambda x: jnp.squeeze(x, 0), arrays, mesh, stacked, whole)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _with_axis(
    arrays: list[jax.Array], mesh: Mesh, stacked: Layout, whole: Layout
) -> list[jax.Array]:
    return _on_each_device(lambda x: x[None], arrays, mesh, whole, stacked)


class PmapRunner(Runner):
    """Runs the step by jax.pmap: arrays [n, ...], one process."""

    @override
    def compile(self, step: Step) -> Step:
        compiled: Step = jax.pmap(
            step, AXIS, in_axes=(0, 0), out_axes=(0, None), devices=self.devices, donate_argnums=0
        )
        return compiled

    @override
    def put(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, jax.Array]:
        stacked = {
            key: value.reshape(self.num_devices, -1, *value.shape[1:])
            for key, value in batch.items()
        }
        # In one call, which costs more than what it does.
        placed: dict[str, jax.Array] = self._put_stacked(stacked)
        return placed

    @override
    def to_global(self, state: Tree) -> Tree:
        # [n, S, ...] becomes [n*S, ...], and replicated [n, ...] becomes [...].
        leaves, form = jax.tree.flatten(state)
        return jax.tree.unflatten(form, _without_axis(leaves, self.mesh, *self._layouts()))

    @override
    def from_global(self, state: Tree) -> Tree:
        # [n*S, ...] becomes [n, S, ...]; the others are replicated as [n, ...].
        leaves, form = jax.tree.flatten(state)
        return jax.tree.unflatten(form, _with_axis(leaves, self.mesh, *self._layouts()))

    def _layouts(self) -> tuple[Layout, Layout]:
        """Return how the arrays of a state are laid out with the axis of devices, and without."""
        split, leaves = PartitionSpec(AXIS), jax.tree.leaves(self.sharded)
        whole = tuple(split if sharded else PartitionSpec() for sharded in leaves)
        return (split,) * len(leaves), whole

    def _put_stacked(self, tree: Tree) -> Tree:
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(AXIS)))

    @override
    def _place(self, x: Any, sharded: bool) -> jax.Array:
        if sharded:
            padded = self._padded(x)
            stacked = padded.reshape(self.num_devices, -1, *padded.shape[1:])
        else:
            stacked = np.broadcast_to(x, (self.num_devices, *np.shape(x)))
        placed: jax.Array = self._put_stacked(stacked)
        return placed

    @override
    def _fetch(self, x: jax.Array, sharded: bool, classes: tuple[int, ...]) -> np.ndarray:
        if not sharded:
            replicated: np.ndarray = np.asarray(x.addressable_data(0))[0]
            return replicated
        return np.asarray(x).reshape(-1, *x.shape[2:])[: classes[0]]


def create_runner(mode: str, sharded: Tree, devices: list[jax.Device] | None = None) -> Runner:
    """Create the runner of `mode`: "pmap", "shard_map", or "auto", pmap for one process alone.

    "auto" is shard_map in several processes. Raises UserError for another mode, or for pmap in
    several processes.
    """
    several = jax.process_count() > 1
    if mode == "auto":
        mode = "shard_map" if several else "pmap"
    if mode == "shard_map":
        return ShardMapRunner(sharded, devices)
    if mode == "pmap" and not several:
        return PmapRunner(sharded, devices)
    raise UserError(
        f"parallel={mode!r} with {jax.process_count()} processes: allowed are auto, shard_map"
        + ("" if several else ", pmap")
    )
