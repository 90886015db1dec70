"""Writes each node of graph.py as ONNX.

A map [1, H, W, C] is written as [batch, C, H, W], an array of another rank in JAX's order of axes.
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from onnx import TensorProto

from uniface_jax.export.onnx.graph import (
    Add,
    Affine,
    Apply,
    Attention,
    Cast,
    Compare,
    Concat,
    Constant,
    Conv,
    Expand,
    LayerNorm,
    Linear,
    MatMul,
    Pad,
    Pool,
    PReLU,
    Product,
    Reduce,
    Reshape,
    Slice,
    Transpose,
    Where,
)
from uniface_jax.export.onnx.writer import Writer

LAYER_NORM_OPSET, ATTENTION_OPSET = 17, 23  # from which ONNX has one operation for each
Padding = tuple[tuple[int, int], tuple[int, int]]


@singledispatch
def write_node(node: Any, writer: Writer, inputs: list[str]) -> str:
    """Append `node` of the tensors `inputs` to the model; give the name of its tensor."""
    raise AssertionError(f"no ONNX for {type(node).__name__}")


def _axes(rank: int) -> tuple[int, ...]:
    """Return JAX's axes in the order in which ONNX has them."""
    return (0, 3, 1, 2) if rank == 4 else tuple(range(rank))


def _place(axis: int, rank: int) -> int:
    """Return where ONNX has JAX's axis."""
    return _axes(rank).index(axis)


def _same_order(shape: tuple[int, ...]) -> bool:
    """Return True where elements lie in ONNX's order as they do in JAX's."""
    return len(shape) != 4 or shape[1] == shape[2] == 1 or shape[3] == 1


def _transposed(writer: Writer, name: str, order: Sequence[int]) -> str:
    if list(order) == sorted(order):
        return name
    return writer.add("Transpose", [name], perm=list(order))[0]


def _pads(padding: Padding) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


@write_node.register
def _conv(node: Conv, writer: Writer, inputs: list[str]) -> str:
    constants = {"weight": node.kernel}
    if node.bias.any():
        constants["bias"] = node.bias
    dilations: dict[str, Any] = {"dilations": node.dilations} if node.dilations != (1, 1) else {}
    return writer.add(
        "Conv",
        inputs,
        constants,
        kernel_shape=node.kernel.shape[2:],
        strides=node.strides,
        pads=_pads(node.padding),
        group=node.groups,
        **dilations,
    )[0]


@write_node.register
def _affine(node: Affine, writer: Writer, inputs: list[str]) -> str:
    if len(node.shape) not in (2, 4):  # whose second axis is not the channels'
        scaled = inputs
        if (node.scale != 1).any() or not node.bias.any():
            scaled = writer.add("Mul", inputs, {"scale": node.scale})
        return (writer.add("Add", scaled, {"bias": node.bias}) if node.bias.any() else scaled)[0]
    # One node, not Mul and Add. The variance and epsilon add up to 1; an epsilon of 0 would be
    # raised to 1e-5 by older cuDNN.
    epsilon = 1e-5
    zero = np.zeros_like(node.scale)
    constants = {
        "scale": node.scale,
        "bias": node.bias,
        "mean": zero,
        "variance": zero + 1 - epsilon,
    }
    return writer.add("BatchNormalization", inputs, constants, epsilon=epsilon)[0]


@write_node.register
def _prelu(node: PReLU, writer: Writer, inputs: list[str]) -> str:
    rank = len(node.shape)
    slope = node.slope if rank == 3 else node.slope.reshape(-1, *[1] * (rank - 2))
    return writer.add("PRelu", inputs, {"slope": slope})[0]


@write_node.register
def _add(node: Add, writer: Writer, inputs: list[str]) -> str:
    return writer.add("Add", inputs)[0]


@write_node.register
def _linear(node: Linear, writer: Writer, inputs: list[str]) -> str:
    positions, channels, features = node.kernel.shape
    rank = len(node.inputs[0].shape)
    if rank > 2:
        inputs = writer.add("Flatten", inputs, axis=1)
    # The rows follow ONNX's order of a flattened map: channel by channel.
    kernel = node.kernel.transpose(1, 0, 2) if rank == 4 else node.kernel
    weight = kernel.reshape(positions * channels, features)
    return writer.add("Gemm", inputs, {"weight": weight, "bias": node.bias})[0]


@write_node.register
def _matmul(node: MatMul, writer: Writer, inputs: list[str]) -> str:
    return writer.add("MatMul", inputs, {"weight": node.kernel})[0]


@write_node.register
def _product(node: Product, writer: Writer, inputs: list[str]) -> str:
    rank = len(node.shape)
    as_jax = [_place(axis, rank) for axis in range(rank)]
    (name,) = writer.add("MatMul", [_transposed(writer, name, as_jax) for name in inputs])
    return _transposed(writer, name, _axes(rank))


@write_node.register
def _slice(node: Slice, writer: Writer, inputs: list[str]) -> str:
    before, rank = node.inputs[0].shape, len(node.shape)
    whole = zip(node.start, node.stop, node.step, strict=True)
    cut = [axis for axis, each in enumerate(whole) if each != (0, before[axis], 1)]
    constants = {
        "starts": np.array([node.start[axis] for axis in cut]),
        "ends": np.array([node.stop[axis] for axis in cut]),
        "axes": np.array([_place(axis, rank) for axis in cut]),
        "steps": np.array([node.step[axis] for axis in cut]),
    }
    return writer.add("Slice", inputs, constants)[0]


@write_node.register
def _constant(node: Constant, writer: Writer, inputs: list[str]) -> str:
    value = node.value.transpose(_axes(node.value.ndim))
    return writer.constant(value, writer.name("constant"))


@write_node.register
def _apply(node: Apply, writer: Writer, inputs: list[str]) -> str:
    return writer.add(node.operation, inputs)[0]


@write_node.register
def _where(node: Where, writer: Writer, inputs: list[str]) -> str:
    return writer.add("Where", inputs)[0]


@write_node.register
def _compare(node: Compare, writer: Writer, inputs: list[str]) -> str:
    found = writer.add(node.operation, inputs)
    return (writer.add("Not", found) if node.opposite else found)[0]


@write_node.register
def _cast(node: Cast, writer: Writer, inputs: list[str]) -> str:
    return writer.add("Cast", inputs, to=TensorProto.FLOAT)[0]


@write_node.register
def _pool(node: Pool, writer: Writer, inputs: list[str]) -> str:
    counting: dict[str, Any] = {"count_include_pad": 1} if node.operation == "AveragePool" else {}
    return writer.add(
        node.operation,
        inputs,
        kernel_shape=node.window,
        strides=node.strides,
        pads=_pads(node.padding),
        **counting,
    )[0]


@write_node.register
def _reduce(node: Reduce, writer: Writer, inputs: list[str]) -> str:
    rank = len(node.inputs[0].shape)
    axes = [_place(axis, rank) for axis in node.axes]
    if writer.opset >= (13 if node.operation == "ReduceSum" else 18):
        (name,) = writer.add(node.operation, inputs, {"axes": np.array(axes)}, keepdims=0)
    else:
        (name,) = writer.add(node.operation, inputs, axes=axes, keepdims=0)
    written = [axis for axis in _axes(rank) if axis not in node.axes]
    kept = [axis for axis in range(rank) if axis not in node.axes]
    order = [written.index(kept[axis]) for axis in _axes(len(kept))]
    return _transposed(writer, name, order)


@write_node.register
def _pad(node: Pad, writer: Writer, inputs: list[str]) -> str:
    axes = _axes(len(node.shape))
    pads = [node.padding[axis][side] for side in (0, 1) for axis in axes]
    constants = {"pads": np.array(pads), "value": np.array(node.value)}
    return writer.add("Pad", inputs, constants, mode="constant")[0]


@write_node.register
def _reshape(node: Reshape, writer: Writer, inputs: list[str]) -> str:
    (name,), before, after = inputs, node.inputs[0].shape, node.shape
    if not _same_order(before):
        name = _transposed(writer, name, [_place(axis, 4) for axis in range(4)])
    as_onnx = _same_order(after)
    shape = [after[axis] for axis in _axes(len(after))] if as_onnx else list(after)
    (name,) = writer.add("Reshape", [name], {"shape": np.array([-1, *shape[1:]])})
    return name if as_onnx else _transposed(writer, name, _axes(4))


@write_node.register
def _transpose(node: Transpose, writer: Writer, inputs: list[str]) -> str:
    rank = len(node.shape)
    order = [_place(node.axes[axis], rank) for axis in _axes(rank)]
    return _transposed(writer, inputs[0], order)


@write_node.register
def _expand(node: Expand, writer: Writer, inputs: list[str]) -> str:
    shape = np.array([node.shape[axis] for axis in _axes(len(node.shape))])
    return writer.add("Expand", inputs, {"shape": shape})[0]  # 1 leaves the batch as it is


@write_node.register
def _concat(node: Concat, writer: Writer, inputs: list[str]) -> str:
    return writer.add("Concat", inputs, axis=_place(node.axis, len(node.shape)))[0]


@write_node.register
def _layer_norm(node: LayerNorm, writer: Writer, inputs: list[str]) -> str:
    if writer.opset >= LAYER_NORM_OPSET:
        constants = {"scale": node.scale, "bias": node.bias}
        return writer.add("LayerNormalization", inputs, constants, axis=-1, epsilon=node.epsilon)[0]
    centered = writer.add("Sub", [*inputs, *_mean(writer, inputs)])
    (squares,) = writer.add("Mul", centered * 2)
    shifted = writer.add("Add", _mean(writer, [squares]), {"epsilon": np.array(node.epsilon)})
    normal = writer.add("Div", [*centered, *writer.add("Sqrt", shifted)])
    scaled = writer.add("Mul", normal, {"scale": node.scale})
    return (writer.add("Add", scaled, {"bias": node.bias}) if node.bias.any() else scaled)[0]


def _mean(writer: Writer, inputs: list[str]) -> list[str]:
    return writer.add("ReduceMean", inputs, axes=[-1], keepdims=1)


@write_node.register
def _attention(node: Attention, writer: Writer, inputs: list[str]) -> str:
    if writer.opset >= ATTENTION_OPSET:
        return writer.add(
            "Attention", inputs, q_num_heads=node.heads, kv_num_heads=node.heads, scale=node.scale
        )[0]
    _, tokens, dim = node.shape
    shape = {"shape": np.array([-1, tokens, node.heads, dim // node.heads])}
    query, key, value = (
        writer.add("Transpose", writer.add("Reshape", [name], shape), perm=order)[0]
        for name, order in zip(inputs, [(0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)], strict=True)
    )
    logits = writer.add("MatMul", [query, key])
    scaled = writer.add("Mul", logits, {"scale": np.array(node.scale)})
    weights = writer.add("Softmax", scaled, axis=3)
    mixed = writer.add("Transpose", writer.add("MatMul", [*weights, value]), perm=(0, 2, 1, 3))
    return writer.add("Reshape", mixed, {"shape": np.array([-1, tokens, dim])})[0]
