"""Evaluates the part of a jaxpr that does not depend on the input, in numpy and float64.

So the arithmetic of batch norm's statistics, scales and biases leaves no trace in the exported
graph, and is rounded to float32 once, at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from uniface_jax.errors import UserError


def constant(value: Any) -> np.ndarray:
    """Return a constant as numpy: float64 for every floating type, others as they are.

    >>> constant(jnp.ones(1, jnp.bfloat16))
    array([1.])
    """
    array = np.asarray(value)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _broadcast_in_dim(
    x: np.ndarray, *, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any
) -> np.ndarray:
    aligned = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        aligned[axis] = size
    return np.broadcast_to(x.reshape(aligned), shape)


# Primitive -> its value from arrays and the equation's parameters.
_EVALUATE: Mapping[str, Callable[..., np.ndarray]] = {
    "add": lambda x, y, **_: x + y,
    "sub": lambda x, y, **_: x - y,
    "mul": lambda x, y, **_: x * y,
    "div": lambda x, y, **_: x / y,
    "max": lambda x, y, **_: np.maximum(x, y),
    "min": lambda x, y, **_: np.minimum(x, y),
    "neg": lambda x, **_: -x,
    "exp": lambda x, **_: np.exp(x),
    "sqrt": lambda x, **_: np.sqrt(x),
    "rsqrt": lambda x, **_: 1 / np.sqrt(x),
    "square": lambda x, **_: x * x,
    "integer_pow": lambda x, *, y, **_: x**y,
    "reshape": lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    "squeeze": lambda x, *, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation, **_: np.transpose(x, permutation),
    "broadcast_in_dim": _broadcast_in_dim,
    # Between floating types nothing is rounded: constants stay float64 to the end.
    "convert_element_type": lambda x, *, new_dtype, **_: (
        constant(x.astype(new_dtype))
        if not jnp.issubdtype(x.dtype, jnp.floating) or not jnp.issubdtype(new_dtype, jnp.floating)
        else x
    ),
}


def evaluate(equation: Any, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the results of a jaxpr's equation on constants.

    What is not in the table is computed by JAX, in the types of the equation. Raises UserError
    that names the primitive where the result is no array of numbers.
    """
    name = equation.primitive.name
    if name in _EVALUATE:
        return [_EVALUATE[name](*values, **equation.params)]
    typed = [
        jnp.asarray(value, variable.aval.dtype)
        for value, variable in zip(values, equation.invars, strict=True)
    ]
    try:
        results = equation.primitive.bind(*typed, **equation.params)
        several = equation.primitive.multiple_results
        return [constant(result) for result in (results if several else [results])]
    except TypeError as e:
        raise UserError(
            f"export: operation {name!r} on constants is not known to the ONNX writer ({e})"
        ) from e
