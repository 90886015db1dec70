"""Heads beside a network: prototypes [C, D] under the names that training scripts give them.

arcface_torch splits the classes among its GPUs, each of which keeps its rows in a checkpoint of its
own: checkpoint_gpu_0.pt, checkpoint_gpu_1.pt, …
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.weights.names import RELEASE
from uniface_jax.weights.selection import State
from uniface_jax.weights.state_files import ARCFACE_HEAD

_KNOWN = (ARCFACE_HEAD, "partial_fc")  # the latter is CVLface's
_SHARD = re.compile(r"checkpoint_gpu_(\d+)(\.\w+)")
_LISTED = 4


class Part(NamedTuple):
    """A tensor of a head by its name: prototypes [C, D], or the bias [], [1] or [C]."""

    name: str
    place: str  # "prototypes" or "bias"
    array: np.ndarray


def head_state(
    family: str, prototypes: np.ndarray, bias: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return prototypes [C, D] and bias [], [C] or None by the names that `family` gives them.

    The release has them inside of its network, UCE's bias as [1] and BCE's as [1, C]. arcface_torch
    has no loss with a bias; beside its prototypes it is read here alone.
    """
    if family == RELEASE.name:
        state = {"loss.weight": prototypes}
        return state if bias is None else {**state, "loss.bias": bias.reshape(1, *bias.shape)}
    state = {f"{ARCFACE_HEAD}.weight": prototypes}
    return state if bias is None else {**state, f"{ARCFACE_HEAD}.bias": bias}


def is_known_head(module: str) -> bool:
    """Return True for a module that holds nothing but a head, by its name."""
    return module in _KNOWN


def find_head(beside: State, features: int, source: str) -> list[Part]:
    """Return the one head among the tensors that lie `beside` a network of `features` outputs.

    A head by a known name comes before others. Raises UserError where there is none, or several.
    """
    heads = dict(_heads(beside, features))
    known = [module for module in heads if is_known_head(module.rpartition(".")[2])]
    chosen = known or list(heads)
    if len(chosen) != 1:
        named = ", ".join(chosen[:_LISTED]) or "none"
        raise UserError(
            f"{source}: --with_head: expected one head of [classes, {features}] beside the network,"
            f" found {named}"
        )
    return heads[chosen[0]]


def _heads(beside: State, features: int) -> Iterator[tuple[str, list[Part]]]:
    """Yield (module, its head) for every module that has prototypes and is no optimizer's."""
    for name, array in beside.items():
        module, _, field = name.rpartition(".")
        if array.ndim != 2 or "optim" in module:
            continue
        rows = array.T if field == "kernel" else array  # [D, C], as AdaFace's code has it
        if rows.shape[1] != features or not len(rows):
            continue
        bias = beside.get(f"{module}.bias")
        parts = [Part(name, "prototypes", rows)]
        if bias is not None and bias.shape in ((), (1,), (len(rows),)):
            parts.append(Part(f"{module}.bias", "bias", bias))
        yield module or name, parts


def shards(source: Path) -> list[Path]:
    """Return the checkpoints of all GPUs of which `source` is the first's; itself for others.

    Raises UserError for that of another GPU, whose classes are not the first ones.
    """
    if not (match := _SHARD.fullmatch(source.name)):
        return [source]
    if match[1] != "0":
        first = f"checkpoint_gpu_0{match[2]}"
        raise UserError(
            f"{source}: --with_head: holds some classes of the head; give {first}, with the others "
            "beside it"
        )
    found = [source]
    while (path := source.with_name(f"checkpoint_gpu_{len(found)}{match[2]}")).exists():
        found.append(path)
    return found


def joined(states: list[tuple[Path, State]]) -> State:
    """Return the first state dict, with the rows of all shards in its head, in their order.

    Raises UserError that names the file whose rows are missing, or of another length.
    """
    if len(states) == 1:
        return states[0][1]
    name = f"{ARCFACE_HEAD}.weight"
    rows: list[np.ndarray] = []
    for path, state in states:
        array = state.get(name)
        width = rows[0].shape[1:] if rows else None
        if array is None or array.ndim != 2 or (width is not None and array.shape[1:] != width):
            found = "no such tensor" if array is None else f"shape {list(array.shape)}"
            raise UserError(f"{path}: {name}: {found}; expected rows as in {states[0][0].name}")
        rows.append(array)
    return {**states[0][1], name: np.concatenate(rows)}
