"""Reads a network's jaxpr into the operations of graph.py, by the rules of rules.py."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from uniface_jax.errors import UserError
from uniface_jax.export.onnx.constants import constant, evaluate
from uniface_jax.export.onnx.graph import Input, Node
from uniface_jax.export.onnx.rules import RULES
from uniface_jax.export.onnx.values import Value, materialized

FALLBACK = "--route=jax2tf (by tf2onnx) or another --format may know it"

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
    outputs = [materialized(value) for value in _walk(closed, [Input(tuple(shape), ())])]
    if len(outputs) != 1 or not isinstance(outputs[0], Node) or len(outputs[0].shape) != 2:
        raise UserError(
            f"export: the function returns {', '.join(map(str, closed.out_avals))}; "
            "allowed is one array of features [1, D] that depends on the images"
        )
    return outputs[0]


def _walk(closed: core.ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
    jaxpr = closed.jaxpr
    values: dict[core.Var, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
    values.update(zip(jaxpr.constvars, map(constant, closed.consts), strict=True))

    def read(atom: Any) -> Value:
        return constant(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        values.update(zip(equation.outvars, _apply(equation, inputs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: Sequence[Value]) -> list[Value]:
    name = equation.primitive.name
    if name in _CALLS:
        inner = equation.params[_CALLS[name]]
        if isinstance(inner, core.Jaxpr):  # remat's carries no constants
            inner = core.ClosedJaxpr(inner, [])
        return _walk(inner, inputs)
    if name == "platform_index":
        return [_elsewhere(equation.params["platforms"])]
    if name == "cond" and isinstance(inputs[0], np.ndarray):
        return _walk(equation.params["branches"][int(inputs[0])], inputs[1:])
    constants = [value for value in inputs if isinstance(value, np.ndarray)]
    if len(constants) == len(inputs):
        return [*evaluate(equation, constants)]
    if name not in RULES:
        known = ", ".join(sorted({*RULES, *_CALLS}))
        raise UserError(
            f"export: operation {name!r} is not known to the ONNX writer; {FALLBACK}; known are "
            f"{known}"
        )
    # Only a linear layer can take a flattened map as it is.
    given = inputs if name == "dot_general" else [materialized(value) for value in inputs]
    result = RULES[name](*given, **{**equation.params, "out": equation.outvars[0].aval.shape})
    if result is None:
        kinds = ", ".join(_kind(value) for value in inputs)
        raise UserError(
            f"export: operation {name!r} on ({kinds}) of {equation.invars[0].aval} is not known to "
            f"the ONNX writer; {FALLBACK}"
        )
    return [result]


def _elsewhere(platforms: Sequence[Sequence[str] | None]) -> np.ndarray:
    """Return the number of the branch for platforms that have none of their own.

    What is written for one platform, as the kernels for CPUs are, is not for a file.
    """
    without = [index for index, names in enumerate(platforms) if names is None]
    if not without:
        raise UserError(f"export: a branch for each of {platforms} and none for others; {FALLBACK}")
    return np.array(without[0])


def _kind(value: Value) -> str:
    return "constant" if isinstance(value, np.ndarray) else type(value).__name__
