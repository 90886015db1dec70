"""Merges per-channel affine maps into each other and into the layers around them.

Batch norm at test time is such a map. Behind a convolution or a linear layer it always vanishes;
in front of one, only if the convolution does not pad: what it pads with is the zero after the map,
which is no zero before it.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from uniface_jax.export.onnx.graph import (
    Affine,
    Conv,
    Linear,
    Node,
    in_order,
)


def fuse(output: Node) -> Node:
    """Return the same function with few affine maps; no convolution is computed twice."""
    ordered = in_order(output)
    uses = Counter(used for node in ordered for used in node.inputs)
    fused: dict[Node, Node] = {}
    for node in ordered:
        shared = any(uses[used] > 1 for used in node.inputs)
        fused[node] = _merged(replace(node, inputs=tuple(fused[i] for i in node.inputs)), shared)
    return fused[output]


def _merged(node: Node, shared: bool) -> Node:
    """Merge `node` with its input; `shared`: others need that input as it is."""
    match node:
        case Affine(inputs=(Affine() as inner,)):
            scale, bias = inner.scale * node.scale, inner.bias * node.scale + node.bias
            if np.allclose(scale, 1, 1e-12, 0) and not bias.any():
                return inner.inputs[0]  # the mean over a window, divided by and times its size
            return replace(inner, scale=scale, bias=bias)
        case Affine(inputs=(Conv() as conv,)) if not shared:
            kernel = conv.kernel * node.scale[:, None, None, None]
            return replace(conv, kernel=kernel, bias=conv.bias * node.scale + node.bias)
        case Affine(inputs=(Linear() as linear,)) if not shared:
            kernel = linear.kernel * node.scale
            return replace(linear, kernel=kernel, bias=linear.bias * node.scale + node.bias)
        case Conv(inputs=(Affine() as affine,)) if not (np.any(node.padding) and affine.bias.any()):
            scale, bias = (_by_output(node, vector) for vector in (affine.scale, affine.bias))
            return replace(
                node,
                inputs=affine.inputs,
                kernel=node.kernel * scale,
                bias=node.bias + (node.kernel * bias).sum((1, 2, 3)),
            )
        case Linear(inputs=(Affine() as affine,)):
            return replace(
                node,
                inputs=affine.inputs,
                kernel=node.kernel * affine.scale[:, None],
                bias=node.bias + np.einsum("pcd,c->d", node.kernel, affine.bias),
            )
    return node


def _by_output(conv: Conv, vector: np.ndarray) -> np.ndarray:
    """Return a value a input channel [C] as [O, C / groups, 1, 1], a factor of the kernel."""
    grouped = vector.reshape(conv.groups, -1)
    return np.repeat(grouped, conv.kernel.shape[0] // conv.groups, axis=0)[:, :, None, None]
