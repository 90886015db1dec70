"""From a float32 ONNX file to a quantized one, with what that costs and brings."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.export.quantization.calibration import Batches, CalibrationSet
from uniface_jax.export.quantization.comparison import compare
from uniface_jax.export.quantization.float16 import to_float16
from uniface_jax.export.quantization.int8 import Int8Settings, to_int8
from uniface_jax.export.quantization.latency import side_by_side
from uniface_jax.export.quantization.weights import (
    with_constant_weights,
    with_float_weights,
)
from uniface_jax.files.atomic import write_bytes
from uniface_jax.inference.load import InputOptions, load_model
from uniface_jax.inference.mirror import MIRROR_KEY
from uniface_jax.inference.model import Model
from uniface_jax.inference.onnx_file import read_onnx, tensors
from uniface_jax.inference.similarity import similarity

REFERENCE = "float32"
KIND_KEY = "uniface_jax.quantized"  # in metadata_props: "int8" or "float16"
_AGREEMENT_IMAGES = 256
_QUANTIZED_NODES = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


@dataclass(frozen=True)
class Request:
    """A user's choices.

    kind: "int8" or "float16". calibration: for int8, and where faces must tell what a network is
    fed. evaluation: parts of protocols, and options; None for none. inputs: what a file does not
    say of its input and output, as load_model takes it.
    """

    kind: str
    calibration: CalibrationSet | None
    settings: Int8Settings
    evaluation: tuple[Mapping[str, Parts], Options] | None = None
    inputs: InputOptions = field(default_factory=InputOptions)


def quantize(given: Path, output: Path, request: Request) -> tuple[dict[str, Any], list[str]]:
    """Write the network in `given`, ONNX in float32, quantized to `output`; measure both.

    Returns a record for JSON, and the tables of the evaluation as lines. The same file, images and
    choices give the same bytes. Raises UserError for a network that is quantized already, images
    that do not fit, and as the protocols do.
    """
    with tempfile.TemporaryDirectory(prefix="uniface_jax-float32-") as folder:
        float32, widened = _in_float32(given, Path(folder))
        result, lines = _quantized(float32, output, request)
    if widened:
        result["notes"] += [f"{given}: its weights, stored in fewer bits, are compared as float32"]
    return result, lines


def _in_float32(given: Path, folder: Path) -> tuple[Path, bool]:
    """Return a file with constant weights of float32, `given` or a copy in `folder`.

    And whether it stored them in fewer bits.
    """
    model = read_onnx(given).model
    _expect_no(_QUANTIZED_NODES, given, model)
    try:
        widened = with_float_weights(model)
    except UserError as e:
        raise UserError(f"{given}: {e}") from e
    _expect_no(("DequantizeLinear",), given, widened or model)
    constant = with_constant_weights(widened or model)
    if widened is None and len(constant.graph.input) == len(model.graph.input):
        return given, False
    path = folder / given.name
    onnx.save(constant, path)
    return path, widened is not None


def _quantized(given: Path, output: Path, request: Request) -> tuple[dict[str, Any], list[str]]:
    content = read_onnx(given).model
    model = _settled(given, load_model(given, **request.inputs), request.calibration)
    converted, facts = _converted(content, model, request)
    _declare(converted, content, model, request.kind)
    write_bytes(output, converted.SerializeToString(deterministic=True))
    named: InputOptions = {"output_name": request.inputs.get("output_name")}
    quantized = load_model(output, **named)
    models = {REFERENCE: model, request.kind: quantized}
    sizes = {REFERENCE: given.stat().st_size, request.kind: output.stat().st_size}
    result = {
        "path": str(output),
        "quantize": request.kind,
        "opset": max(entry.version for entry in converted.opset_import if not entry.domain),
        "nodes": len(converted.graph.node),
        **facts,
        "bytes": {**sizes, "ratio": sizes[REFERENCE] / sizes[request.kind]},
        "latency": side_by_side({REFERENCE: (given, model), request.kind: (output, quantized)}),
        "notes": list(quantized.notes),
    }
    if request.calibration is not None:
        result["agreement"] = _agreement(model, quantized, request.calibration)
    if request.evaluation is None:
        return result, []
    found = compare(models, *request.evaluation)
    return result | {"evaluation": found.record}, found.lines


def _expect_no(operators: Sequence[str], given: Path, model: onnx.ModelProto) -> None:
    """Raise UserError for a network with these operators, or with weights of float16."""
    found = {node.op_type for node in model.graph.node}.intersection(operators)
    if found:
        raise UserError(f"{given}: is quantized already ({min(found)}); expected one of float32")
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in tensors(model)):
        raise UserError(f"{given}: has weights of float16; expected one of float32")


def _settled(given: Path, model: Model, calibration: CalibrationSet | None) -> Model:
    """Return the model as faces tell its input, where its file does not."""
    if calibration is not None:
        return model.settled(calibration.some())
    if model.settle is not None:
        raise UserError(
            f"{given}: its graph does not tell which pixels it wants; say it by --input_scale, or "
            "give faces that tell by --calibration=DATASET"
        )
    return model


def _converted(
    content: onnx.ModelProto, model: Model, request: Request
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return the quantized model, and what a report says of it."""
    if request.kind == "float16":
        return to_float16(content), {}
    calibration, settings = request.calibration, request.settings
    assert calibration is not None
    assert model.feeds is not None
    found = to_int8(content, Batches(calibration, model.feeds), settings)
    facts = {
        "layers": {"int8": len(found.quantized), "float32": list(found.left)},
        "activations": settings.activations,
        "calibration": {
            **calibration.record(),
            "method": settings.method,
            **({"percentile": settings.percentile} if settings.method == "percentile" else {}),
        },
    }
    return found.model, facts


def _declare(converted: onnx.ModelProto, content: onnx.ModelProto, model: Model, kind: str) -> None:
    """Give `converted` the metadata of the original, and what it is fed where that does not say."""
    assert model.feeds is not None
    metadata = {entry.key: entry.value for entry in content.metadata_props}
    if MIRROR_KEY not in metadata:
        metadata = {**model.feeds.metadata, **metadata}
    onnx.helper.set_model_props(converted, {**metadata, KIND_KEY: kind})
    converted.producer_name, converted.producer_version = (
        content.producer_name,
        content.producer_version,
    )


def _agreement(first: Model, second: Model, calibration: CalibrationSet) -> dict[str, Any]:
    """Return the cosines between both models' features of the same images."""
    images = min(len(calibration), _AGREEMENT_IMAGES)
    found = []
    for start in range(0, images, 32):
        pixels = calibration.pixels(start, min(start + 32, images))
        found.append(similarity(first.embed(pixels), second.embed(pixels)))
    cosines = np.concatenate(found)
    return {
        "images": images,
        "cosine_mean": float(cosines.mean()),
        "cosine_least": float(cosines.min()),
    }
