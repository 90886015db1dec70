"""Counts what one device's step computes and sends, by walking its jaxpr.

Only matrix products and convolutions count as work: everything else is bound by memory and small
beside them. A loop counts as often as it runs.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr


class Work(NamedTuple):
    """Work of one step on one device: floating-point operations, and bytes to other devices."""

    flops: float
    sent: float


def count(jaxpr: Any, devices: int) -> Work:
    """Count the work of a jaxpr whose collectives are over `devices` devices.

    A product of [m, k] and [k, n] is 2 m k n operations. Collectives are counted as rings send
    them: an all-reduce of x bytes 2 x (n-1)/n, a gather to x and a scatter of x bytes x (n-1)/n.
    """
    # Gradient rules compute some things in vain, which the compiler leaves out.
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    flops = sent = 0.0
    by_platform = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        flops += _flops(name, equation)
        sent += _sent(name, equation, devices)
        if name == "platform_index":
            by_platform.update(equation.outvars)
        times = equation.params.get("length", 1) if name == "scan" else 1
        for inner in _inner(equation, not by_platform.isdisjoint(_variables(equation))):
            work = count(inner, devices)
            flops += times * work.flops
            sent += times * work.sent
    return Work(flops, sent)


def _variables(equation: Any) -> list[Any]:
    return [x for x in equation.invars if not hasattr(x, "val")]  # literals cannot be hashed


def _inner(equation: Any, by_platform: bool) -> Iterator[Any]:
    """Return the jaxprs that an equation runs.

    Of jax.lax.platform_dependent that is the default, which accelerators take; of any other choice
    the longest branch.
    """
    for key, value in equation.params.items():
        if key == "branches":
            longest = max(value, key=lambda branch: len(branch.jaxpr.eqns))
            yield (value[-1] if by_platform else longest).jaxpr
        elif hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)  # with or without its constants


def _flops(name: str, equation: Any) -> float:
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        terms = math.prod(left[axis] for axis in contracted)
        return float(2 * terms * math.prod(equation.outvars[0].aval.shape))
    if name == "conv_general_dilated":
        return 2.0 * _taps(equation)
    return 0.0


def _taps(equation: Any) -> float:
    """Count the multiplications of a convolution: those of its input and kernel that meet.

    Dilation puts zeros between the elements of an input or kernel, and padding around them; these
    are not multiplied by any library. So only the positions that meet an element of the input
    count.
    """
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    left, right = (x.aval.shape for x in equation.invars[:2])
    result = equation.outvars[0].aval.shape
    total: float = float(result[numbers.out_spec[0]] * result[numbers.out_spec[1]])
    total *= float(right[numbers.rhs_spec[1]])
    for axis in range(len(parameters["window_strides"])):
        total *= meeting_positions(
            sizes=(
                left[numbers.lhs_spec[2 + axis]],
                right[numbers.rhs_spec[2 + axis]],
                result[numbers.out_spec[2 + axis]],
            ),
            low=parameters["padding"][axis][0],
            stride=parameters["window_strides"][axis],
            dilations=(parameters["lhs_dilation"][axis], parameters["rhs_dilation"][axis]),
        )
    return total


def meeting_positions(
    sizes: tuple[int, int, int], low: int, stride: int, dilations: tuple[int, int]
) -> int:
    """Count one axis's (output, kernel) positions of a convolution that meet its input.

    sizes: of input, kernel and output. low: padding before the input. dilations: of input and
    kernel.
    """
    size, kernel, out = sizes
    dilation, kernel_dilation = dilations
    position = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * kernel_dilation - low
    meets = (position >= 0) & (position % dilation == 0) & (position < size * dilation)
    return int(meets.sum())


def _sent(name: str, equation: Any, devices: int) -> float:
    share = (devices - 1) / devices
    if name.startswith(("psum", "pmax", "pmin")):
        return 2 * share * _bytes(equation.invars)
    if name == "all_gather":
        return share * _bytes(equation.outvars)
    if name == "reduce_scatter":
        return share * _bytes(equation.invars)
    return 0.0


def _bytes(variables: Any) -> int:
    return sum(math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in variables)
