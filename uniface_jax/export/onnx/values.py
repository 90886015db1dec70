"""Values that the rules of rules.py and shape_rules.py take and give."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uniface_jax.export.onnx.graph import Node, Reshape

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Flat:
    """x [1, …, C] as [1, … * C]: in NCHW another order, which a linear layer undoes.

    reshaped: the same, for all other rules.
    """

    x: Node
    reshaped: Reshape


Value = np.ndarray | Node | Flat
Rule = Callable[..., Value | None]


def materialized(value: Value) -> np.ndarray | Node:
    """Return the value without Flat, for all rules but that of a linear layer."""
    return value.reshaped if isinstance(value, Flat) else value
