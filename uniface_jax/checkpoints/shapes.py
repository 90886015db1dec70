"""Shapes of trees of arrays, compared by the names of their arrays."""

from typing import Any

import jax
import numpy as np

Tree = Any


def first_other_shape(found: Tree, wanted: Tree) -> tuple[str, Any, Any] | None:
    """Find the first array by name whose shape differs: (name, found, wanted).

    The shape of an array that is missing is "none". None where all agree.
    """
    ours, theirs = (
        {
            jax.tree_util.keystr(path): np.shape(x)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (found, wanted)
    )
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return name, ours.get(name, "none"), theirs.get(name, "none")
    return None
