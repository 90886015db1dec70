"""PReLU as a product and a maximum, against PRelu of the reference evaluator."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from uniface_jax.export.quantization.prelu import as_maximum

F32 = onnx.TensorProto.FLOAT


def network(slope):
    """Return a model of one PRelu, [2, 3, 4] with the given slope."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("PRelu", ["x", "slope"], ["y"])],
        "net",
        [value("x", F32, [2, 3, 4])],
        [value("y", F32, [2, 3, 4])],
        [onnx.numpy_helper.from_array(slope, "slope")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])


@pytest.mark.parametrize("slopes", [(0.25, 0, 1), (-3, -0.5, 0.9)])
def test_the_same_where_slopes_are_at_most_one(slopes):
    model = network(np.array(slopes, np.float32).reshape(3, 1))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert as_maximum(model) == 1
    assert [node.op_type for node in model.graph.node] == ["Mul", "Max"]
    onnx.checker.check_model(model, full_check=True)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("slopes", [(0.25, 1.01, 0), (np.nan, 0, 0)])
def test_others_stay(slopes):
    model = network(np.array(slopes, np.float32).reshape(3, 1))
    assert as_maximum(model) == 0
    assert [node.op_type for node in model.graph.node] == ["PRelu"]
