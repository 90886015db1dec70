"""Loading ONNX files of others: layouts, batches, input scale, mirror sum, and bad files."""

import hashlib

import numpy as np
import onnx
import pytest

from tests.helpers.onnx_graphs import expected_features, face_network
from uniface_jax.errors import UserError
from uniface_jax.inference.load import load_model
from uniface_jax.inference.mirror import MIRROR_KEY

SUB_MUL = [("Sub_0", "Sub", 127.5), ("Mul_1", "Mul", 1 / 127.5)]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


def settled(path, images, **options):
    """Return the model as the images settle it."""
    return load_model(path, **options).settled(images)


def both_ways(images, **options):
    return expected_features(images, **options) + expected_features(images[:, :, ::-1], **options)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_layout_and_batch_are_read_from_the_graph(tmp_path, images, layout, batch):
    path = face_network(tmp_path / "net.onnx", layout=layout, batch=batch)
    model = settled(path, images)
    features = model.embed(images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, both_ways(images, layout=layout), rtol=0, atol=1e-3)
    assert layout in model.description
    assert (model.name, model.hash) == ("net", hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_graph_named_as_scaling_itself_gets_raw_pixels(tmp_path, images):
    model = load_model(face_network(tmp_path / "net.onnx", prefix=SUB_MUL))
    np.testing.assert_allclose(model.embed(images), both_ways(images), rtol=0, atol=1e-3)
    assert "0..255 (the graph begins with 0.007843 x - 1)" in model.description


def test_names_of_nodes_say_nothing(tmp_path, images):
    """The MFR server goes by them; what a node computes is what counts here."""
    path = face_network(
        tmp_path / "net.onnx", prefix=[("a", "Sub", 127.5), ("b", "Mul", 1 / 127.5)]
    )
    np.testing.assert_allclose(load_model(path).embed(images), both_ways(images), atol=1e-3)
    lying = face_network(tmp_path / "lying.onnx", prefix=[("Sub_0", "Add", 0), ("Mul_1", "Mul", 1)])
    model = settled(lying, images)
    np.testing.assert_allclose(model.embed(images), both_ways(images), atol=1e-3)


def test_input_scale_can_be_forced(tmp_path, images):
    model = load_model(face_network(tmp_path / "net.onnx"), mirror=False, input_scale="raw")
    expected = expected_features(images, scale="raw")
    np.testing.assert_allclose(model.embed(images), expected, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize(
    ("metadata", "mirror", "outside"),
    [
        ({}, None, True),
        ({MIRROR_KEY: "0"}, None, True),
        ({MIRROR_KEY: "1"}, None, False),
        ({}, False, False),
        ({MIRROR_KEY: "1"}, True, True),
    ],
)
def test_mirror_sum_is_added_once(tmp_path, images, metadata, mirror, outside):
    path = face_network(tmp_path / "net.onnx", metadata=metadata)
    model = settled(path, images, mirror=mirror)
    expected = both_ways(images) if outside else expected_features(images)
    np.testing.assert_allclose(model.embed(images), expected, rtol=0, atol=1e-3)


def test_inputs_that_no_node_reads_are_ignored(tmp_path, images):
    model = settled(face_network(tmp_path / "net.onnx", stale_input=True), images)
    np.testing.assert_allclose(model.embed(images), both_ways(images), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 96}, r"input images is float \[any, 3, 96, 96\]; expected float \[batch, 3, 112"),
        ({"outputs": 2}, "1 inputs and 2 outputs"),
    ],
)
def test_another_signature_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as error:
        load_model(face_network(tmp_path / "net.onnx", **options))
    assert "net.onnx" in str(error.value)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = face_network(tmp_path / "net.onnx")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\x89PNG not a model", b"x" * 5000):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"net\.onnx: ") as error:
            load_model(path)
        assert "\n" not in str(error.value)


def test_a_graph_that_cannot_run_is_refused(tmp_path):
    path = face_network(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "NoSuchOperation"
    onnx.save(model, str(path))
    with pytest.raises(UserError, match="onnxruntime refuses it"):
        load_model(path)


def test_an_output_that_is_no_feature_is_refused(tmp_path):
    path = face_network(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].attribute[0].i = 2  # flatten to [B * 3, …], which the product cannot take
    onnx.save(model, str(path))
    with pytest.raises(UserError, match=r"onnxruntime (cannot run|refuses) it"):
        load_model(path)
    del model.graph.node[1]
    model.graph.output[0].name = "flat"
    onnx.save(model, str(path))
    with pytest.raises(UserError, match=r"output of shape \[3, 12544\] for 1 images"):
        load_model(path)


def test_a_missing_model_and_a_wrong_scale_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.onnx: no such model"):
        load_model(tmp_path / "nowhere.onnx")
    path = face_network(tmp_path / "net.onnx")
    with pytest.raises(
        UserError, match=r"input_scale=0\.\.1: expected one of auto, unit, raw, zero_one"
    ):
        load_model(path, input_scale="0..1")
