"""Finding the network inside of a checkpoint: what training scripts keep beside it stays behind.

A Lightning module or a DDP wrapper puts a prefix in front of the network's names; heads, losses and
averaged copies of the weights lie beside them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniface_jax.errors import UserError

State = Mapping[str, np.ndarray]

# Words in the prefix of a second, averaged copy of the weights.
_COPY = re.compile(r"ema|average|swa|teacher|momentum|target|shadow", re.IGNORECASE)
_MAX_NETWORKS = 16


@dataclass(frozen=True)
class Selection:
    """The tensors of one network by its own names, and those that lie elsewhere by theirs.

    prefix: what was taken from the network's names. copies: prefixes of other whole networks.
    """

    state: State
    prefix: str
    elsewhere: State
    copies: Sequence[str] = ()


def select_network(
    state: State, families: Sequence[Sequence[str]], source: str, prefix: str | None = None
) -> Selection:
    """Select the network among the tensors of a checkpoint.

    Args:
        state: all of them.
        families: for each kind of network the names that tell it; the first is where one is found.
        source: what errors call the file.
        prefix: of the names; None takes the one network there is, which is no averaged copy.

    Raises:
        UserError: several networks, or none of that prefix.
    """
    stems = {names[0] for names in families}
    found = {
        name.removesuffix(stem)
        for stem in stems
        for name in state
        if name == stem or name.endswith(f".{stem}")
    }
    prefixes = sorted(found, key=lambda prefix: (len(prefix), prefix))
    whole = [p for p in prefixes if any(all(p + n in state for n in f) for f in families)]
    shown = ", ".join(repr(p) for p in whole[:_MAX_NETWORKS])
    if prefix is not None:
        if prefix not in whole:
            raise UserError(
                f"{source}: prefix={prefix}: no network of that; found {shown or 'none'}"
            )
        return _selection(state, prefix, whole)
    own = [p for p in whole if not _COPY.search(p)] or whole
    if len(own) > 1:
        raise UserError(f"{source}: {len(own)} networks, at {shown}; choose one by --prefix")
    # Without any the shortest: what it lacks is told.
    return _selection(state, (own or prefixes or [""])[0], whole)


def is_head(tensors: State, features: int) -> bool:
    """Return True for tensors that classify features [D]: a matrix of D, or no more than a number.

    Those of one module, beside a network of `features` outputs. A square matrix may belong to the
    network itself.
    """
    arrays = tensors.values()
    if all(array.size <= 1 for array in arrays):
        return True
    return any(a.ndim == 2 and features in a.shape and a.shape[0] != a.shape[1] for a in arrays)


def _selection(state: State, prefix: str, whole: Sequence[str]) -> Selection:
    copies = [other for other in whole if other != prefix]
    inside, elsewhere = {}, {}
    for name, array in state.items():
        taken = name.startswith(prefix) and not any(
            name.startswith(other) for other in copies if other.startswith(prefix)
        )
        if taken:
            inside[name.removeprefix(prefix)] = array
        else:
            elsewhere[name] = array
    return Selection(inside, prefix, elsewhere, copies)
