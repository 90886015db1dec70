"""Where images go into an ONNX graph, and where features come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError

MAX_FEATURES = 1 << 16
LAYOUTS = {"NCHW": (3, IMAGE_SIZE, IMAGE_SIZE), "NHWC": (IMAGE_SIZE, IMAGE_SIZE, 3)}
_TYPES = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.UINT8: np.uint8,
}


@dataclass(frozen=True)
class Input:
    """The input of images: its name, fixed batch size or None, type, and possible layouts."""

    name: str
    batch: int | None
    dtype: np.dtype
    layouts: Sequence[str]


@dataclass(frozen=True)
class Output:
    """The output of features: its index and name, and their number."""

    index: int
    name: str
    width: int


def image_input(path: Path, graph: onnx.GraphProto) -> Input:
    """Return the one input of images; UserError naming `path` and what is there instead."""
    weights = {tensor.name for tensor in graph.initializer}  # old exporters list them as inputs
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        named = ", ".join(repr(value.name) for value in inputs[:5])
        raise UserError(f"{path}: {len(inputs)} inputs ({named}); expected one of images")
    tensor = inputs[0].type.tensor_type
    sizes = [d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim]
    known = tensor.HasField("shape")
    layouts = [
        layout
        for layout, wanted in LAYOUTS.items()
        if not known or (len(sizes) == 4 and _fits(sizes[1:], wanted))
    ]
    if tensor.elem_type in _TYPES and layouts:
        batch = sizes[0] if known else None
        return Input(inputs[0].name, batch, np.dtype(_TYPES[tensor.elem_type]), layouts)
    shown = ", ".join(str(size or "any") for size in sizes)
    kinds = onnx.TensorProto.DataType
    kind = kinds.Name(tensor.elem_type) if tensor.elem_type in kinds.values() else "of no type"
    raise UserError(
        f"{path}: input {inputs[0].name} is {kind.lower()} [{shown}]; "
        f"expected float [batch, 3, {IMAGE_SIZE}, {IMAGE_SIZE}] or "
        f"[batch, {IMAGE_SIZE}, {IMAGE_SIZE}, 3], or uint8, float16 or double"
    )


def feature_output(
    path: Path,
    graph: onnx.GraphProto,
    shapes: dict[int, tuple[int, ...]],
    images: int,
    asked: str | None,
) -> Output:
    """Return the output of features: the one that is asked for by name, or the one of that shape.

    shapes: of the outputs by their index, as a batch of `images` gave them. Features are
    [images, D] or [images, D, 1, 1] and D > 1. Raises UserError naming `path` and the outputs.
    """
    names = [value.name for value in graph.output]
    widths = {i: width_of(shape, images) for i, shape in shapes.items()}
    if asked is not None:
        found = [i for i in widths if names[i] == asked]
        if asked not in names:
            raise UserError(
                f"{path}: output_name={asked}: no such output; it has {', '.join(names)}"
            )
    else:
        found = [i for i, width in widths.items() if width and (width > 1 or len(names) == 1)]
    known = sorted(shapes.items())[:5]
    shown = ", ".join(f"{list(shape)}" + f" {names[i]}" * (len(names) > 1) for i, shape in known)
    if len(found) > 1:
        raise UserError(
            f"{path}: 1 inputs and {len(names)} outputs, {len(found)} of which could be features "
            f"({shown}); say which by --output_name"
        )
    width = widths[found[0]] if found else None
    if not width or width > MAX_FEATURES:
        raise UserError(
            f"{path}: output of shape {shown or 'that is no array of numbers'} for {images} "
            f"images; expected [batch, features], of 1 to {MAX_FEATURES} features"
        )
    return Output(found[0], names[found[0]], width)


def width_of(shape: Sequence[int], images: int) -> int | None:
    """Return D of [images, D], with axes of 1 anywhere behind the first; None for other shapes.

    >>> width_of((2, 8, 1, 1), 2), width_of((2, 8, 7, 7), 2), width_of((1, 8), 2)
    (8, None, None)
    """
    if len(shape) < 2 or shape[0] != images:
        return None
    longer = [size for size in shape[1:] if size != 1]
    return None if len(longer) > 1 else longer[0] if longer else 1


def _fits(sizes: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return all(size in (None, want) for size, want in zip(sizes, wanted, strict=True))
