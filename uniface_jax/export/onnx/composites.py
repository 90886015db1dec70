"""Finds layer norms and attention among the operations that they were traced as.

They are written with fewer operations then, or as the one that ONNX has for them. What is composed
in another way stays as it is: the same function in more operations.
"""

from dataclasses import replace

import numpy as np

from uniface_jax.export.onnx.graph import (
    Affine,
    Apply,
    Attention,
    Constant,
    LayerNorm,
    Node,
    Product,
    Reduce,
    Reshape,
    Transpose,
    in_order,
)


def compose(output: Node) -> Node:
    """Return the same function with nodes for its layer norms and attentions."""
    composed: dict[Node, Node] = {}
    for node in in_order(output):
        same = replace(node, inputs=tuple(composed[used] for used in node.inputs))
        composed[node] = _attention(same) or _layer_norm(same) or same
    return composed[output]


def _layer_norm(node: Node) -> LayerNorm | None:
    """Match (x - mean) / sqrt(variance + epsilon) * scale of the last axis, or a bias after it."""
    match node:
        case Affine(inputs=(LayerNorm() as norm,)):
            scale, bias = norm.scale * node.scale, norm.bias * node.scale + node.bias
            return replace(norm, scale=scale, bias=bias)
        case Apply(
            operation="Mul",
            inputs=(
                Apply(operation="Sub", inputs=(x, Reshape(inputs=(mean,)))),
                Apply(
                    operation="Mul",
                    inputs=(
                        Apply(
                            operation="Reciprocal",
                            inputs=(
                                Apply(
                                    operation="Sqrt",
                                    inputs=(
                                        Affine(inputs=(Reshape(inputs=(variance,)),)) as shift,
                                    ),
                                ),
                            ),
                        ),
                        Constant(value=scale),
                    ),
                ),
            ),
        ):
            channels = x.shape[-1]
            vector = scale.size == channels and scale.shape[-1:] == (channels,) and len(x.shape) > 2
            if not (vector and (shift.scale == 1).all() and _is_mean(mean, x)):
                return None
            match variance:
                case Affine(
                    inputs=(
                        Reduce(
                            inputs=(Apply(operation="Mul", inputs=(difference, other)) as squares,)
                        ),
                    )
                ) if difference is other and _is_mean(variance, squares):
                    if _is_difference(difference, x, mean):
                        zeros, epsilon = np.zeros(channels), float(shift.bias.reshape(-1)[0])
                        return LayerNorm(x.shape, (x,), scale.reshape(-1), zeros, epsilon)
    return None


def _is_mean(node: Node, x: Node) -> bool:
    """Return True for the mean of x over its last axis."""
    match node:
        case Affine(inputs=(Reduce(operation="ReduceSum", axes=axes, inputs=(summed,)),)):
            return (
                summed is x
                and axes == (len(x.shape) - 1,)
                and np.allclose(node.scale, 1 / x.shape[-1], 1e-6, 0)
                and not node.bias.any()
            )
    return False


def _is_difference(node: Node, x: Node, mean: Node) -> bool:
    match node:
        case Apply(operation="Sub", inputs=(minuend, Reshape(inputs=(subtrahend,)))):
            return minuend is x and subtrahend is mean
    return False


def _attention(node: Node) -> Attention | None:
    """Match softmax(q k' scale) v of tokens [1, N, heads, d], which are joined to [1, N, D]."""
    match node:
        case Reshape(
            inputs=(
                Transpose(
                    axes=(0, 3, 1, 2),
                    inputs=(
                        Product(
                            inputs=(
                                Transpose(axes=(0, 2, 3, 1), inputs=(Reshape() as value,)),
                                Transpose(axes=(0, 1, 3, 2), inputs=(weights,)),
                            )
                        ),
                    ),
                ),
            )
        ):
            logits = _softmax_of(weights)
        case _:
            return None
    match logits:
        case Affine(
            inputs=(
                Product(
                    inputs=(
                        Transpose(axes=(0, 2, 1, 3), inputs=(Reshape() as query,)),
                        Transpose(axes=(0, 2, 3, 1), inputs=(Reshape() as key,)),
                    )
                ),
            ),
            scale=scale,
            bias=bias,
        ) if (scale == scale[0]).all() and not bias.any():
            tokens = tuple(by_head.inputs[0] for by_head in (query, key, value))
            joined = node.shape[:2] == query.shape[:2] and len(node.shape) == 3
            if joined and {x.shape for x in tokens} == {node.shape}:
                return Attention(node.shape, tokens, query.shape[2], float(scale[0]))
    return None


def _softmax_of(node: Node) -> Node | None:
    """Return what `node` is the softmax of, over its last axis; None where it is something else."""
    match node:
        case Apply(
            operation="Div",
            inputs=(
                Apply(
                    operation="Exp", inputs=(Apply(operation="Sub", inputs=(x, below)),)
                ) as powers,
                Reshape(inputs=(Reduce(operation="ReduceSum", axes=axes, inputs=(summed,)),)),
            ),
        ) if summed is powers and axes == (len(x.shape) - 1,):
            match below:
                case Reshape(
                    inputs=(Reduce(operation="ReduceMax", axes=most, inputs=(greatest,)),)
                ) if greatest is x and most == axes:
                    return x
    return None
