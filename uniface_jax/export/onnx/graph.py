"""Graph of the few operations that a traced network consists of, between the jaxpr and ONNX.

A graph is its output node; nodes are compared by identity. Shapes and axes are JAX's at batch 1
([1, H, W, C] or [1, D], or of another rank), constants are float64 numpy arrays, and per-channel
vectors are [C].
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
    """Images."""


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
    dilations: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class PReLU(Node):
    """A PReLU: x where x >= 0, slope * x elsewhere."""

    slope: np.ndarray  # [C]


@dataclass(frozen=True, eq=False)
class Add(Node):
    """Sum of two nodes of one shape."""


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """A linear layer over all positions and channels of x [1, …, C] -> [1, D]."""

    kernel: np.ndarray  # [positions, C, D]; one position where x is [1, C]
    bias: np.ndarray  # [D]


@dataclass(frozen=True, eq=False)
class Constant(Node):
    """An array that is the same for all images; its batch axis, where it has one, is of size 1."""

    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Apply(Node):
    """An ONNX operation, element by element; two inputs broadcast against each other."""

    operation: str


@dataclass(frozen=True, eq=False)
class Compare(Node):
    """ONNX comparison (Greater, Less, Equal), or its opposite."""

    operation: str
    opposite: bool


@dataclass(frozen=True, eq=False)
class Where(Node):
    """Second input where the first, a Compare, is true, elsewhere the third."""


@dataclass(frozen=True, eq=False)
class Cast(Node):
    """A Compare as numbers: 1 where it is true, elsewhere 0."""


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """ReduceSum, ReduceMax or ReduceMin over axes, which go away."""

    operation: str
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """MaxPool, or AveragePool that counts its padding, over windows (height, width)."""

    operation: str
    window: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """Padding of the input by `value`: padding is (before, after) of each axis."""

    padding: tuple[tuple[int, int], ...]
    value: float


@dataclass(frozen=True, eq=False)
class MatMul(Node):
    """[1, …, C] -> [1, …, D], by a kernel [C, D]."""

    kernel: np.ndarray


@dataclass(frozen=True, eq=False)
class Product(Node):
    """Products of matrices, [1, …, M, K] by [1, …, K, N] -> [1, …, M, N]."""


@dataclass(frozen=True, eq=False)
class Slice(Node):
    """Elements from start to stop of each axis, a step apart."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reshape(Node):
    """Same elements in JAX's order, in another shape of the same batch."""


@dataclass(frozen=True, eq=False)
class Transpose(Node):
    """Permutation of the axes; the first stays."""

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Expand(Node):
    """Axes of size 1 repeated to the node's shape."""


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Concatenation of the inputs along an axis."""

    axis: int


@dataclass(frozen=True, eq=False)
class LayerNorm(Node):
    """(x - mean) / sqrt(variance + epsilon) over the last axis, times scale plus bias."""

    scale: np.ndarray  # [C]
    bias: np.ndarray  # [C]
    epsilon: float


@dataclass(frozen=True, eq=False)
class Attention(Node):
    """softmax(q k' scale) v of query, key and value [1, N, D], each split among the heads."""

    heads: int
    scale: float


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
