"""Second route to ONNX: jax2tf, then TFLite, then tf2onnx; independent of the first.

Its graphs are larger; it is there to check the first route, and for networks that that one does not
know.
"""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import numpy_helper

from uniface_jax.errors import UserError, extra
from uniface_jax.export.formats import INPUT, tflite_bytes
from uniface_jax.export.onnx.writer import Writer
from uniface_jax.export.verify import Function

OPSETS = range(13, 19)
DEFAULT_OPSET = 13


def to_onnx_by_tflite(
    function: Function,
    *,
    opset: int = DEFAULT_OPSET,
    mirror: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return `function` as ONNX, with the arguments, input and output of from_jaxpr.to_onnx.

    Raises UserError for an opset that is not in OPSETS, and where tf2onnx is not installed.
    """
    if opset not in OPSETS:
        raise UserError(
            f"opset={opset}: allowed are {OPSETS[0]} to {OPSETS[-1]} by the route jax2tf"
        )
    with extra("tensorflow"):
        import tf2onnx
    # A symbolic batch from the start would make the graph three times as large.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(tflite_bytes(function, batch=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TFLite's interpreter is to move
            static, _ = tf2onnx.convert.from_tflite(str(path), opset=opset, inputs_as_nchw=[INPUT])
    graph = static.graph
    _free_batch(graph)
    (features,) = graph.output
    writer = Writer(opset)
    images = writer.images(mirror)
    for node in graph.node:
        # Also frees the names, which on this route begin with whatever the layers are called.
        node.name = writer.name(node.op_type)
        node.input[:] = [images if name == INPUT else name for name in node.input]
    last = next(node for node in graph.node if features.name in node.output)
    writer.nodes += [*(node for node in graph.node if node is not last), last]
    writer.initializers += graph.initializer
    size = features.type.tensor_type.shape.dim[1].dim_value
    return writer.model(features.name, size, mirror, metadata or {})


def _free_batch(graph: onnx.GraphProto) -> None:
    """Let reshapes to [1, …] keep any batch; nothing else in these networks fixes it."""
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            if shape[0] == 1:
                shape[0] = -1
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
