"""PReLU as a product and a maximum, which onnxruntime computes faster on CPUs than its own PRelu.

max(x, a x) is PReLU(x) wherever the slope a is at most 1.
"""

import numpy as np
import onnx
from onnx import numpy_helper


def as_maximum(model: onnx.ModelProto) -> int:
    """Change, in place, each PRelu whose slopes are constants of at most 1; return how many."""
    slopes = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in model.graph.node:
        slope = slopes.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or not np.all(slope <= 1):  # NaN is left as well
            nodes.append(node)
            continue
        x, (result,) = node.input[0], node.output
        scaled = f"{result}_scaled"
        nodes.append(onnx.helper.make_node("Mul", [x, node.input[1]], [scaled], f"{result}_mul"))
        nodes.append(onnx.helper.make_node("Max", [x, scaled], [result], f"{result}_max"))
        changed += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return changed
