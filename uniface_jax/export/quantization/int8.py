"""Static quantization to int8 by onnxruntime's tools: QDQ nodes around the layers with weights.

Weights are int8, symmetric, with a scale an output channel; activations have one scale a tensor.
"""

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from uniface_jax.errors import UserError
from uniface_jax.export.onnx.opsets import INT8_OPSET
from uniface_jax.export.quantization.calibration import Batches
from uniface_jax.export.quantization.prelu import as_maximum
from uniface_jax.inference.probe import one_line

LAYERS = ("Conv", "Gemm", "MatMul")
QUANTIZED = (*LAYERS, "Add")
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
ENDS = ("first", "last")
_WARNING = 2  # onnxruntime's default
ACTIVATIONS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


@dataclass(frozen=True)
class Int8Settings:
    """Choices of a user.

    method: of METHODS, by which an activation's range follows from its values. percentile: the
    percent of these that the range of that method holds. float_layers: of ENDS, which stay float32.
    activations: of ACTIVATIONS, uint8 with a zero point, or int8 without.
    """

    method: str = "entropy"
    percentile: float = 99.99
    float_layers: Sequence[str] = ()
    activations: str = "uint8"


@dataclass(frozen=True)
class Int8Model:
    """A model and the names of its layers with weights: in int8, and left in float32."""

    model: onnx.ModelProto
    quantized: Sequence[str]
    left: Sequence[str]


def to_int8(model: onnx.ModelProto, batches: Batches, settings: Int8Settings) -> Int8Model:
    """Return `model`, of float32, in int8; `batches` are what it is fed to find its ranges.

    They are read one after another and not kept. The same model, batches and settings give the same
    model. Raises UserError for a model without a layer that can be quantized.
    """
    with tempfile.TemporaryDirectory(prefix="uniface_jax-int8-") as folder:
        given, prepared, written = (Path(folder) / f"{i}.onnx" for i in range(3))
        try:
            onnx.save(_at_least(model, INT8_OPSET), given)
            with _silent():
                quant_pre_process(given, prepared, skip_symbolic_shape=True)
            if settings.activations == "uint8":  # TensorRT has a layer for PReLU itself
                _change_prelus(prepared)
            layers = _named_layers(prepared)
            left = _ends(layers, settings.float_layers)
            with _silent():
                quantize_static(
                    prepared,
                    written,
                    batches,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTIZED),
                    per_channel=True,
                    activation_type=ACTIVATIONS[settings.activations],
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=left,
                    calibrate_method=METHODS[settings.method],
                    extra_options={
                        "ActivationSymmetric": settings.activations == "int8",
                        "CalibStridedMinMax": 1,  # of any method: batch by batch, none is kept
                        "CalibPercentile": settings.percentile,
                        "MatMulConstBOnly": True,
                        # TensorRT takes neither zero points nor biases of int32.
                        "QuantizeBias": settings.activations == "uint8",
                    },
                )
        except UserError:
            raise
        except Exception as e:  # of onnxruntime and onnx, which share no base
            raise UserError(f"--quantize=int8: onnxruntime cannot ({one_line(str(e))})") from e
        return Int8Model(onnx.load(written), [name for name in layers if name not in left], left)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the progress that the tools print, and onnxruntime's notices, from the user."""
    onnxruntime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def _at_least(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model with operators of at least version `opset`."""
    version = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return model if version >= opset else onnx.version_converter.convert_version(model, opset)


def _change_prelus(path: Path) -> None:
    model = onnx.load(path)
    if as_maximum(model):
        onnx.save(model, path)


def _named_layers(path: Path) -> list[str]:
    """Give each node of the model in a file a name of its own; return those of layers, in order."""
    model = onnx.load(path)
    counts = Counter(node.name for node in model.graph.node)
    for index, node in enumerate(model.graph.node):
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}_{index}_unnamed"
    onnx.save(model, path)
    weights = {tensor.name for tensor in model.graph.initializer}
    layers = [
        node.name
        for node in model.graph.node
        if node.op_type in LAYERS and weights.intersection(node.input[1:2])
    ]
    if not layers:
        raise UserError(
            "--quantize=int8: no convolution and no linear layer with weights of float32 in the "
            "graph; expected a network that has some"
        )
    return layers


def _ends(layers: Sequence[str], which: Sequence[str]) -> list[str]:
    """Return the names of the first and the last layer, as `which` asks for them."""
    ends = {"first": layers[0], "last": layers[-1]}
    return [ends[end] for end in ENDS if end in which]
