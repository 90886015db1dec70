"""python -m uniface_jax.export --quantize, as a user runs it, and the files it leaves."""

import json

import numpy as np
import onnx
import pytest

from tests.helpers.onnx_graphs import conv_network
from uniface_jax import Embedder
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.export.quantization import latency
from uniface_jax.export.quantization.int8 import Int8Settings
from uniface_jax.export.quantization.run import Request, quantize
from uniface_jax.export.submission import check
from uniface_jax.inference.load import load_model
from uniface_jax.inference.similarity import similarity


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    """Times are not looked at here."""
    monkeypatch.setattr(latency, "MAX_ROUNDS", 2)


@pytest.fixture(scope="module")
def int8(small, run_cli, tmp_path_factory):
    """(what was printed, the report) of net.onnx quantized to net.int8.onnx and evaluated."""
    report = tmp_path_factory.mktemp("report") / "int8.json"
    done = run_cli(
        "export",
        f"--model={small}/net.onnx",
        "--quantize=int8",
        f"--calibration={small}/faces",
        "--calibration_images=8",
        f"--data={small}/pairs.bin",
        "--fars=0.1",
        f"--report={report}",
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(report.read_text())


def test_the_report_has_both_side_by_side(small, int8):
    printed, report = int8
    assert report["path"] == f"{small}/net.int8.onnx"
    assert report["layers"] == {"int8": 3, "float32": []}
    assert report["calibration"] | {"source": "", "fingerprint": ""} == {
        "source": "", "images": 8, "of": 23, "seed": 0, "fingerprint": "",
        "method": "entropy",
    }  # fmt: skip
    sizes = report["bytes"]
    assert sizes["float32"] == (small / "net.onnx").stat().st_size
    assert sizes["int8"] == (small / "net.int8.onnx").stat().st_size
    for found in report["latency"]["by_batch"].values():
        times = found["milliseconds"]
        assert found["times_as_fast"]["int8"] == times["float32"] / times["int8"]
    assert 0.99 < report["agreement"]["cosine_least"] <= report["agreement"]["cosine_mean"] < 1
    found = report["evaluation"]["verification"]["pairs"]
    assert found["within"] == {"TAR@FAR≤0.1": True, "TAR@FAR≈0.1": True}
    tars = {name: found[name]["tar_at_far"][0]["strict"]["tar"] for name in ("float32", "int8")}
    (tested,) = (of for of in found["differences"] if of["number"] == "TAR@FAR≤0.1")
    assert tested["difference"] == tars["int8"] - tars["float32"]
    assert tested["lower"] <= tested["difference"] <= tested["upper"]
    assert "features" not in found["int8"]
    assert "int8 - float32" in printed
    assert "evaluation" not in printed


@pytest.mark.slow
def test_the_file_is_used_without_flags(small, int8, run_cli, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), np.uint8)
    first, second = (
        Embedder(small / f"net{part}.onnx").embed(list(image)) for part in ("", ".int8")
    )
    assert similarity(first, second).min() > 0.97
    done = run_cli("evaluate", f"--model={small}/net.int8.onnx", f"--data={small}/pairs.bin",
                   f"--output={tmp_path}")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "mirror sum: computed here" in done.stdout


def test_the_server_takes_none(small, int8):
    failed = [found for found in check(small / "net.int8.onnx") if found.passed is False]
    assert [found.rule for found in failed] == ["initializer width"]


def test_float16(small, tmp_path):
    output = tmp_path / "half.onnx"
    result, lines = quantize(small / "net.onnx", output, Request("float16", None, Int8Settings()))
    assert lines == []
    assert result["bytes"]["ratio"] > 1.5
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    kinds = {
        value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)
    }
    assert kinds == {onnx.TensorProto.FLOAT}
    image = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), np.uint8)
    first, second = (Embedder(path).embed(list(image)) for path in (small / "net.onnx", output))
    assert 1e-6 < np.abs(first - second).max() / np.abs(first).max() < 5e-3


def test_pixels_that_were_said_are_written_down(small, tmp_path):
    """A foreign file that says nothing of its pixels is then used without flags."""
    foreign, output = conv_network(tmp_path / "foreign.onnx"), tmp_path / "x.onnx"
    with pytest.raises(UserError, match="does not tell which pixels it wants; say it by --input_"):
        quantize(foreign, output, Request("float16", None, Int8Settings()))
    inputs = {"input_scale": "zero_one", "channel_order": "bgr"}
    quantize(foreign, output, Request("float16", None, Int8Settings(), inputs=inputs))
    assert "input BGR (by its metadata), x/255 (by its metadata)" in load_model(output).description


def test_weights_in_few_bits_are_compared_as_float32(small, tmp_path):
    stored = conv_network(tmp_path / "stored.onnx", weights_in_int8=True,
                          metadata={"uniface_jax.mirror": "0"})  # fmt: skip
    model = onnx.load(stored)
    weight = model.graph.initializer[0]  # listed as an input, as exporters before IR 4 do
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    )
    onnx.save(model, stored)
    result, _ = quantize(stored, tmp_path / "x.onnx", Request("float16", None, Int8Settings()))
    assert [value.name for value in onnx.load(tmp_path / "x.onnx").graph.input] == ["input"]
    assert result["bytes"]["float32"] > stored.stat().st_size
    assert result["notes"][-1].endswith(
        "its weights, stored in fewer bits, are compared as float32"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--quantize=int8"], "--calibration=DATASET is missing"),
        (["--quantize=int4"], "value should be one of <int8|float16>"),
        (["--quantize=int8", "--calibration={}/no"], "no: no such file or folder"),
        (["--quantize=int8", "--calibration={}/empty"], "empty: "),
        (["--quantize=int8", "--calibration={}/wide"], "wide.png is 112x96x3 uint8, expected 112x"),
        (["--quantize=int8", "--calibration={}/faces", "--calibration_method=mode"], "minmax"),
        (["--quantize=int8", "--calibration={}/faces", "--float_layers=middle"], "first, last or"),
        (["--quantize=int8", "--calibration={}/faces", "--percentile=99",
          "--calibration_method=minmax"], "--percentile: only with"),
        (["--quantize=float16", "--calibration_method=minmax"], "only with --quantize=int8"),
        (["--quantize=int8", "--calibration={}/faces", "--zip"], "--zip: the MFR server takes no"),
        (["--quantize=int8", "--calibration={}/faces", "--opset=12"], "int8 needs at least 13"),
        (["--quantize=int8", "--calibration={}/faces", "--workdir=x"], "give one of --workdir="),
        (["--quantize=int8", "--calibration={}/faces", "--protocol=ijb"], "--data is missing"),
        (["--calibration={}/faces"], "--calibration: only with --quantize=int8|float16"),
        ([], "--model: only with --quantize"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_one_line(small, run_cli, tmp_path, arguments, said):
    for name, shape in (("wide", (112, 96, 3)), ("empty", None)):
        (small / name).mkdir(exist_ok=True)
        if shape:
            (small / name / "wide.png").write_bytes(encode_png(np.zeros(shape, np.uint8)))
    output = tmp_path / "x.onnx"
    given = [argument.format(small) for argument in arguments]
    done = run_cli("export", f"--model={small}/net.onnx", f"--output={output}", *given)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not output.exists()


def test_a_quantized_file_is_refused(small, int8, run_cli):
    done = run_cli("export", f"--model={small}/net.int8.onnx", "--quantize=float16")
    assert done.returncode == 2
    assert "net.int8.onnx: is quantized already (QuantizeLinear)" in done.stderr
