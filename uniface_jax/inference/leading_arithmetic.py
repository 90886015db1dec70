"""Reading, from the first nodes of an ONNX graph, which pixels it was made for.

A graph that subtracts 127.5 and multiplies by 1/128 wants 0..255; one that subtracts ImageNet's
means in 0..1 wants 0..1. The means of three channels also tell their order: faces, and photographs
in general, are redder than they are blue.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

# The least and the greatest value of a pixel, by the name of the scale that it is fed at.
RANGES = {"unit": (-1.0, 1.0), "raw": (0.0, 255.0), "zero_one": (0.0, 1.0)}
MAX_OFF_CENTER = 0.35  # |middle| / half-width of what is centered; BGR means of faces reach 0.28
_TOLERANCE = 0.05
_MIN_TINT = 0.01  # relative difference of two channels' means
_PASSING = ("Identity", "Cast", "Dropout")


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of a graph on its pixels: slope * x + offset, float64 [3], a value a channel.

    shifts: True where it adds, subtracts or normalizes, and does not only multiply.
    """

    slope: np.ndarray
    offset: np.ndarray
    shifts: bool

    def describe(self) -> str:
        """Return it as a formula, of the channels' means where they differ."""
        slope, offset = self.slope.mean(), self.offset.mean()
        return f"{slope:.4g} x" + (f" {'-' if offset < 0 else '+'} {abs(offset):.4g}" * self.shifts)


def leading_arithmetic(graph: onnx.GraphProto, name: str, layout: str) -> Arithmetic | None:
    """Return the arithmetic with constants that is all that reads the input `name` at first.

    layout: "NCHW" or "NHWC". None where the graph begins with something else, as a convolution.
    """
    constants = _constants(graph)
    slope, offset, steps, shifts = np.ones(3), np.zeros(3), 0, False
    axis = layout.index("C")
    for node in _first_in_turn(graph, name):
        if node.op_type == "Transpose":
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [3, 2, 1, 0])
            axis = order.index(axis) if sorted(order) == [0, 1, 2, 3] else axis
        elif node.op_type not in _PASSING:
            try:
                with np.errstate(all="ignore"):  # what is not finite is no arithmetic, see below
                    step = _step(node, name, constants, axis)
                    if step is None:
                        break
                    slope, offset = step[0] * slope, step[0] * offset + step[1]
            except (ValueError, KeyError, IndexError):
                break  # a constant of another shape, or none
            steps += 1
            shifts |= node.op_type not in ("Mul", "Div")
            if node.op_type == "BatchNormalization":
                break
        name = node.output[0]
    finite = np.isfinite(slope).all() and np.isfinite(offset).all() and (slope != 0).all()
    return Arithmetic(slope, offset, shifts) if steps and finite else None


def _first_in_turn(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """Yield the node that alone reads `name`, the one that alone reads its output, and so on."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for read in set(node.input):
            readers.setdefault(read, []).append(node)
    for _ in graph.node:  # no more often, in a circle
        if len(found := readers.get(name, [])) != 1 or not found[0].output:
            return
        yield found[0]
        name = found[0].output[0]


def scale_for(arithmetic: Arithmetic) -> str | None:
    """Return the scale, of RANGES, of the pixels that the arithmetic was written for.

    That is the one which it brings to around zero, or, where none is, to 0..1 or 0..255. None where
    no scale, or more than one, is made so, and for arithmetic that changes nothing.

    >>> scale_for(Arithmetic(np.full(3, 1 / 128), np.full(3, -127.5 / 128), shifts=True))
    'raw'
    """
    if (arithmetic.slope == 1).all() and not arithmetic.offset.any():
        return None
    off_center, positive = {}, []
    for scale, (least, greatest) in RANGES.items():
        ends = np.stack([arithmetic.slope * x + arithmetic.offset for x in (least, greatest)])
        middle, half = ends.mean(0), np.abs(ends[1] - ends[0]) / 2
        off_center[scale] = float((np.abs(middle) / half).mean())
        low, high = ends.min(0).mean(), ends.max(0).mean()
        if abs(low) < _TOLERANCE * high and any(
            abs(high - top) < _TOLERANCE * top for top in (1.0, 2.0, 255.0)
        ):
            positive.append(scale)
    nearest = min(off_center, key=lambda scale: off_center[scale])
    if arithmetic.shifts and off_center[nearest] <= MAX_OFF_CENTER:
        return nearest
    return positive[0] if len(positive) == 1 else None


def order_for(arithmetic: Arithmetic) -> str | None:
    """Return "rgb" or "bgr", by the means that are subtracted, or None where they are alike."""
    if not arithmetic.shifts:
        return None
    means = -arithmetic.offset / arithmetic.slope
    tint = np.diff(means) / max(float(np.abs(means).max()), 1e-12)
    if (tint < -_MIN_TINT).all():
        return "rgb"
    return "bgr" if (tint > _MIN_TINT).all() else None


def _step(
    node: onnx.NodeProto, name: str, constants: Mapping[str, np.ndarray], axis: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return slope and offset, float64 [3], of one node that reads `name`; None for another kind.

    Raises KeyError where it also reads what is no constant.
    """
    if node.op_type == "BatchNormalization":
        # Pixels as they were in training become values around 0 of variance 1.
        mean, variance = (_by_channel(constants[i], 1, axis) for i in node.input[3:5])
        return 1 / np.sqrt(variance + 1e-5), -mean / np.sqrt(variance + 1e-5)
    operations: Mapping[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
        "Add": lambda c: (np.ones(3), c),
        "Sub": lambda c: (np.ones(3), -c) if first else (-np.ones(3), c),
        "Mul": lambda c: (c, np.zeros(3)),
        "Div": lambda c: (1 / c, np.zeros(3)),
    }
    if node.op_type not in operations or len(node.input) != 2:
        return None
    first = node.input[0] == name
    if node.op_type == "Div" and not first:
        return None
    constant = constants[node.input[1 if first else 0]]
    return operations[node.op_type](_by_channel(constant, 4, axis))


def _by_channel(constant: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Return a constant as float64 [3]; of a mean image, the mean of each channel.

    rank: 4 for one that is added to images, whose channels are at `axis`; 1 for a list.
    """
    values = np.asarray(constant, np.float64)
    if rank == 4:
        values = values.reshape((1,) * (4 - values.ndim) + values.shape)
        values = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).mean(1)
    return np.broadcast_to(values, 3).copy()


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Return the constants of at most one image's size by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    small = {}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = attribute.t
            elif attribute.name == "value_float":
                small[node.output[0]] = np.array(attribute.f)
    for name, tensor in found.items():
        if len(tensor.dims) <= 4 and 0 < np.prod(tensor.dims, dtype=float) <= 1 << 20:
            try:
                small[name] = numpy_helper.to_array(tensor)
            except (ValueError, TypeError, KeyError):
                continue  # damaged, or of a type without numbers: onnxruntime will say so
    return small
