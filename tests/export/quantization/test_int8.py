"""QDQ by onnxruntime's tools: what is int8, what is left, and that it is the same each time."""

import onnx
import pytest

from tests.helpers.onnx_graphs import conv_network, face_network
from uniface_jax.errors import UserError
from uniface_jax.export.quantization.calibration import Batches, choose
from uniface_jax.export.quantization.int8 import METHODS, Int8Settings, to_int8
from uniface_jax.inference.load import load_model
from uniface_jax.inference.similarity import similarity


@pytest.fixture(scope="module")
def quantized(small):
    """A function from settings, and perhaps a path, to the network in int8."""
    chosen = choose(str(small / "faces"), 8, 0)
    feeds = load_model(small / "net.onnx").feeds

    def quantize(settings, path=small / "net.onnx"):
        return to_int8(onnx.load(path), Batches(chosen, feeds), settings)

    return quantize


def int8_weights(model):
    """Return scales by the name of the weight that is stored in int8."""
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.input[0].removesuffix("_quantized"): onnx.numpy_helper.to_array(scales[node.input[1]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in scales
        and scales[node.input[0]].data_type == onnx.TensorProto.INT8
    }


@pytest.mark.parametrize(
    "method",
    [pytest.param(of, marks=[] if of == "entropy" else pytest.mark.slow) for of in METHODS],
)
def test_layers_are_int8_with_a_scale_a_channel(small, quantized, tmp_path, method):
    found = quantized(Int8Settings(method))
    scales = int8_weights(found.model)
    assert {name: scale.size for name, scale in scales.items()} == {
        "conv_0.weight": 8,
        "conv_1.weight": 8,
        "gemm_0.weight": 16,
    }
    assert (found.quantized, found.left) == (["conv_0", "conv_1", "gemm_0"], [])
    onnx.save(found.model, tmp_path / "int8.onnx")
    faces = choose(str(small / "faces"), 23, 0).pixels(0, 23)
    features = [
        load_model(path).embed(faces) for path in (small / "net.onnx", tmp_path / "int8.onnx")
    ]
    cosines = similarity(*features)
    assert 0.95 < cosines.min() < 1 - 1e-6
    assert cosines.mean() > 0.99


def test_the_same_input_gives_the_same_bytes(quantized):
    first, again = (
        quantized(Int8Settings()).model.SerializeToString(deterministic=True) for _ in "ab"
    )
    assert first == again


def test_the_ends_stay_float_where_they_are_asked_for(quantized):
    found = quantized(Int8Settings("minmax", float_layers=("first", "last")))
    assert list(int8_weights(found.model)) == ["conv_1.weight"]
    assert (found.quantized, found.left) == (["conv_1"], ["conv_0", "gemm_0"])


def test_activations_of_int8_have_no_zero_point_and_biases_stay_float(quantized):
    kinds = {}
    for activations in ("uint8", "int8"):
        model = quantized(Int8Settings("minmax", activations=activations)).model
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        points = [
            onnx.numpy_helper.to_array(tensors[node.input[2]])
            for node in model.graph.node
            if node.op_type == "QuantizeLinear"
        ]
        kinds[activations] = {(point.dtype.name, bool(point.any())) for point in points}
        biases = [t for t in tensors.values() if t.data_type == onnx.TensorProto.INT32]
        assert bool(biases) == (activations == "uint8")
    assert kinds["int8"] == {("int8", False)}
    assert ("uint8", True) in kinds["uint8"]


def test_an_old_opset_is_raised(quantized, tmp_path):
    path = conv_network(tmp_path / "old.onnx", opset=11, metadata={"uniface_jax.mirror": "0"})
    model = quantized(Int8Settings("minmax"), path).model
    assert [entry.version for entry in model.opset_import if not entry.domain] == [13]


def test_a_network_without_layers_is_refused(small, tmp_path):
    path = face_network(tmp_path / "net.onnx", metadata={"uniface_jax.mirror": "0"})
    model = onnx.load(path)
    model.graph.node[1].op_type = "Mul"
    chosen = choose(str(small / "faces"), 4, 0)
    batches = Batches(chosen, load_model(small / "net.onnx").feeds)
    with pytest.raises(UserError, match="no convolution and no linear layer"):
        to_int8(model, batches, Int8Settings())
