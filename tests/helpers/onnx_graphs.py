"""Tiny ONNX face networks, written by hand: features are products of all pixels with weights."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def face_network(
    path,
    *,
    layout="NCHW",
    batch="batch",
    prefix=(),
    metadata=None,
    size=112,
    outputs=1,
    dimension=8,
    stale_input=False,
):
    """Writes features = flatten(image) @ weights; weights differ per pixel, so mirrors matter.

    prefix: (node name, op, constant) put in front, as networks do that scale their own input.
    """
    shape = (3, size, size) if layout == "NCHW" else (size, size, 3)
    weights = np.random.default_rng(7).standard_normal((int(np.prod(shape)), dimension))
    constants = [numpy_helper.from_array((weights / 100).astype(np.float32), "weights")]
    nodes, last = [], "images"
    for name, op, value in prefix:
        constants.append(numpy_helper.from_array(np.float32(value), f"{name}_value"))
        nodes.append(helper.make_node(op, [last, f"{name}_value"], [name], name=name))
        last = name
    nodes.append(helper.make_node("Flatten", [last], ["flat"], name="flatten", axis=1))
    nodes.append(helper.make_node("MatMul", ["flat", "weights"], ["features"], name="matmul"))
    names = ["features", "flat"][:outputs]
    float32 = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("images", float32, [batch, *shape])]
    if stale_input:
        inputs.append(helper.make_tensor_value_info("unread", float32, [4]))
    graph = helper.make_graph(
        nodes,
        "face",
        inputs,
        [helper.make_tensor_value_info(name, float32, None) for name in names],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


def expected_features(images, *, layout="NCHW", scale="unit", dimension=8):
    """Return what face_network without a prefix gives for images uint8 [B, H, W, 3], in float64."""
    pixels = images.astype(np.float64)
    if scale == "unit":
        pixels = (pixels - 127.5) / 127.5
    if layout == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    flat = pixels.reshape(len(images), -1)
    weights = np.random.default_rng(7).standard_normal((flat.shape[1], dimension))
    return flat @ (weights / 100).astype(np.float32).astype(np.float64)


def conv_network(path, *, opset=13, batch="batch", metadata=None, weights_in_int8=False):
    """Writes two convolutions with a PReLU between them and a linear layer: images -> 16 features.

    weights_in_int8: those of the linear layer are stored so, and widened by the graph.
    """
    rng = np.random.default_rng(3)

    def weights(name, *shape):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype("f4"), name)

    constants = [
        weights("conv_0.weight", 8, 3, 7, 7),
        weights("conv_0.bias", 8),
        numpy_helper.from_array(np.full((8, 1, 1), 0.25, np.float32), "prelu_0.slope"),
        weights("conv_1.weight", 8, 8, 4, 4),
        weights("gemm_0.weight", 16, 128),
    ]
    nodes = [
        helper.make_node(
            "Conv", ["input", "conv_0.weight", "conv_0.bias"], ["a"], "conv_0", strides=[7, 7]
        ),
        helper.make_node("PRelu", ["a", "prelu_0.slope"], ["b"], "prelu_0"),
        helper.make_node("Conv", ["b", "conv_1.weight"], ["c"], "conv_1", strides=[4, 4]),
        helper.make_node("Flatten", ["c"], ["d"], "flatten_0", axis=1),
        helper.make_node("Gemm", ["d", "gemm_0.weight"], ["output"], "gemm_0", transB=1),
    ]
    if weights_in_int8:
        values = numpy_helper.to_array(constants[-1])
        codes = np.rint(values / 0.01).clip(-127, 127).astype(np.int8)
        constants[-1:] = [
            numpy_helper.from_array(codes, "codes"),
            numpy_helper.from_array(np.float32(0.01), "scale"),
        ]
        nodes.insert(0, helper.make_node("DequantizeLinear", ["codes", "scale"], ["gemm_0.weight"]))
    graph = helper.make_graph(
        nodes,
        "face",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 16])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path
