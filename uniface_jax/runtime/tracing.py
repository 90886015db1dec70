"""Functions that JAX traces once for each shape of their arguments, not at every call.

A network's layers are alike, and JAX keeps a function's trace for as long as the function is there.
Those that are made anew for each layer, by functools.partial or inside of another function, it
traces anew for each layer.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import TypeVar

_T = TypeVar("_T")

# Functions kept, and with them their traces: a step's are some dozens.
_MOST = 1024

_kept = lru_cache(_MOST, typed=True)(partial)


def shared_partial(
    function: Callable[..., _T], *arguments: Hashable, **keywords: Hashable
) -> Callable[..., _T]:
    """Return functools.partial of these, the same object at every call.

    What the function reads is kept as it was when it was traced: whatever may change (a switch, a
    module's variable) has to be an argument. Raises TypeError for arrays, which cannot be hashed,
    and for a function that closes over variables, in which they would be kept.
    """
    if getattr(function, "__closure__", None):
        raise TypeError(f"{function} closes over variables: they have to be arguments")
    return _kept(function, *arguments, **keywords)
