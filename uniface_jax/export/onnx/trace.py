"""Reading of a network's jaxpr into the operations of graph.py: one rule for each JAX primitive.

To teach it another primitive, add a rule to _RULES (and a node to graph.py and write.py if no
node there computes it).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from uniface_jax.errors import UserError
from uniface_jax.export.onnx.constants import constant, evaluate
from uniface_jax.export.onnx.graph import (
    Add,
    Affine,
    Conv,
    Input,
    Linear,
    Node,
    PReLU,
)


@dataclass(frozen=True)
class _Mask:
    """The condition x >= 0 of a PReLU."""

    x: Node


@dataclass(frozen=True)
class _Flat:
    """An x [1, H, W, C] as [1, H * W * C]; NCHW has another order: the linear layer undoes it."""

    x: Node


_Value = np.ndarray | Node | _Mask | _Flat

# Primitives that call a jaxpr, by their names in the versions of JAX, and the parameter it is in.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def trace(function: Callable[[jax.Array], jax.Array], shape: Sequence[int]) -> Node:
    """Trace the graph of `function` on images of `shape` ([1, H, W, C], float32).

    Whatever the function closes over is a constant. Raises UserError that names the operation
    where there is no rule for it, or none for the way it is used.
    """
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
    outputs = _walk(closed, [Input(tuple(shape), ())])
    if len(outputs) != 1 or not isinstance(outputs[0], Node) or len(outputs[0].shape) != 2:
        raise UserError(
            f"export: the function returns {', '.join(map(str, closed.out_avals))}; "
            "allowed is one array of features [1, D] that depends on the images"
        )
    return outputs[0]


def _walk(closed: core.ClosedJaxpr, arguments: Sequence[_Value]) -> list[_Value]:
    jaxpr = closed.jaxpr
    values: dict[core.Var, _Value] = dict(zip(jaxpr.invars, arguments, strict=True))
    values.update(zip(jaxpr.constvars, map(constant, closed.consts), strict=True))

    def read(atom: Any) -> _Value:
        return constant(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        values.update(zip(equation.outvars, _apply(equation, inputs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: Sequence[_Value]) -> list[_Value]:
    name = equation.primitive.name
    if name in _CALLS:
        inner = equation.params[_CALLS[name]]
        if isinstance(inner, core.Jaxpr):  # remat's carries no constants
            inner = core.ClosedJaxpr(inner, [])
        return _walk(inner, inputs)
    constants = [value for value in inputs if isinstance(value, np.ndarray)]
    if len(constants) == len(inputs):
        return [evaluate(name, constants, equation.params)]
    if name not in _RULES:
        known = ", ".join(sorted({*_RULES, *_CALLS}))
        raise UserError(
            f"export: operation {name!r} is not known to the ONNX writer; known are {known}"
        )
    result = _RULES[name](*inputs, **equation.params)
    if result is None:
        given = ", ".join(f"{type(value).__name__.strip('_')}" for value in inputs)
        raise UserError(
            f"export: operation {name!r} on ({given}) of {equation.invars[0].aval} is not known to "
            "the ONNX writer"
        )
    return [result]


# The rules take the values and the parameters of an equation; None: not for such values.


def _affine(x: Node, scale: np.ndarray, bias: np.ndarray) -> Node | None:
    """Return the map scale * x + bias, where both are the same at all positions."""
    vectors = [_by_channel(values, x.shape) for values in (scale, bias)]
    if vectors[0] is None or vectors[1] is None:
        return None
    return Affine(x.shape, (x,), vectors[0], vectors[1])


def _by_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the vector [C] that `values` repeats when broadcast to `shape` [..., C], or None."""
    rows = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    same = np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape), equal_nan=True)
    if not same or np.broadcast_shapes(values.shape, shape) != shape:
        return None
    return np.broadcast_to(rows[0], shape[-1:])


_ZERO, _ONE = np.zeros(()), np.ones(())


def _add(x: _Value, y: _Value, **_: Any) -> _Value | None:
    match x, y:
        case Node(), Node() if x.shape == y.shape:
            return Add(x.shape, (x, y))
        case (Node() as node, np.ndarray() as bias) | (np.ndarray() as bias, Node() as node):
            return _affine(node, _ONE, bias)
    return None


def _sub(x: _Value, y: _Value, **_: Any) -> _Value | None:
    match x, y:
        case Node(), np.ndarray():
            return _affine(x, _ONE, -y)
        case np.ndarray(), Node():
            return _affine(y, -_ONE, x)
    return None


def _mul(x: _Value, y: _Value, **_: Any) -> _Value | None:
    match x, y:
        case (Node() as node, np.ndarray() as scale) | (np.ndarray() as scale, Node() as node):
            return _affine(node, scale, _ZERO)
    return None


def _div(x: _Value, y: _Value, **_: Any) -> _Value | None:
    return _affine(x, 1 / y, _ZERO) if isinstance(x, Node) and isinstance(y, np.ndarray) else None


def _neg(x: _Value, **_: Any) -> _Value | None:
    return _affine(x, -_ONE, _ZERO) if isinstance(x, Node) else None


def _at_least_zero(x: _Value, y: _Value, **_: Any) -> _Value | None:
    """Return the mask x >= 0, or x > 0: at 0 both sides of a PReLU are 0."""
    zero = isinstance(y, np.ndarray) and not y.any()
    return _Mask(x) if isinstance(x, Node) and zero else None


def _select(mask: _Value, otherwise: _Value, chosen: _Value, **_: Any) -> _Value | None:
    match mask, otherwise:
        case _Mask(x), Affine(inputs=(y,), scale=slope, bias=bias):
            if x is y is chosen and not bias.any():
                return PReLU(x.shape, (x,), slope)
    return None


def _convert(x: _Value, *, new_dtype: Any, **_: Any) -> _Value | None:
    # The graph computes in float32 whatever the network's dtype; verify.py shows any difference.
    return x if isinstance(x, Node) and jnp.issubdtype(new_dtype, jnp.floating) else None


def _conv(x: _Value, kernel: _Value, **parameters: Any) -> _Value | None:
    nhwc_by_hwio = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    padding, window_strides = parameters["padding"], parameters["window_strides"]
    dilations = {*parameters["lhs_dilation"], *parameters["rhs_dilation"]}
    plain = (
        tuple(parameters["dimension_numbers"]) == nhwc_by_hwio
        and dilations | {parameters["batch_group_count"]} == {1}
        and np.min(padding) >= 0
    )
    if not (plain and isinstance(x, Node) and isinstance(kernel, np.ndarray)):
        return None
    (top, bottom), (left, right) = padding
    sizes = [
        (size + sum(pad) - window) // stride + 1
        for size, pad, window, stride in zip(
            x.shape[1:3], padding, kernel.shape[:2], window_strides, strict=True
        )
    ]
    return Conv(
        (1, *sizes, kernel.shape[3]),
        (x,),
        kernel=kernel.transpose(3, 2, 0, 1),
        bias=np.zeros(kernel.shape[3]),
        strides=(window_strides[0], window_strides[1]),
        padding=((top, bottom), (left, right)),
        groups=parameters["feature_group_count"],
    )


def _reshape(x: _Value, *, new_sizes: Sequence[int], **_: Any) -> _Value | None:
    if isinstance(x, Node) and tuple(new_sizes) == (1, int(np.prod(x.shape))):
        return _Flat(x)
    return None


def _dot(x: _Value, kernel: _Value, *, dimension_numbers: Any, **_: Any) -> _Value | None:
    contracted, batched = dimension_numbers
    plain = tuple(map(tuple, contracted)) == ((1,), (0,)) and not any(batched)
    source = x.x if isinstance(x, _Flat) else x
    if not (plain and isinstance(source, Node) and isinstance(kernel, np.ndarray)):
        return None
    by_position = kernel.reshape(-1, source.shape[-1], kernel.shape[1])
    return Linear((1, kernel.shape[1]), (source,), by_position, np.zeros(kernel.shape[1]))


_RULES: Mapping[str, Callable[..., _Value | None]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "ge": _at_least_zero,
    "gt": _at_least_zero,
    "select_n": _select,
    "convert_element_type": _convert,
    "conv_general_dilated": _conv,
    "reshape": _reshape,
    "dot_general": _dot,
}
