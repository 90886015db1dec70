"""Weights of an ONNX file in another file: taken from beside the model, and from nowhere else."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.onnx_graphs import face_network
from uniface_jax.errors import UserError
from uniface_jax.inference.onnx_file import read_onnx


@pytest.fixture
def apart(tmp_path):
    """A model whose weights are in model.onnx.data beside it, as torch.onnx.export leaves it."""
    whole = onnx.load(face_network(tmp_path / "whole.onnx"))
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    onnx.save(whole, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path


def weights_of(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_weights_beside_the_model(apart, tmp_path):
    found, expected = read_onnx(apart), read_onnx(tmp_path / "whole.onnx")
    for name, value in weights_of(expected.model).items():
        np.testing.assert_array_equal(weights_of(found.model)[name], value)


def test_the_digest_covers_both_files(apart):
    before = read_onnx(apart).digest
    data = apart.with_name("model.onnx.data")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    changed = read_onnx(apart).digest
    data.rename(apart.with_name("other.data"))
    model = onnx.load(apart, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "other.data"
    onnx.save(model, apart)
    assert len({before, changed, read_onnx(apart).digest}) == 3


def put(apart, **entries):
    """Rewrite where the first weight is to be read from."""
    model = onnx.load(apart, load_external_data=False)
    tensor = model.graph.initializer[0]
    for entry in list(tensor.external_data):
        if entry.key in entries:
            tensor.external_data.remove(entry)
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    apart.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/etc/passwd", "expected a file beside the model"),
        ("../secret.data", "expected a file beside the model"),
        ("sub/../../secret.data", "expected a file beside the model"),
        ("link.data", "expected a file beside the model"),
        ("folder/inside.data", "expected a file beside the model"),
        ("", "expected a file beside the model"),
        (".", "expected a file beside the model"),
        ("a\0b", "expected a file beside the model"),
        ("missing.data", "No such file"),
        ("pipe", "not a regular file"),
    ],
)
def test_weights_from_elsewhere_are_refused(apart, location, message):
    secret = apart.parent.parent / "secret.data"
    secret.write_bytes(apart.with_name("model.onnx.data").read_bytes())
    apart.with_name("link.data").symlink_to(secret)
    (apart.parent.parent / "inside.data").write_bytes(secret.read_bytes())
    apart.with_name("folder").symlink_to(apart.parent.parent)
    os.mkfifo(apart.with_name("pipe"))
    put(apart, location=location)
    with pytest.raises(UserError, match=message) as error:
        read_onnx(apart)
    assert "model.onnx: weight weights" in str(error.value)


@pytest.mark.parametrize(
    "entries",
    [{"offset": "-4"}, {"length": "-1"}, {"length": "99999999"}, {"offset": "x"}],
)
def test_places_outside_of_the_file_are_refused(apart, entries):
    put(apart, **entries)
    with pytest.raises(UserError, match=r"model\.onnx\.data', which has \d+ bytes"):
        read_onnx(apart)


def external(name, location):
    tensor = TensorProto(
        name=name, data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL
    )
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def branch(tensor):
    """A subgraph that returns an initializer of its own."""
    output = helper.make_tensor_value_info(tensor.name, TensorProto.UINT8, [8])
    return helper.make_graph([], "branch", [], [output], [tensor])


@pytest.mark.parametrize("where", ["constant", "branch", "nested", "function"])
def test_other_tensors_read_no_file(tmp_path, where):
    """Refuse those of nodes, branches and functions, even where the file lies beside the model."""
    path = face_network(tmp_path / "net.onnx")
    (tmp_path / "leak.bin").write_bytes(b"12345678")
    model = onnx.load(path)
    tensor = external("c", "leak.bin")
    node = {
        "constant": lambda: helper.make_node("Constant", [], ["c"], value=tensor),
        "function": lambda: helper.make_node("Constant", [], ["c"], value=tensor),
        "branch": lambda: helper.make_node(
            "If", ["t"], ["c"], then_branch=branch(tensor), else_branch=branch(tensor)
        ),
        "nested": lambda: helper.make_node(
            "If",
            ["t"],
            ["c"],
            then_branch=helper.make_graph(
                [helper.make_node("Constant", [], ["c"], value=tensor)], "b", [], []
            ),
            else_branch=branch(numpy_helper.from_array(np.zeros(8, np.uint8), "c")),
        ),
    }[where]()
    if where == "function":
        opsets = [helper.make_opsetid("", 11)]
        model.functions.append(helper.make_function("d", "F", [], ["c"], [node], opsets))
    else:
        model.graph.node.append(node)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"tensor c is to be read from 'leak\.bin'"):
        read_onnx(path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(UserError, match="not a regular file"):
            read_onnx(path)
