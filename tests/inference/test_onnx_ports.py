"""Inputs and outputs of other people's graphs: types, layouts, several outputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.helpers.onnx_graphs import expected_features, face_network
from uniface_jax.errors import UserError
from uniface_jax.inference.load import load_model
from uniface_jax.inference.onnx_ports import width_of


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


def changed(path, change):
    model = onnx.load(path)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def norm_beside(graph):
    """Give the norm of the features as a second output, in front of them."""
    graph.node.append(helper.make_node("ReduceL2", ["features"], ["norm"], axes=[1], keepdims=1))
    norm = helper.make_tensor_value_info("norm", TensorProto.FLOAT, None)
    features = graph.output[0]
    outputs = [norm, helper.make_tensor_value_info(features.name, TensorProto.FLOAT, None)]
    del graph.output[:]
    graph.output.extend(outputs)


def test_features_beside_their_norm(tmp_path, images):
    path = changed(face_network(tmp_path / "net.onnx"), norm_beside)
    found = load_model(path, mirror=False, input_scale="unit").embed(images)
    np.testing.assert_allclose(found, expected_features(images), atol=1e-3)
    norm = load_model(path, mirror=False, input_scale="unit", output_name="norm").embed(images)
    np.testing.assert_allclose(norm[:, 0], np.linalg.norm(found, axis=1), rtol=1e-5)


def test_two_outputs_that_could_be_features(tmp_path, images):
    path = face_network(tmp_path / "net.onnx", outputs=2)
    with pytest.raises(
        UserError, match=r"2 of which could be.*8\] features.*say which by --output"
    ):
        load_model(path)
    model = load_model(path, mirror=False, input_scale="unit", output_name="features")
    np.testing.assert_allclose(model.embed(images), expected_features(images), atol=1e-3)
    with pytest.raises(UserError, match=r"output_name=f: no such output; it has features, flat"):
        load_model(path, output_name="f")


@pytest.mark.parametrize("axes", [[2, 3], [1]])
def test_axes_of_one(tmp_path, images, axes):
    def unsqueeze(graph):
        graph.node.append(helper.make_node("Unsqueeze", ["features"], ["axes"], axes=axes))
        graph.output[0].name = "axes"

    path = changed(face_network(tmp_path / "net.onnx"), unsqueeze)
    found = load_model(path, mirror=False, input_scale="unit").embed(images)
    np.testing.assert_allclose(found, expected_features(images), atol=1e-3)


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "UINT8"])
def test_types_of_input(tmp_path, images, kind):
    def cast(graph):
        graph.input[0].type.tensor_type.elem_type = getattr(TensorProto, kind)
        graph.node.insert(0, helper.make_node("Cast", ["images"], ["as_float"], to=1))
        graph.node[1].input[0] = "as_float"

    path = changed(face_network(tmp_path / "net.onnx"), cast)
    scale = "raw" if kind == "UINT8" else "unit"
    model = load_model(path, mirror=False, input_scale="auto" if kind == "UINT8" else "unit")
    expected = expected_features(images, scale=scale)
    np.testing.assert_allclose(model.embed(images), expected, rtol=1e-2, atol=0.05)
    if kind == "UINT8":
        assert "0..255 (its input is uint8)" in model.description
        with pytest.raises(UserError, match="its input is uint8; expected auto or raw"):
            load_model(path, input_scale="unit")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("known", ["colors", "rank", "nothing"])
def test_shapes_that_are_left_open(tmp_path, images, layout, known):
    def forget(graph):
        shape = graph.input[0].type.tensor_type.shape
        if known == "nothing":
            graph.input[0].type.tensor_type.ClearField("shape")
        for i, dim in enumerate(shape.dim) if known != "nothing" else ():
            if known == "rank" or dim.dim_value != 3:
                dim.Clear()
                dim.dim_param = "batchhwc"[i]

    path = face_network(tmp_path / "net.onnx", layout=layout)
    if layout == "NHWC":  # by a transposition, so that only one layout runs

        def transpose(graph):
            graph.node.insert(
                0, helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2])
            )
            node = helper.make_node("MaxPool", ["turned"], ["same"], kernel_shape=[1, 1])
            graph.node.insert(1, node)
            graph.node.insert(2, helper.make_node("Slice", ["same", "a", "b", "c"], ["rgb"]))
            for name, value in (("a", [0]), ("b", [3]), ("c", [1])):
                graph.initializer.append(
                    onnx.numpy_helper.from_array(np.array(value, np.int64), name)
                )
            graph.node[3].input[0] = "rgb"

        changed(path, transpose)
    changed(path, forget)
    model = load_model(path, mirror=False, input_scale="unit")
    assert layout in model.description
    np.testing.assert_allclose(model.embed(images), expected_features(images), atol=1e-3)


def test_weights_alone_are_no_model(tmp_path):
    path = tmp_path / "backbone.pth"
    path.write_bytes(b"weights")
    with pytest.raises(UserError, match=r"import_weights .*backbone\.pth WORKDIR"):
        load_model(path)


def test_width():
    assert width_of((3, 8), 3) == width_of((3, 1, 8, 1), 3) == 8
    assert width_of((3, 1), 3) == 1
    assert width_of((3, 2, 4), 3) is width_of((24,), 3) is width_of((), 0) is None
