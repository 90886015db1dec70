"""Weights that a file stores in few bits and widens itself: brought to float32 for other tools."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from uniface_jax.errors import UserError
from uniface_jax.inference.probe import one_line

MIN_IR = 4  # from which weights need not be inputs


def with_constant_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with its weights out of its inputs, where exporters before IR 4 list them.

    What is listed may be replaced by a caller, so that no tool folds batch norm into a convolution.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    result.ir_version = max(result.ir_version, MIN_IR)
    return result


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return `model` with each DequantizeLinear of constants replaced by what it computes, float32.

    None where there is none: the model is to be taken as it is. Raises UserError where onnxruntime
    cannot compute them.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    stored = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and set(node.input) <= {*constants, ""}
    ]
    if not stored:
        return None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    outputs = {node.output[0] for node in stored}
    kept = [node for node in result.graph.node if outputs.isdisjoint(node.output)]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    widened = _widened(stored, constants, model)
    read = {name for node in kept for name in node.input}
    left = [tensor for tensor in result.graph.initializer if tensor.name in read]
    del result.graph.initializer[:]
    result.graph.initializer.extend([*left, *widened])
    return result


def _widened(
    stored: Sequence[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    model: onnx.ModelProto,
) -> list[onnx.TensorProto]:
    """Return what each DequantizeLinear of constants computes, under the name of its output."""
    read = dict.fromkeys(name for node in stored for name in node.input if name)
    outputs = [
        onnx.helper.make_tensor_value_info(
            node.output[0], constants[node.input[1]].data_type, constants[node.input[0]].dims
        )
        for node in stored
    ]
    graph = onnx.helper.make_graph(
        stored, "weights", [], outputs, [constants[name] for name in read]
    )
    alone = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what matters is raised
        session = onnxruntime.InferenceSession(
            alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = session.run(None, {})
    except Exception as e:  # of onnxruntime and protobuf, which share no base
        raise UserError(f"its weights cannot be brought to float32 ({one_line(str(e))})") from e
    return [
        numpy_helper.from_array(np.asarray(value, np.float32), node.output[0])
        for node, value in zip(stored, values, strict=True)
    ]
