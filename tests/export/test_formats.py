"""SavedModel, TFLite and StableHLO hold what JAX computes, for any batch."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.trained_networks import SMALL, feature_function
from uniface_jax.errors import UserError
from uniface_jax.export import formats
from uniface_jax.export.verify import differences
from uniface_jax.inference.mirror import mirror_sum

BATCHES = (1, 3, 5, 32)
FUNCTION = feature_function("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))


# What TensorFlow 2.21 cannot read of jax 0.12 is refused; see test_unreadable.
TOO_NEW = jax.__version_info__ >= (0, 11)
for_tensorflow = pytest.mark.skipif(TOO_NEW, reason="this jax is too new for TensorFlow")
NAMES = [
    pytest.param(name, marks=() if name == "stablehlo" else for_tensorflow)
    for name in formats.FORMATS
]


@pytest.mark.parametrize("name", NAMES)
def test_written_and_loaded_again(tmp_path, name):
    path = tmp_path / "model"
    written = formats.write_format(FUNCTION, path, name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    assert set(written.differences) == {1, 3, 5}
    parameters = 60_000 * 4
    assert parameters < written.bytes < 3 * parameters
    load = formats.FORMATS[name][1]
    found = differences(load(path), mirror_sum(FUNCTION), BATCHES)
    assert max(found.values()) <= 1e-5
    assert differences(load(path), FUNCTION, (2,))[2] > 0.1  # the mirror sum is inside


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_file_is_not_left(tmp_path, name, monkeypatch):
    write, load = formats.FORMATS[name]
    monkeypatch.setitem(
        formats.FORMATS, name, (lambda f, path: write(lambda x: f(x) * 1.001, path), load)
    )
    with pytest.raises(UserError, match=r"model not written: it differs from JAX"):
        formats.write_format(FUNCTION, tmp_path / "model", name, mirror=False)
    assert not list(tmp_path.iterdir())


def test_a_savedmodel_overwrites_nothing(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="model: exists already"):
        formats.write_format(FUNCTION, tmp_path / "model", "savedmodel")


@for_tensorflow
def test_tflite_without_mirror(tmp_path):
    formats.write_format(FUNCTION, tmp_path / "m", "tflite", mirror=False)
    run = formats.FORMATS["tflite"][1](tmp_path / "m")
    images = np.zeros((2, 112, 112, 3), np.float32)
    assert run(images).shape == (2, 16)
    assert differences(run, FUNCTION, (2,))[2] <= 1e-5


@pytest.mark.skipif(not TOO_NEW, reason="TensorFlow reads what this jax writes")
@pytest.mark.parametrize("name", ["savedmodel", "tflite"])
def test_unreadable(tmp_path, name):
    with pytest.raises(UserError, match=r"TensorFlow .* cannot read the StableHLO of jax"):
        formats.write_format(FUNCTION, tmp_path / "model", name)
    assert not list(tmp_path.iterdir())


@for_tensorflow
@pytest.mark.slow
def test_two_processes_write_equal_bytes(tmp_path):
    """Write every format twice; each process orders its hashes anew."""
    program = (
        "import sys, pathlib\n"
        "from tests.helpers.trained_networks import SMALL, feature_function\n"
        "from uniface_jax.export.formats import FORMATS, write_format\n"
        "from uniface_jax.export.onnx.from_jaxpr import to_onnx\n"
        "function = feature_function('lresnet18', **SMALL, stage_sizes=(1, 1, 1, 1))\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "folder.mkdir()\n"
        "for name in FORMATS:\n"
        "    write_format(function, folder / name, name)\n"
        "model = to_onnx(function, metadata={'b': '1', 'a': '2'})\n"
        "(folder / 'onnx').write_bytes(model.SerializeToString())\n"
    )
    contents = []
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", program, tmp_path / name], check=True, cwd=ROOT)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        contents.append({str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files})
    assert contents[0].keys() >= {"onnx", "tflite", "stablehlo", "savedmodel/fingerprint.pb"}
    assert [n for n, content in contents[0].items() if contents[1][n] != content] == []
    assert contents[0].keys() == contents[1].keys()
