"""Every registered network in every format, and in the oldest onnxruntime that has to load it."""

import functools
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import cv2
import jax
import numpy as np
import onnx
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.trained_networks import (
    SMALL,
    SMALL_OTHERS,
    feature_function,
    trained_looking,
)
from uniface_jax import models
from uniface_jax.export import formats
from uniface_jax.export.onnx.from_jaxpr import to_onnx
from uniface_jax.export.onnx.from_tflite import to_onnx_by_tflite
from uniface_jax.export.onnx.opsets import OPSETS
from uniface_jax.export.verify import compare, differences, onnx_runner, relative
from uniface_jax.inference.mirror import mirror_sum

BATCHES = (1, 3, 5, 32)
TOLERANCE = 1e-5
DEEP = {"lresnet100", "lresnet200", "iresnet100", "iresnet200"}
FULL_BATCHES = (1, 3, 5)  # of full width; the small networks, of the same graphs, are given 32 too


# TensorFlow copies all weights dozens of times: from new memory each time, a half of all processor
# time is the system's. glibc keeps what was let go of, in one heap for all threads.
_KEPT_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}

# One function, which JAX compiles once for all routes.
_FULL_SIZE = f"""
import json, pathlib, sys
from tests.helpers.trained_networks import feature_function
from uniface_jax.export import formats
from uniface_jax.export.onnx.from_tflite import to_onnx_by_tflite
from uniface_jax.export.verify import compare
from uniface_jax.inference.mirror import mirror_sum

function, folder = feature_function("lresnet50"), pathlib.Path(sys.argv[1])
mirrored = mirror_sum(function)
found = {{"onnx": compare(to_onnx_by_tflite(function), mirrored, {FULL_BATCHES})}}
for name in formats.FORMATS:
    written = formats.write_format(mirrored, folder / name, name, mirror=False)
    found[name] = written.differences
print(json.dumps({{name: [float(x) for x in of.values()] for name, of in found.items()}}))
"""


@functools.cache
def small(name):
    """The plain features of a small network, the same function in all tests."""
    return feature_function(name, **SMALL_OTHERS.get(name, SMALL))


@functools.cache
def mirrored(name):
    """Its mirror sum, which JAX compiles once for a batch size."""
    return mirror_sum(small(name))


@functools.cache
def exported(name, route):
    """Its ONNX, for the newest onnxruntime and for the oldest."""
    return route(small(name))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in DEEP else []) for n in models.NETWORKS],
)
def test_small(name):
    model = exported(name, to_onnx)
    assert not any(node.op_type == "Transpose" for node in model.graph.node)
    assert max(compare(model, mirrored(name), BATCHES).values()) <= TOLERANCE


@pytest.mark.parametrize("name", SMALL_OTHERS)
@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_small_of_other_families(name, opset):
    function = small(name)
    model = to_onnx(function, opset=opset)
    if name != "vit_t":  # the depthwise convolution as one node, not as the CPU's sum over taps
        operations = {node.op_type for node in model.graph.node}
        assert operations <= {"Conv", "PRelu", "Add", "Gemm", "Flatten", "Slice", "Concat", "Split"}
    assert max(compare(model, mirrored(name), BATCHES[:2]).values()) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_a_vit_in_every_opset(opset):
    """Layer norms and attention in plain operations, and as one where the opset has it."""
    function = small("vit_t")
    model = to_onnx(function, opset=opset, mirror=False)
    operations = Counter(node.op_type for node in model.graph.node)
    blocks = SMALL_OTHERS["vit_t"]["depth"]
    assert operations["LayerNormalization"] == (2 * blocks + 1 if opset >= 17 else 0)
    assert operations["Attention"] == (blocks if opset >= 23 else 0)
    assert operations["Softmax"] == (0 if opset >= 23 else blocks)
    assert max(compare(model, function, (1, 3, 32)).values()) <= TOLERANCE


@pytest.mark.parametrize("name", SMALL_OTHERS)
def test_opencv_reads_them(name, tmp_path):
    """Without the mirrored half, whose reversed slice OpenCV does not know."""
    function = small(name)
    onnx.save(to_onnx(function, mirror=False), tmp_path / "model.onnx")
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "model.onnx"))

    def run(images):
        network.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return network.forward()

    assert max(differences(run, function, (1, 3)).values()) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="too new for TensorFlow")
@pytest.mark.parametrize("name", SMALL_OTHERS)
@pytest.mark.parametrize("format_", formats.FORMATS)
def test_other_families_in_other_formats(name, format_, tmp_path):
    written = formats.write_format(mirrored(name), tmp_path / "model", format_, mirror=False)
    assert max(written.differences.values()) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", [*models.NETWORKS, *SMALL_OTHERS])
def test_small_by_jax2tf(name):
    pytest.importorskip("tf2onnx")
    model = exported(name, to_onnx_by_tflite)
    assert max(compare(model, mirrored(name), BATCHES).values()) <= TOLERANCE


@pytest.fixture(scope="module")
def of_full_size(tmp_path_factory):
    """Differences of every other route, from a process as a user's, which needs 12 GB.

    The tests' compiler takes 20 for weights as constants.
    """
    command = [sys.executable, "-c", _FULL_SIZE, tmp_path_factory.mktemp("full_size")]
    env = {**os.environ, "XLA_FLAGS": "", **_KEPT_MEMORY}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="too new for TensorFlow")
@pytest.mark.parametrize("route", ["onnx", *formats.FORMATS])
def test_full_size_by_every_other_route(route, of_full_size):
    assert len(of_full_size[route]) == len(FULL_BATCHES)
    assert max(of_full_size[route]) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="too new for TensorFlow")
@pytest.mark.parametrize("name", models.NETWORKS)
@pytest.mark.parametrize("format_", formats.FORMATS)
def test_small_in_other_formats(name, format_, tmp_path):
    written = formats.write_format(mirrored(name), tmp_path / "model", format_, mirror=False)
    assert max(written.differences.values()) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NETWORKS)
def test_full_size(name):
    """Several batches in onnxruntime; JAX, whose features of an image know no others, on five."""
    network = models.create(name)
    variables = trained_looking(network)
    mirror = name not in DEEP  # twice the work; the small networks have it at every depth
    model = to_onnx(lambda x: network.apply(variables, x, train=False), mirror=mirror)
    images = np.random.default_rng(0).uniform(-1, 1, (5, 112, 112, 3)).astype(np.float32)

    @jax.jit  # weights as arguments: as constants they would be compiled in
    def features(variables, x):
        network_features = functools.partial(models.features, network, variables)
        return (mirror_sum(network_features) if mirror else network_features)(x)

    with jax.default_matmul_precision("highest"):
        expected = np.asarray(features(variables, images))
    run = onnx_runner(model)
    for batch in FULL_BATCHES:
        assert relative(run(images[:batch]), expected[:batch]) <= TOLERANCE


# A line of its input: the paths of a model, of images, and of the features to write.
_RUN_OLD = """
import json, sys
import numpy, onnxruntime
assert onnxruntime.__version__ == "1.8.1"
for line in sys.stdin:
    model, images, features = json.loads(line)
    session, images = onnxruntime.InferenceSession(model), numpy.load(images)
    numpy.savez(features, *[session.run(None, {"input": images[:b]})[0] for b in (1, 3, 5, 32)])
    print("written", flush=True)
"""


@pytest.fixture(scope="session")
def old_onnxruntime(tmp_path_factory):
    """Runs a model by onnxruntime 1.8.1, which the MFR server runs, on Python 3.9: one process."""
    pythons = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python"))
    if not pythons:
        pytest.skip("needs Python 3.9 in ~/.pyenv, for which onnxruntime 1.8.1 was built")
    folder = tmp_path_factory.mktemp("onnxruntime-1.8.1")
    subprocess.run([pythons[-1], "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    packages = ["onnxruntime==1.8.1", "numpy<2"]
    install = [python, "-m", "pip", "install", "-q", "--no-compile", *packages]
    done = subprocess.run(install, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot install {packages}: {done.stderr.decode()[-200:]}")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([python, "-c", _RUN_OLD], **pipes) as process:

        def run(model, images, features):
            late = threading.Timer(120, process.kill)
            late.start()
            print(json.dumps([str(model), str(images), str(features)]), file=process.stdin)
            process.stdin.flush()
            answer = process.stdout.readline()
            late.cancel()
            assert answer == "written\n", f"the process ended: {process.wait()}"

        yield run


@pytest.mark.slow
@pytest.mark.parametrize("name", [*models.NETWORKS, *SMALL_OTHERS])
@pytest.mark.parametrize("route", [to_onnx, to_onnx_by_tflite])
def test_onnxruntime_of_the_server(old_onnxruntime, tmp_path, name, route):
    model = exported(name, route)
    onnx.save(model, tmp_path / "model.onnx")
    images = np.random.default_rng(0).uniform(-1, 1, (32, 112, 112, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images.transpose(0, 3, 1, 2))
    old_onnxruntime(*(tmp_path / name for name in ("model.onnx", "images.npy", "features.npz")))
    newest = onnx_runner(model)(images)
    with np.load(tmp_path / "features.npz") as features:
        for batch, key in zip(BATCHES, features.files, strict=True):
            error = np.abs(features[key] - newest[:batch]).max() / np.abs(newest).max()
            assert error <= TOLERANCE
