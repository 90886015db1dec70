"""uniface_jax.Embedder: the library's own front door."""

import hashlib
import json
import subprocess
import sys
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import uniface_jax
from uniface_jax import Embedder
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Features are means of 16x16 blocks of the red channel: easy to tell from any other."""
    kernel = np.zeros((1, 3, 16, 16), np.float32)
    kernel[:, 0] = 1 / 256
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["means"], strides=[16, 16]),
        helper.make_node("Flatten", ["means"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", 1, ["batch", 3, 112, 112])],
        [helper.make_tensor_value_info("features", 1, ["batch", 49])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    path = tmp_path_factory.mktemp("model") / "means.onnx"
    opsets = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=6), path)
    return path


def means(images):
    """Return what the model gives for uint8 [B, 112, 112, 3], without the mirror sum."""
    scaled = (images[..., 0].astype(float) - 127.5) / 127.5
    return scaled.reshape(-1, 7, 16, 7, 16).mean((2, 4)).reshape(-1, 49)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_arrays_and_files_in_their_order(model, images, tmp_path, batch_size):
    path = tmp_path / "face.png"
    path.write_bytes(encode_png(images[3]))
    photographs = [*images[:3], path, images[4]]
    found = Embedder(model, mirror=False, batch_size=batch_size).embed(photographs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, means(images), atol=1e-5)
    both = Embedder(model, batch_size=batch_size).embed([*photographs[:3], str(path), images[4]])
    np.testing.assert_allclose(both, means(images) + means(images[:, :, ::-1]), atol=1e-5)


def test_alignment_of_photographs(model, orl_unseen):
    files = [orl_folder() / "s31" / f"{i}.pgm" for i in (1, 2)]
    found = Embedder(model, align=True, mirror=False).embed(files)
    np.testing.assert_allclose(found, means(orl_unseen.images[:2]), atol=1e-5)


def test_exif_orientation_is_followed(model, tmp_path):
    from PIL import Image

    pixels = np.zeros((112, 112, 3), np.uint8)
    pixels[:56] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    (found,) = Embedder(model, mirror=False).embed([tmp_path / "turned.png"])
    np.testing.assert_allclose(found, means(pixels[None, ::-1])[0], atol=1e-5)


def test_a_workdir(images, tmp_path):
    import jax

    from uniface_jax import models
    from uniface_jax.inference.mirror import mirror_sum
    from uniface_jax.weights.names import to_state
    from uniface_jax.weights.workdir import import_weights

    size = {"width": 4, "embedding_size": 6, "stem_stride": 2, "stage_sizes": (1, 1, 1, 1)}
    network = models.create("iresnet18", **size)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    drawn = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype("f4"), shapes)
    variables = dict(zip(("params", "batch_stats"), drawn, strict=True))
    np.savez(tmp_path / "w.npz", **to_state(network, variables))
    import_weights(tmp_path / "w.npz", tmp_path / "run")
    found = Embedder(tmp_path / "run", batch_size=3).embed(images)
    expected = mirror_sum(partial(models.features, network, variables))(
        models.normalize(jax.numpy.asarray(images))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_similarity():
    a = np.array([[1.0, 0], [1, 1]])
    b = np.array([[0.0, 3], [5, 5], [-2, -2]])
    assert Embedder.similarity(a[1], b[1]) == pytest.approx(1)
    assert Embedder.similarity(a[1], b[2]) == pytest.approx(-1)
    half = np.sqrt(0.5)
    expected = [[0, half, -half], [half, 1, -1]]
    np.testing.assert_allclose(Embedder.similarity(a[:, None], b), expected, atol=1e-12)
    assert np.isnan(Embedder.similarity(a[0], np.zeros(2)))
    huge = np.full(512, 1e30, np.float32)
    assert Embedder.similarity(huge, huge) == pytest.approx(1)


def refused(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusals(model, images, tmp_path):
    embedder = Embedder(model)
    assert "image 1: 96x112 pixels" in refused(
        lambda: embedder.embed([images[0], images[0][:, :96]])
    )
    assert "image 0: float64 [112, 112, 3]" in refused(lambda: embedder.embed([images[0] / 255]))
    assert "image 0: uint8 [112, 112]" in refused(lambda: embedder.embed([images[0, ..., 0]]))
    assert "nowhere.jpg" in refused(lambda: embedder.embed([tmp_path / "nowhere.jpg"]))
    assert "expected a list" in refused(lambda: embedder.embed("face.jpg"))
    assert "no images" in refused(lambda: embedder.embed([]))
    assert "no such model" in refused(lambda: Embedder(tmp_path / "nothing"))
    assert "batch_size=0" in refused(lambda: Embedder(model, batch_size=0))
    blank = np.full((200, 200, 3), 90, np.uint8)
    assert "image 0: no face found" in refused(lambda: Embedder(model, align=True).embed([blank]))


def test_the_package_stays_quick_to_import():
    code = (
        "import sys, uniface_jax; print(sorted({'jax', 'tensorflow', 'cv2'} & set(sys.modules)));"
        "uniface_jax.Embedder; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "False"]
    with pytest.raises(AttributeError, match="nothing"):
        uniface_jax.nothing  # noqa: B018


def test_photographs_that_cannot_be_used_are_masked(model, images, tmp_path):
    (tmp_path / "none.png").write_bytes(b"none")
    given = [images[0], images[1][:50], tmp_path / "none.png", images[2]]
    features, mask = Embedder(model, mirror=False).embed(given, on_error="skip")
    assert mask.tolist() == [True, False, False, True]
    np.testing.assert_allclose(features[mask], means(images[[0, 2]]), atol=1e-5)
    assert np.isnan(features[~mask]).all()
    nothing, mask = Embedder(model).embed(given[1:3], on_error="skip")
    assert (nothing.shape, mask.tolist()) == ((2, 0), [False, False])
    with pytest.raises(UserError, match="on_error=no: expected fail or skip"):
        Embedder(model).embed(given, on_error="no")


def test_two_photographs_are_verified_at_a_far(model, images, tmp_path):
    embedder = Embedder(model, mirror=False, input_scale="unit")
    a, b = embedder.embed(images[:2])
    cosine = float(Embedder.similarity(a, b))

    def calibration(threshold):
        entry = {"far": 0.01, "resolvable": True, "threshold_cosine": threshold}
        content = {
            "model": {
                "name": "means",
                "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
                "description": embedder.description,
            },
            "protocols": {"folders": {"sets": {"faces": {"thresholds": [entry]}}}},
        }
        file = tmp_path / "metrics.json"
        file.write_text(json.dumps(content))
        return file

    for threshold in (cosine - 1e-3, cosine + 1e-3):
        found = embedder.verify(*images[:2], far=0.01, calibration=calibration(threshold))
        assert (found.same, found.cosine) == (threshold < cosine, pytest.approx(cosine))
        assert found.threshold.cosine == threshold
    with pytest.raises(UserError, match=r"FAR 0.001 was not measured"):
        embedder.verify(*images[:2], far=0.001, calibration=calibration(0.5))
    other = Embedder(model, mirror=True, input_scale="unit")
    with pytest.raises(UserError, match="measured with ONNX"):
        other.verify(*images[:2], far=0.01, calibration=calibration(0.5))
