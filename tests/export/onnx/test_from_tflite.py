"""The second route to ONNX agrees with JAX and with the first route."""

import os
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers.trained_networks import SMALL, feature_function
from uniface_jax.errors import UserError
from uniface_jax.export.onnx import from_tflite
from uniface_jax.export.onnx.from_jaxpr import to_onnx
from uniface_jax.export.onnx.from_tflite import to_onnx_by_tflite
from uniface_jax.export.submission import feeds_raw_pixels
from uniface_jax.export.verify import compare, onnx_runner, relative
from uniface_jax.inference.mirror import mirror_sum

# Not imported as tests are found, by each worker for seconds.
pytestmark = pytest.mark.skipif(find_spec("tf2onnx") is None, reason="needs tf2onnx")


@pytest.mark.parametrize(
    ("name", "mirror", "opset"), [("lresnet18", True, 13), ("iresnet18", False, 17)]
)
def test_agrees_with_jax_and_with_the_first_route(name, mirror, opset):
    function = feature_function(name, **SMALL, stage_sizes=(1, 1, 1, 1))
    model = to_onnx_by_tflite(function, opset=opset, mirror=mirror, metadata={"a": "b"})
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert [(p.key, p.value) for p in model.metadata_props] == [("a", "b")]
    found = compare(model, mirror_sum(function) if mirror else function, (1, 3, 5, 32))
    assert 0 < max(found.values()) <= 1e-5

    first = to_onnx(function, mirror=mirror)
    for one, other in zip(first.graph.input, model.graph.input, strict=True):
        assert one == other
    for one, other in zip(first.graph.output, model.graph.output, strict=True):
        assert one == other
    images = np.random.default_rng(1).uniform(-1, 1, (4, 112, 112, 3)).astype(np.float32)
    assert relative(onnx_runner(model)(images), onnx_runner(first)(images)) <= 1e-5


@pytest.mark.parametrize("users", [None, "TRUE"])
def test_a_users_setting_of_tf2onnx_is_put_back(users, monkeypatch):
    name = "TF2ONNX_CATCH_ERRORS"
    monkeypatch.delenv(name, raising=False)
    if users:
        monkeypatch.setenv(name, users)
    with from_tflite._without_copies():
        assert os.environ[name] == "FALSE"
    assert os.environ.get(name) == users


def test_names_never_trigger_raw_pixels():
    def function(images):  # its first operations are what the server looks for in names
        x = images * jnp.abs(images) - 0.1 * images
        kernel = np.full((56, 56, 3, 4), 1e-3, np.float32)
        x = jax.lax.conv_general_dilated(
            x, kernel, (56, 56), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.reshape(x.shape[0], -1)

    model = to_onnx_by_tflite(function, mirror=False)
    names = [node.name for node in model.graph.node]
    assert {"sub_0", "mul_0"} <= set(names[:8])
    assert len(set(names)) == len(names)
    assert not feeds_raw_pixels(model.graph)
    assert max(compare(model, function).values()) <= 1e-5


def test_parts_of_images_and_layers_that_reshape():
    """Slices keep any batch and linear layers of flattened maps their bias."""
    rng = np.random.default_rng(0)
    weights, part = rng.standard_normal((56 * 3, 5)) / 12, rng.standard_normal((2, 1, 56, 1))
    bias, kernel = rng.standard_normal(5), weights.astype(np.float32)

    def function(images):
        shifted = images[:, 1::2, :56] * part.astype(np.float32)[:1] + images[:, ::2, 56:]
        flat = jnp.sum(shifted, 1, keepdims=True).reshape(len(images), -1)
        return flat @ kernel + bias.astype(np.float32)[None]

    model = to_onnx_by_tflite(function)
    assert max(compare(model, mirror_sum(function), (1, 3, 5)).values()) <= 1e-5


def test_the_sizes_of_its_weights_are_those_of_the_network():
    function = feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    counts = [
        sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)
        for model in (to_onnx_by_tflite(function), to_onnx(function))
    ]
    assert counts[0] == pytest.approx(counts[1], rel=0.1)  # no layer twice for the mirror


def test_opset():
    with pytest.raises(UserError, match="opset=11: allowed are 13 to 18 by the route jax2tf"):
        to_onnx_by_tflite(lambda x: x, opset=11)
