"""The first run of a foreign graph: bounded in time and memory, and what it shows."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from uniface_jax.errors import UserError
from uniface_jax.export import submission
from uniface_jax.inference import onnx_model
from uniface_jax.inference import probe as probing
from uniface_jax.inference.load import load_model

ENDLESS = 1 << 62


def save(path, nodes, constants=(), outputs=("y",), batch="b"):
    """Write a graph of 'images' [batch, 3, 112, 112] whose nodes begin with their means 'f'."""
    means = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["f"]),
    ]
    graph = helper.make_graph(
        [*means, *nodes],
        "probed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 112, 112])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    opsets = [helper.make_opsetid("", 12)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString()
    )
    return path


def loop():
    """Adds to its features without end."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["v", "v"], ["w"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, None),
        ],
        [value("still", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )
    return helper.make_node("Loop", ["n", "true", "f"], ["y"], body=body)


def test_an_endless_loop_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "MIN_SECONDS", 1)
    path = save(tmp_path / "loop.onnx", [loop()], [("n", ENDLESS), ("true", True)])
    with pytest.raises(UserError, match=r"loop\.onnx: did not end within 1 s of processor time"):
        load_model(path)
    (found,) = [f for f in submission.check(path) if f.rule == "runs"]
    assert not found.passed
    assert "did not end within 1 s" in found.found


def test_a_loop_that_only_some_images_begin_is_ended(tmp_path, monkeypatch):
    """Loop as often as the image is bright: not at all for the first run's."""
    nodes = [
        helper.make_node("ReduceMax", ["f"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "bright"], ["over"]),
        helper.make_node("Mul", ["over", "many"], ["times"]),
        helper.make_node("Cast", ["times"], ["n"], to=TensorProto.INT64),
        loop(),
    ]
    constants = [("bright", np.float32(100)), ("many", np.float32(1e15)), ("true", True)]
    model = load_model(save(tmp_path / "some.onnx", nodes, constants), input_scale="raw")
    model.embed(np.full((2, 112, 112, 3), 9, np.uint8))
    monkeypatch.setattr(onnx_model, "RUN_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"some\.onnx: onnxruntime cannot run it .*Loop"):
        model.embed(np.full((2, 112, 112, 3), 200, np.uint8))


@pytest.mark.parametrize("size", [1 << 40, 1 << 33])
def test_more_memory_than_is_allowed(tmp_path, size):
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"]),
        helper.make_node("Add", ["f", "sum"], ["y"]),
    ]
    path = save(tmp_path / "large.onnx", nodes, [("size", np.array([size]))])
    with pytest.raises(UserError, match=r"large\.onnx: ") as error:
        load_model(path)
    assert "\n" not in str(error.value)


def test_features_that_depend_on_the_batch_are_taken_one_by_one(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["f"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["mean", "half"], ["shift"]),
        helper.make_node("Sub", ["f", "shift"], ["y"]),
    ]
    path = save(tmp_path / "mates.onnx", nodes, [("half", np.float32(0.5))])
    model = load_model(path, mirror=False, input_scale="raw")
    assert "WARNING: its features depend on the other images of a batch" in model.notes[0]
    images = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)
    expected = images.mean((1, 2)) / 2
    np.testing.assert_allclose(model.embed(images), expected, rtol=1e-5)
    fixed = save(tmp_path / "fixed.onnx", nodes, [("half", np.float32(0.5))], batch=2)
    assert "embedded in batches of 2" in load_model(fixed, input_scale="raw").notes[0]


def test_a_batch_of_one_inside_of_the_graph(tmp_path):
    nodes = [helper.make_node("Reshape", ["f", "shape"], ["y"])]
    path = save(tmp_path / "one.onnx", nodes, [("shape", np.array([1, 3]))])
    model = load_model(path, mirror=False, input_scale="raw")
    assert "batch of 1" in model.description
    assert not model.notes
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    np.testing.assert_allclose(model.embed(images), images.mean((1, 2)), rtol=1e-5)


def test_a_width_without_use_is_refused(tmp_path):
    for width, shown in ((0, r"\[1, 0\]"), (1 << 20, r"\[1, 1048576\]")):
        nodes = [
            helper.make_node("ReduceSum", ["f"], ["sum"], axes=[1], keepdims=1),
            helper.make_node("Expand", ["sum", "shape"], ["y"]),
        ]
        path = save(tmp_path / "wide.onnx", nodes, [("shape", np.array([1, width]))])
        with pytest.raises(UserError, match=f"output of shape {shown}"):
            load_model(path)
