"""The few operations that a traced network consists of, between the jaxpr and ONNX.

A graph is its output node; nodes are compared by identity. Shapes are JAX's at batch 1 ([1, H, W,
C] or [1, D]), constants are float64 numpy arrays, and per-channel vectors are [C].
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Node:
    """An array that depends on the input: its shape and the nodes that it is computed from."""

    shape: tuple[int, ...]
    inputs: tuple["Node", ...]


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The images."""


@dataclass(frozen=True, eq=False)
class Affine(Node):
    """A map scale * x + bias of each channel."""

    scale: np.ndarray  # [C]
    bias: np.ndarray  # [C]


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """A convolution of x with zero padding ((top, bottom), (left, right)), plus a bias."""

    kernel: np.ndarray  # [O, I / groups, kh, kw]
    bias: np.ndarray  # [O]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    groups: int


@dataclass(frozen=True, eq=False)
class PReLU(Node):
    """A PReLU: x where x >= 0, slope * x elsewhere."""

    slope: np.ndarray  # [C]


@dataclass(frozen=True, eq=False)
class Add(Node):
    """The sum of two nodes of one shape."""


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """A linear layer over all positions and channels of x: [1, H, W, C] or [1, C] -> [1, D]."""

    kernel: np.ndarray  # [H * W, C, D]; one position where x is [1, C]
    bias: np.ndarray  # [D]


def in_order(output: Node) -> list[Node]:
    """Return all nodes that `output` depends on, and itself, each after its inputs.

    Not recursive: a network of 200 layers is a chain longer than Python's recursion limit.
    """
    ordered: dict[Node, None] = {}
    pending = [output]
    while pending:
        missing = [node for node in pending[-1].inputs if node not in ordered]
        if missing:
            pending += missing
        else:
            ordered.setdefault(pending.pop())
    return list(ordered)
