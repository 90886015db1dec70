"""Rules of trace.py: from one JAX primitive and its inputs to a node of graph.py.

A rule takes the values and the parameters of an equation, and `out`, the shape of its result; it
returns None where it is not for such values. To teach the writer another primitive, add a rule to
RULES (and a node to graph.py and write.py if no node there computes it).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from uniface_jax.export.onnx import shape_rules
from uniface_jax.export.onnx.graph import (
    Add,
    Affine,
    Apply,
    Cast,
    Compare,
    Constant,
    Conv,
    Linear,
    MatMul,
    Node,
    Pool,
    PReLU,
    Product,
    Reduce,
    Transpose,
    Where,
)
from uniface_jax.export.onnx.values import Flat, Rule, Shape, Value, materialized

_ZERO, _ONE = np.zeros(()), np.ones(())


def _node(value: np.ndarray | Node) -> Node:
    return value if isinstance(value, Node) else Constant(value.shape, (), value)


# Affine maps, and what is left of arithmetic


def _affine(x: Node, scale: np.ndarray, bias: np.ndarray) -> Node | None:
    """Return the map scale * x + bias where both are the same at all positions."""
    vectors = [_by_channel(values, x.shape) for values in (scale, bias)]
    if vectors[0] is None or vectors[1] is None:
        return None
    return Affine(x.shape, (x,), vectors[0], vectors[1])


def _by_channel(values: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Return the vector [C] that `values` repeats when broadcast to `shape` [..., C], if any."""
    rows = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    same = np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape), equal_nan=True)
    if not same or np.broadcast_shapes(values.shape, shape) != shape:
        return None
    return np.broadcast_to(rows[0], shape[-1:])


def _apply(operation: str, *inputs: np.ndarray | Node, out: Shape) -> Node:
    return Apply(out, tuple(map(_node, inputs)), operation)


def _add(x: Any, y: Any, *, out: Shape, **_: Any) -> Value | None:
    match x, y:
        case Node(), Node() if x.shape == y.shape:
            return Add(x.shape, (x, y))
        case (Node() as node, np.ndarray() as bias) | (np.ndarray() as bias, Node() as node):
            return _affine(node, _ONE, bias) or _apply("Add", x, y, out=out)
    return _apply("Add", x, y, out=out)


def _sub(x: Any, y: Any, *, out: Shape, **_: Any) -> Value | None:
    affine = None
    match x, y:
        case Node(), np.ndarray():
            affine = _affine(x, _ONE, -y)
        case np.ndarray(), Node():
            affine = _affine(y, -_ONE, x)
    return affine or _apply("Sub", x, y, out=out)


def _mul(x: Any, y: Any, *, out: Shape, **_: Any) -> Value | None:
    affine = None
    match x, y:
        case (Node() as node, np.ndarray() as scale) | (np.ndarray() as scale, Node() as node):
            affine = _affine(node, scale, _ZERO)
    return affine or _apply("Mul", x, y, out=out)


def _div(x: Any, y: Any, *, out: Shape, **_: Any) -> Value | None:
    affine = _affine(x, 1 / y, _ZERO) if isinstance(y, np.ndarray) else None
    return affine or _apply("Div", x, y, out=out)


def _neg(x: Node, **_: Any) -> Value | None:
    return _affine(x, -_ONE, _ZERO)


def _square(x: Node, *, out: Shape, **_: Any) -> Value | None:
    return _apply("Mul", x, x, out=out)


def _integer_pow(x: Node, *, y: int, out: Shape, **_: Any) -> Value | None:
    if y == 2:
        return _apply("Mul", x, x, out=out)
    return _apply("Pow", x, np.array(float(y)), out=out)


def _rsqrt(x: Node, *, out: Shape, **_: Any) -> Value | None:
    return _apply("Reciprocal", _apply("Sqrt", x, out=out), out=out)


def _erfc(x: Node, *, out: Shape, **_: Any) -> Value | None:
    return _affine(_apply("Erf", x, out=out), -_ONE, _ONE)


def _expm1(x: Node, *, out: Shape, **_: Any) -> Value | None:
    return _affine(_apply("Exp", x, out=out), _ONE, -_ONE)


def _log1p(x: Node, *, out: Shape, **_: Any) -> Value | None:
    shifted = _affine(x, _ONE, _ONE)
    return None if shifted is None else _apply("Log", shifted, out=out)


def _max(x: Any, y: Any, *, out: Shape, **_: Any) -> Value | None:
    match x, y:
        case (Node() as node, np.ndarray() as low) | (np.ndarray() as low, Node() as node):
            if node.shape == out and np.all(low == 0):
                return _apply("Relu", node, out=out)
            if node.shape == out and np.all(low == -np.inf):
                return node
    return _apply("Max", x, y, out=out)


def _clamp(low: Any, x: Any, high: Any, *, out: Shape, **_: Any) -> Value | None:
    return _apply("Min", _apply("Max", x, low, out=out), high, out=out)


def _same(x: Node, **_: Any) -> Value | None:
    return x


def _convert(x: Node, *, new_dtype: Any, out: Shape, **_: Any) -> Value | None:
    if not jnp.issubdtype(new_dtype, jnp.floating):
        return None
    # The graph computes in float32 whatever the network's dtype; verify.py shows any difference.
    return Cast(out, (x,)) if isinstance(x, Compare) else x


# Comparisons and choices


def _compare(
    operation: str, opposite: bool, x: Any, y: Any, *, out: Shape, **_: Any
) -> Value | None:
    return Compare(out, (_node(x), _node(y)), operation, opposite)


def _select(mask: Any, otherwise: Any, chosen: Any, *, out: Shape, **_: Any) -> Value | None:
    if not isinstance(mask, Compare):
        return None
    if (slope := _prelu_slope(mask, otherwise, chosen)) is not None:
        return PReLU(out, (chosen,), slope)
    return Where(out, (mask, _node(chosen), _node(otherwise)))


def _prelu_slope(mask: Compare, otherwise: Any, chosen: Any) -> np.ndarray | None:
    """Return the slopes of `where(x >= 0, x, slope * x)`; at 0 both sides are 0, as with x > 0."""
    at_least = (mask.operation, mask.opposite) in (("Less", True), ("Greater", False))
    match mask.inputs, otherwise:
        case (Node() as x, Constant(value=zero)), Affine(inputs=(y,), scale=slope, bias=bias):
            if at_least and x is y is chosen and not zero.any() and not bias.any():
                return slope
    return None


# Sums, pooling, products


def _reduce(operation: str, x: Node, *, axes: Sequence[int], out: Shape, **_: Any) -> Value | None:
    return None if 0 in axes else Reduce(out, (x,), operation, tuple(axes))


def _pool(
    operation: str,
    x: Node,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
    out: Shape,
    **_: Any,
) -> Value | None:
    plain = (
        len(x.shape) == 4
        and {*base_dilation, *window_dilation} == {1}
        and all(each[0] == each[3] == 1 for each in (window_dimensions, window_strides))
        and not np.any([padding[0], padding[3]])
    )
    if not plain:
        return None
    (top, bottom), (left, right) = padding[1:3]
    height, width = window_dimensions[1:3]
    strides = (window_strides[1], window_strides[2])
    return Pool(out, (x,), operation, (height, width), strides, ((top, bottom), (left, right)))


def _sum_pool(x: Node, **parameters: Any) -> Value | None:
    average = _pool("AveragePool", x, **parameters)
    count = np.array(float(np.prod(parameters["window_dimensions"])))
    return _affine(average, count, _ZERO) if isinstance(average, Pool) else None


def _conv(
    x: Any,
    kernel: Any,
    *,
    dimension_numbers: Any,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    feature_group_count: int,
    batch_group_count: int,
    out: Shape,
    **_: Any,
) -> Value | None:
    nhwc_by_hwio = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    plain = (
        tuple(dimension_numbers) == nhwc_by_hwio
        and {*lhs_dilation, batch_group_count} == {1}
        and np.min(padding) >= 0
    )
    if not (plain and isinstance(x, Node) and isinstance(kernel, np.ndarray)):
        return None
    (top, bottom), (left, right) = padding
    return Conv(
        out,
        (x,),
        kernel=kernel.transpose(3, 2, 0, 1),
        bias=np.zeros(kernel.shape[3]),
        strides=(window_strides[0], window_strides[1]),
        padding=((top, bottom), (left, right)),
        groups=feature_group_count,
        dilations=(rhs_dilation[0], rhs_dilation[1]),
    )


def _dot(x: Any, kernel: Any, *, dimension_numbers: Any, out: Shape, **_: Any) -> Value | None:
    """Return a linear layer: of all that a Flat holds, or of the last axis."""
    contracted, batched = dimension_numbers
    if isinstance(x, Node | Flat) and isinstance(kernel, Node | Flat):
        return _product(materialized(x), materialized(kernel), contracted, batched, out)
    source = x.x if isinstance(x, Flat) else x
    if not (isinstance(source, Node) and isinstance(kernel, np.ndarray) and kernel.ndim == 2):
        return None
    last = 1 if isinstance(x, Flat) else len(source.shape) - 1
    if tuple(map(tuple, contracted)) != ((last,), (0,)) or any(batched):
        return None
    if isinstance(x, Flat) or last == 1:
        by_position = kernel.reshape(-1, source.shape[-1], kernel.shape[1])
        return Linear((1, kernel.shape[1]), (source,), by_position, np.zeros(kernel.shape[1]))
    if last == 3:  # at every position of a map: a convolution of 1x1
        one = kernel.T[:, :, None, None]
        zeros, none = np.zeros(kernel.shape[1]), ((0, 0), (0, 0))
        return Conv(out, (source,), one, zeros, (1, 1), none, groups=1)
    return MatMul(out, (source,), kernel)


def _product(
    x: Any,
    y: Any,
    contracted: Sequence[Sequence[int]],
    batched: Sequence[Sequence[int]],
    out: Shape,
) -> Value | None:
    """Return matrix products over common axes, which JAX puts in front, the batch's first."""
    if any(len(axes) != 1 for axes in contracted) or any(tuple(b[:1]) != (0,) for b in batched):
        return None
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*common, *summed)]
        for value, common, summed in zip((x, y), batched, contracted, strict=True)
    ]
    if any(len(axes) != 1 for axes in free):
        return None
    rows = _transpose_to(x, (*batched[0], *free[0], *contracted[0]))
    columns = _transpose_to(y, (*batched[1], *contracted[1], *free[1]))
    return Product(out, (rows, columns))


def _transpose_to(x: Node, axes: Sequence[int]) -> Node:
    if list(axes) == sorted(axes):
        return x
    return Transpose(tuple(x.shape[axis] for axis in axes), (x,), tuple(axes))


_ELEMENTWISE = {
    "tanh": "Tanh", "logistic": "Sigmoid", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "erf": "Erf", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "sin": "Sin",
    "cos": "Cos", "min": "Min", "pow": "Pow",
}  # fmt: skip


def _elementwise(operation: str, *values: Any, out: Shape, **_: Any) -> Value | None:
    return _apply(operation, *values, out=out)


RULES: Mapping[str, Rule] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "square": _square,
    "integer_pow": _integer_pow,
    "rsqrt": _rsqrt,
    "erfc": _erfc,
    "expm1": _expm1,
    "log1p": _log1p,
    "max": _max,
    "clamp": _clamp,
    **{name: partial(_elementwise, operation) for name, operation in _ELEMENTWISE.items()},
    "copy": _same,
    "stop_gradient": _same,
    "name": _same,
    "convert_element_type": _convert,
    "ge": partial(_compare, "Less", True),
    "gt": partial(_compare, "Greater", False),
    "le": partial(_compare, "Greater", True),
    "lt": partial(_compare, "Less", False),
    "eq": partial(_compare, "Equal", False),
    "ne": partial(_compare, "Equal", True),
    "select_n": _select,
    "reduce_sum": partial(_reduce, "ReduceSum"),
    "reduce_max": partial(_reduce, "ReduceMax"),
    "reduce_min": partial(_reduce, "ReduceMin"),
    "reduce_window_max": partial(_pool, "MaxPool"),
    "reduce_window_sum": _sum_pool,
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "slice": shape_rules.sliced,
    "reshape": shape_rules.reshape,
    "squeeze": shape_rules.reshape,
    "expand_dims": shape_rules.reshape,
    "broadcast_in_dim": shape_rules.broadcast,
    "transpose": shape_rules.transpose,
    "concatenate": shape_rules.concatenate,
    "pad": shape_rules.pad,
}
