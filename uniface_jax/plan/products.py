"""Floating-point operations of the products in a compiled program, read from its text.

Only matrix products and convolutions count, as in work.py, whether an instruction of the program or
a call of cuDNN or cuBLAS. What a kernel of one's own multiplies is in no text, and not counted.
"""

import math
import re
from collections.abc import Sequence

from uniface_jax.plan.work import meeting_positions

Shape = tuple[int, ...]

_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s|ensions)"?[=:][\[{]([\d,"]*)[\]}]')
LIBRARY = re.compile(r'custom_call_target="([^"]+)"')
_SQUARE = re.compile(r'"intermediate_tensor_shape":\{[^}]*?"dimensions":\[([\d,"]*)\]')
# Of cuDNN's attention: q k' and its product with v; backward the first again and one for each of
# the gradients.
_ATTENTION_FORWARD, _ATTENTION_BACKWARD = 2, 5


def flops(opcode: str, operands: Sequence[Shape], result: Shape, attributes: str) -> float:
    """Return the operations of one instruction, 0 for one that is no product.

    operands, result: shapes of its arrays; of several results the first. attributes: its text
    after the operands.
    """
    left, right = (*operands, (), ())[:2]
    if opcode == "convolution":
        return _convolution(left, right, result, attributes)
    if opcode == "dot":
        return _product(left, result, attributes)
    library = LIBRARY.search(attributes) if opcode == "custom-call" else None
    if library is None:
        return 0.0
    target = library.group(1)
    if "convBackwardInput" in target:  # of dy and w
        return _convolution(result, right, left, attributes)
    if "convBackwardFilter" in target:  # of x and dy
        return _convolution(left, result, right, attributes)
    if "conv" in target:
        return _convolution(left, right, result, attributes)
    if "matmul" in target or "gemm" in target:
        return _product(left, result, attributes)
    if "fmha" in target:
        products = _ATTENTION_BACKWARD if "Backward" in target else _ATTENTION_FORWARD
        return products * _attention(left, attributes)
    return 0.0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _product(left: Shape, result: Shape, attributes: str) -> float:
    """Return the operations of a matrix product, whose attributes say what is summed over."""
    contracted = _CONTRACTED.search(attributes)
    if contracted is None:
        return 0.0
    terms = math.prod(left[axis] for axis in _numbers(contracted.group(1)))
    return 2.0 * terms * math.prod(result)


def _attention(queries: Shape, attributes: str) -> float:
    """Return the operations of one of its products, with a square of tokens on one side."""
    square = _SQUARE.search(attributes)
    return 2.0 * math.prod(_numbers(square.group(1))) * queries[-1] if square else 0.0


def _convolution(images: Shape, kernel: Shape, result: Shape, attributes: str) -> float:
    """Return the operations of a convolution of `images` with `kernel` that gives `result`."""
    labels, window = _LABELS.search(attributes), _WINDOW.search(attributes)
    if labels is None:
        return 0.0
    left, right, out = labels.groups()
    parts = dict(part.split("=") for part in window.group(1).split()) if window else {}
    total = 2.0 * result[out.index("b")] * result[out.index("f")] * kernel[right.index("i")]
    axes = sorted(label for label in out if label.isdigit())
    ones = "x".join("1" * len(axes))
    strides, dilations, kernel_dilations = (
        _numbers(parts.get(key, ones)) for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    pads = parts.get("pad", "x".join(["0_0"] * len(axes))).split("x")
    for at, label in enumerate(axes):
        total *= meeting_positions(
            sizes=(images[left.index(label)], kernel[right.index(label)], result[out.index(label)]),
            low=int(pads[at].partition("_")[0]),
            stride=strides[at],
            dilations=(dilations[at], kernel_dilations[at]),
        )
    return total
