"""Inference with an ONNX file that anyone may have written, in onnxruntime."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError
from uniface_jax.files.reading import read_regular
from uniface_jax.inference.input_scale import feeds_raw_pixels
from uniface_jax.inference.mirror import MIRROR_KEY, mirror_sum
from uniface_jax.inference.model import Embed, Model

INPUT_SCALES = ("auto", "unit", "raw")
MAX_FILE_BYTES = (1 << 31) - 1  # protobuf's own limit
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_LAYOUTS = {"NCHW": (3, IMAGE_SIZE, IMAGE_SIZE), "NHWC": (IMAGE_SIZE, IMAGE_SIZE, 3)}


def load_onnx(path: Path, mirror: bool | None = None, input_scale: str = "auto") -> Model:
    """Load a face network with one float image input 112x112 and one output [B, D].

    Args:
        path: an ONNX file, whose input is NCHW or NHWC.
        mirror: True adds the features of the mirrored images here, False does not; None adds them
            unless the file's metadata say that they are inside.
        input_scale: "unit" feeds RGB as (x - 127.5) / 127.5, "raw" as 0..255, "auto" decides as the
            submission checker of MFR-ongoing does (checker_scale).

    Raises:
        UserError: names the file when it is no ONNX model, keeps its weights elsewhere, has another
            input or output, or does not run.
    """
    if input_scale not in INPUT_SCALES:
        raise UserError(f"input_scale={input_scale}: expected one of {', '.join(INPUT_SCALES)}")
    content = _read(path)
    model = _parse(path, content)
    name, batch, layout = _image_input(path, model.graph)
    scale = checker_scale(model.graph) if input_scale == "auto" else input_scale
    inside = {p.key: p.value for p in model.metadata_props}.get(MIRROR_KEY) == "1"
    outside = not inside if mirror is None else mirror
    run = _runner(path, _session(path, model), name, batch, layout, scale)
    width = run(np.zeros((batch or 2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)).shape[1]
    embed = mirror_sum(run) if outside else run

    described = [
        f"ONNX, {layout}, batch of {batch or 'any size'}, {width} features",
        f"input {'0..255' if scale == 'raw' else '(x-127.5)/127.5'}"
        + (" by the checker's rule on node names" if input_scale == "auto" else " as asked"),
        f"mirror sum: {'computed here' if outside else 'in the graph' if inside else 'no'}",
    ]
    if input_scale == "auto" and scale == "unit" and _scales_itself(model.graph, name):
        described.append(
            "NOTE: it begins with arithmetic on its input, so it may scale pixels itself; "
            "then --input_scale=raw is right"
        )
    digest = hashlib.sha256(content).hexdigest()
    return Model(embed, path.stem, digest, "; ".join(described), run if outside else None)


def checker_scale(graph: onnx.GraphProto) -> str:
    """Return what MFR-ongoing's checker feeds: "raw", 0..255, or "unit", (x - 127.5) / 127.5."""
    return "raw" if feeds_raw_pixels(graph) else "unit"


def _scales_itself(graph: onnx.GraphProto, name: str) -> bool:
    """Return True where the nodes that read the image are element-wise arithmetic."""
    readers = {node.op_type for node in graph.node if name in node.input}
    return bool(readers) and readers <= {"Sub", "Add", "Mul", "Div"}


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(f"{path}: {size} bytes; an ONNX file has at most {MAX_FILE_BYTES}")
        return read_regular(path)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except Exception as e:  # protobuf's DecodeError, which has no public home
        raise UserError(f"{path}: not an ONNX model ({_line(e)})") from e
    if not model.graph.node:
        raise UserError(f"{path}: not an ONNX model, or one without nodes ({len(content)} bytes)")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UserError(
                f"{path}: weight {tensor.name} is kept in another file; expected all in one file"
            )
    # Quantisers leave inputs behind that no node reads; onnxruntime would ask for them.
    read = {name for node in model.graph.node for name in node.input}
    for i in reversed(range(len(model.graph.input))):
        if model.graph.input[i].name not in read:
            del model.graph.input[i]
    return model


def _image_input(path: Path, graph: onnx.GraphProto) -> tuple[str, int | None, str]:
    """Return name, fixed batch size or None, and "NCHW" or "NHWC" of the images' input."""
    weights = {tensor.name for tensor in graph.initializer}  # old exporters list them as inputs
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UserError(
            f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; "
            "expected one of images and one of features"
        )
    tensor = inputs[0].type.tensor_type
    sizes = [d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim]
    if tensor.elem_type == onnx.TensorProto.FLOAT and len(sizes) == 4:
        for layout, wanted in _LAYOUTS.items():
            if all(size in (None, want) for size, want in zip(sizes[1:], wanted, strict=True)):
                return inputs[0].name, sizes[0], layout
    shown = ", ".join(str(size or "any") for size in sizes)
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    raise UserError(
        f"{path}: input {inputs[0].name} is {kind} [{shown}]; "
        f"expected float [batch, 3, {IMAGE_SIZE}, {IMAGE_SIZE}] or "
        f"[batch, {IMAGE_SIZE}, {IMAGE_SIZE}, 3]"
    )


def _session(path: Path, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    available = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[p for p in _PROVIDERS if p in available]
        )
    except Exception as e:  # onnxruntime's exceptions share no base class
        raise UserError(f"{path}: onnxruntime refuses it ({_line(e)})") from e


def _runner(
    path: Path, session: Any, name: str, batch: int | None, layout: str, scale: str
) -> Embed:
    """Return the function from images uint8 [B, 112, 112, 3], any B, to features [B, D]."""

    def features(pixels: np.ndarray) -> np.ndarray:
        try:
            (found,) = session.run(None, {name: np.ascontiguousarray(pixels)})
        except Exception as e:
            raise UserError(f"{path}: onnxruntime cannot run it ({_line(e)})") from e
        if found.ndim != 2 or len(found) != len(pixels):
            raise UserError(
                f"{path}: output of shape {list(found.shape)} for {len(pixels)} images; "
                "expected [batch, features]"
            )
        result: np.ndarray = found.astype(np.float32, copy=False)
        return result

    def run(images: np.ndarray) -> np.ndarray:
        pixels = images.astype(np.float32)
        if scale == "unit":
            pixels = (pixels - 127.5) / 127.5
        if layout == "NCHW":
            pixels = pixels.transpose(0, 3, 1, 2)
        if batch is None:
            return features(pixels)
        padded = np.concatenate([pixels, np.repeat(pixels[-1:], -len(pixels) % batch, axis=0)])
        parts = [features(padded[i : i + batch]) for i in range(0, len(padded), batch)]
        return np.concatenate(parts)[: len(pixels)]

    return run


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
