"""Recognition of a network from the names and shapes of a PyTorch state dict, with its weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.models.iresnet import IResNet
from uniface_jax.weights.names import (
    INSIGHTFACE,
    RELEASE,
    Family,
    Slot,
    layout,
    torch_name,
)
from uniface_jax.weights.selection import State, is_head, select_network

Tree = dict[str, Any]

FAMILIES = (RELEASE, INSIGHTFACE)
LEFT_OUT = "left out: not of the network"
_HEAD = {"loss.weight": "prototypes", "loss.bias": "bias"}
_COUNTER = "num_batches_tracked"
_MOMENTUM = "loss.weight_mom"  # the release's head keeps the prototypes' momentum as a buffer


@dataclass(frozen=True)
class Imported:
    """A network out of a state dict.

    family: whose names the tensors have. model: what config.model is to hold. params and
    batch_stats: its variables. prototypes [C, D] and bias [] or [C]: of the head, None without one.
    tensors: of every tensor in the state dict its name, shape, dtype, and what it became. copies:
    prefixes of other whole networks in it.
    """

    family: str
    model: dict[str, Any]
    params: Tree
    batch_stats: Tree
    prototypes: np.ndarray | None
    bias: np.ndarray | None
    tensors: list[dict[str, Any]]
    copies: tuple[str, ...] = ()


def from_state(state: State, source: str, prefix: str | None = None) -> Imported:
    """Recognize the network whose weights `state` holds, from names and shapes.

    What lies beside the network is left out: other prefixes, an averaged copy of the weights, and
    modules beside its own that have the shapes of a head. Arrays keep their dtype; where nothing
    has to be permuted they are views.

    Args:
        state: tensors by name, which may share a prefix ("module.").
        source: what errors call the file.
        prefix: of the network's names; None finds it, see select_network.

    Raises:
        UserError: names the source and the tensor, for a network of another kind, a missing tensor,
            one that may belong to the network and has no place in it, a wrong shape, values that
            are not floating or not finite, and a last batch norm whose scale is not 1.
    """
    selected = select_network(state, [_marks(family) for family in FAMILIES], source, prefix)
    state = selected.state
    family, model = _recognized(state, source)
    network, slots = _fitting_stem(model, state)
    described = f"{family.name}'s {model['name']} of width {network.width}"
    missing = [name for name in slots if name not in state]
    if missing:
        raise UserError(f"{source}: {_some(missing)} missing; needed for {described}")
    variables: dict[str, Tree] = {"params": {}, "batch_stats": {}}
    head: dict[str, np.ndarray] = {}
    tensors, surplus = [], {}
    for name, array in state.items():
        if name in slots:
            slot = slots[name]
            _check_values(array, name, source)
            _check_shape(array, slot.shape, name, source, described)
            _put(variables[slot.collection], slot.path, slot.to_jax(array))
            place = slot.place
        elif name in _HEAD:
            _check_values(array, name, source)
            place = _HEAD[name]
            head[place] = array
        else:
            place = _dropped(name, array, family, source)
            if not place:
                surplus[name] = array
                continue
        tensors.append(_row(name, array, place))
    _check_left(surplus, slots, network.embedding_size, f"{source}: ", described)
    left = {selected.prefix + name: array for name, array in surplus.items()}
    tensors += [_row(n, array, LEFT_OUT) for n, array in {**left, **selected.elsewhere}.items()]
    prototypes, bias = _checked_head(head, network.embedding_size, source)
    return Imported(
        family=family.name,
        model=model,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        prototypes=prototypes,
        bias=bias,
        tensors=tensors,
        copies=tuple(selected.copies),
    )


def _row(name: str, array: np.ndarray, place: str) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "dtype": str(array.dtype), "to": place}


def _dropped(name: str, array: np.ndarray, family: Family, source: str) -> str:
    """Return why a tensor of the network's implementation has no place here, "" for others."""
    if name.endswith(_COUNTER):
        return "dropped: a counter that nothing here uses"
    if name == _MOMENTUM:
        return "dropped: momentum; training starts without any"
    if name == torch_name(family, ("bn5", "scale")):
        _check_values(array, name, source)
        _check_fixed_scale(array, name, source)
        return "dropped: 1 everywhere, as is fixed here"
    return ""


def _check_left(
    surplus: State, slots: Mapping[str, Slot], features: int, where: str, described: str
) -> None:
    """Raise UserError for tensors that may belong to the network: no module of a head's shapes."""
    own = {name.partition(".")[0] for name in slots}
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, array in surplus.items():
        modules.setdefault(name.partition(".")[0], {})[name] = array
    for module, tensors in modules.items():
        if module in own or not is_head(tensors, features):
            raise UserError(
                f"{where}{_some(list(tensors))} without a place in {described}, and no head of "
                f"{features} features"
            )


def _marks(family: Family) -> list[str]:
    """Return the names of tensors that tell a family."""
    return [
        "conv1.weight",
        torch_name(family, ("fc5", "kernel")),
        torch_name(family, ("bn5", "mean")),
        "layer1.0.prelu.weight",
    ]


def _recognized(state: State, source: str) -> tuple[Family, dict[str, Any]]:
    """Return the family, and config.model but for the stride of the stem."""
    stem = state["conv1.weight"].shape if "conv1.weight" in state else ()
    for family in FAMILIES:
        tail = torch_name(family, ("fc5", "kernel"))
        if (
            set(_marks(family)) <= state.keys()
            and stem[1:] == (3, 3, 3)
            and stem[0]
            and state[tail].size
        ):
            break
    else:
        names = ", ".join(list(state)[:3])
        raise UserError(
            f"{source}: not a network of this project ({len(state)} tensors: {names}, …); expected "
            "the release's LResNet-E-IR or insightface's iresnet"
        )
    blocks = [re.fullmatch(r"layer([1-4])\.(\d+)\.conv1\.weight", name) for name in state]
    stage_of_block = [match[1] for match in blocks if match]
    sizes = tuple(stage_of_block.count(stage) for stage in "1234")
    registered = [
        name
        for name, (_, stage_sizes) in models.NETWORKS.items()
        if name.startswith(family.networks) and stage_sizes == sizes
    ]
    return family, {
        "name": registered[0] if registered else f"{family.networks}50",
        "stage_sizes": None if registered else sizes,
        "width": stem[0],
        "embedding_size": state[tail].shape[0],
    }


def _fitting_stem(model: dict[str, Any], state: State) -> tuple[IResNet, dict[str, Slot]]:
    """Return the network whose stem gives the linear layer its size, entered into `model`.

    Where neither does it is the published one, and the linear layer's shape is the error.
    """
    for stride in (2, 1):
        model["stem_stride"] = stride
        network = models.create_iresnet(**model)
        slots = layout(network)
        tail = next(name for name, slot in slots.items() if slot.positions)
        if tail in state and state[tail].shape == slots[tail].shape:
            break
    return network, slots


def _check_shape(
    array: np.ndarray, shape: tuple[int, ...], name: str, source: str, described: str
) -> None:
    if array.shape != shape:
        raise UserError(
            f"{source}: {name} has shape {list(array.shape)}; in {described} it is {list(shape)}"
        )


def _check_values(array: np.ndarray, name: str, source: str) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{source}: {name} is {array.dtype}; expected floating point")
    if not np.isfinite(array).all():
        raise UserError(f"{source}: {name} holds values that are not finite")


def _check_fixed_scale(array: np.ndarray, name: str, source: str) -> None:
    if not (array == 1).all():
        raise UserError(
            f"{source}: {name} is {array.min():g} to {array.max():g}; the scale of the last batch "
            "norm is fixed at 1 in both families"
        )


def _checked_head(
    head: Mapping[str, np.ndarray], features: int, source: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return prototypes and bias: the release's [1] of UCE as [], its [1, C] of BCE as [C]."""
    prototypes, bias = head.get("prototypes"), head.get("bias")
    if prototypes is None:
        if bias is not None:
            raise UserError(f"{source}: loss.bias without loss.weight")
        return None, None
    if prototypes.ndim != 2 or prototypes.shape[1] != features:
        raise UserError(
            f"{source}: loss.weight has shape {list(prototypes.shape)}; expected "
            f"[classes, {features}]"
        )
    if bias is not None and bias.shape == (1, len(prototypes)):
        bias = bias[0]
    if bias is not None and bias.shape not in ((), (1,), prototypes.shape[:1]):
        raise UserError(
            f"{source}: loss.bias has shape {list(bias.shape)}; expected [1], "
            f"[{len(prototypes)}] or [1, {len(prototypes)}]"
        )
    return prototypes, bias.reshape(()) if bias is not None and bias.size == 1 else bias


def _put(tree: Tree, path: tuple[str, ...], value: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more} {'are' if more else 'is'}"
