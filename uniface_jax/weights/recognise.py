"""Recognition of a network from the names and shapes of a PyTorch state dict, with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.weights.heads import find_head, is_known_head
from uniface_jax.weights.kinds import KINDS, Found, filled, fixed_scale, recognized
from uniface_jax.weights.selection import State, is_head, select_network

Tree = dict[str, Any]

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


class _Taken(NamedTuple):
    """Tensors of a network and its own head, and `surplus`, those without a place."""

    variables: dict[str, Tree]
    head: dict[str, np.ndarray]
    rows: list[dict[str, Any]]
    surplus: dict[str, np.ndarray]


def from_state(
    state: State,
    source: str,
    prefix: str | None = None,
    *,
    heads: int | None = None,
    with_head: bool = False,
) -> Imported:
    """Recognize the network whose weights `state` holds, from names and shapes.

    What lies beside the network is left out: other prefixes, an averaged copy of the weights, and
    modules beside its own that have the shapes of a head. Arrays keep their dtype; where nothing
    has to be permuted they are views.

    Args:
        state: tensors by name, which may share a prefix ("module.").
        source: what errors call the file.
        prefix: of the network's names; None finds it, see select_network.
        heads: of a ViT's attention, which its weights do not tell; None takes those of the
            published network of these sizes.
        with_head: take a head that lies beside the network too, see heads.find_head. The release's,
            which is a part of its network, is always taken.

    Raises:
        UserError: names the source and the tensor, for a network of another kind, a missing tensor,
            one that may belong to the network and has no place in it, a wrong shape, values that
            are not floating or not finite, and a last batch norm whose scale is fixed and not 1.
    """
    selected = select_network(state, [kind.marks for kind in KINDS], source, prefix)
    found = recognized(selected.state, source, heads)
    taken, features = _taken(selected.state, found, source), found.network.embedding_size
    _check_left(taken.surplus, found, f"{source}: ")
    left = {selected.prefix + name: array for name, array in taken.surplus.items()}
    left |= selected.elsewhere
    head, rows = taken.head, list(taken.rows)
    if with_head and not head:
        copies = tuple(selected.copies)
        beside = {name: a for name, a in left.items() if not (copies and name.startswith(copies))}
        for name, place, array in find_head(beside, features, source):
            _check_values(array, name, source)
            head[place] = array
            rows.append(_row(name, left.pop(name), place))
    rows += [_row(name, array, LEFT_OUT) for name, array in left.items()]
    prototypes, bias = _checked_head(head, features, source)
    return Imported(
        family=found.family,
        model=found.model,
        params=taken.variables["params"],
        batch_stats=taken.variables["batch_stats"],
        prototypes=prototypes,
        bias=bias,
        tensors=rows,
        copies=tuple(selected.copies),
    )


def _taken(state: State, found: Found, source: str) -> _Taken:
    """Sort the tensors behind the network's prefix into their places."""
    values = filled(found, state)
    missing = [name for name in found.slots if name not in state and name not in values]
    if missing:
        raise UserError(f"{source}: {_some(missing)} missing; needed for {found.described}")
    taken = _Taken({"params": {}, "batch_stats": {}}, {}, [], {})
    for name, array in {**state, **values}.items():
        if name in found.slots:
            slot = found.slots[name]
            _check_values(array, name, source)
            _check_shape(array, slot.shape, name, source, found.described)
            _put(taken.variables[slot.collection], slot.path, slot.to_jax(array))
            place = slot.place
        elif name in _HEAD:
            _check_values(array, name, source)
            place = _HEAD[name]
            taken.head[place] = array
        elif not (place := _dropped(name, array, found, source)):
            taken.surplus[name] = array
            continue
        if name in state:
            taken.rows.append(_row(name, array, place))
    return taken


def _row(name: str, array: np.ndarray, place: str) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "dtype": str(array.dtype), "to": place}


def _dropped(name: str, array: np.ndarray, found: Found, source: str) -> str:
    """Return why a tensor of the network's implementation has no place here, "" for others."""
    if name.endswith(_COUNTER):
        return "dropped: a counter that nothing here uses"
    if name == _MOMENTUM:
        return "dropped: momentum; training starts without any"
    if name == fixed_scale(found):
        _check_values(array, name, source)
        _check_fixed_scale(array, name, source)
        return "dropped: 1 everywhere, as is fixed here"
    return ""


def _check_left(surplus: State, found: Found, where: str) -> None:
    """Raise UserError for tensors that may belong to the network: no module of a head's shapes."""
    features = found.network.embedding_size
    own = {name.partition(".")[0] for name in found.slots}
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, array in surplus.items():
        modules.setdefault(name.partition(".")[0], {})[name] = array
    for module, tensors in modules.items():
        head = is_known_head(module) or is_head(tensors, features)
        if module in own or not head:
            raise UserError(
                f"{where}{_some(list(tensors))} without a place in {found.described}, and no head "
                f"of {features} features"
            )


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
