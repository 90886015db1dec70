"""The command line of the evaluation, on a hand-written ONNX network and random faces."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from uniface_jax.data.images import encode_png
from uniface_jax.data.pairs import write_pairs

sys.path.insert(0, str(Path(__file__).parent / "evaluation"))
from onnx_graphs import expected_features, face_network


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """(folder with net.onnx and faces.bin, cosines of the pairs, which are the same)."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 112, 112, 3), np.uint8)
    noise = rng.integers(-60, 61, (10, 112, 112, 3))
    images[10:] = np.clip(images[:10].astype(int) + noise, 0, 255)
    first = np.repeat(np.arange(10), 2)
    second = np.stack([np.arange(10, 20), np.roll(np.arange(10, 20), 1)], axis=1).ravel()
    same = np.arange(20) % 2 == 0
    write_pairs(folder / "faces.bin", [encode_png(image) for image in images], first, second, same)
    face_network(folder / "net.onnx")
    features = expected_features(images) + expected_features(images[:, :, ::-1])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return folder, np.sum(unit[first] * unit[second], axis=1), same


def test_metrics_and_figures_of_an_onnx_file(faces, run_cli, tmp_path):
    folder, cosines, same = faces
    net, data, output = folder / "net.onnx", folder / "faces.bin", tmp_path / "out"
    done = run_cli(
        "evaluate", f"--model={net}", f"--data={data}", f"--output={output}", "--fars=0.1,0.001"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads((output / "metrics.json").read_text())
    found = report["protocols"]["verification"]["sets"]["faces"]
    wins = cosines[same][:, None] > cosines[~same]
    assert found["auc"] == pytest.approx(wins.mean(), abs=1e-12)
    assert 0.9 < found["auc"] <= 1
    tenth, thousandth = found["tar_at_far"]
    assert tenth["strict"]["threshold"] == pytest.approx(
        min(cosines[cosines > np.sort(cosines[~same])[-2]]), abs=1e-5
    )
    assert (tenth["resolvable"], thousandth["resolvable"]) == (True, False)
    assert report["model"]["sha256"] == hashlib.sha256(net.read_bytes()).hexdigest()
    assert found["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert set(report["versions"]) >= {"uniface_jax", "numpy", "onnxruntime"}
    assert {p.name for p in output.iterdir()} == {
        "metrics.json",
        "drawings.json",
        "report.html",
        "figures",
        "embeddings",
    }
    assert {p.name for p in (output / "figures").iterdir()} == {
        "verification_roc.png",
        "verification_det.png",
        "verification_faces_scores.png",
    }
    assert str(output) in done.stdout
    assert "faces" in done.stdout
    assert f"{found['auc']:.5f}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data={folder}/faces.bin"], "--model or --embeddings is missing"),
        (["--model={folder}/net.onnx", "--data={folder}/none.bin"], "none.bin: no such file"),
        (["--model={folder}/faces.bin", "--data={folder}/faces.bin"], "faces.bin: not an ONNX"),
        (["--model={folder}/net.onnx", "--data=x", "--fars=2"], "--fars: 2 is no rate"),
        (["--model={folder}/net.onnx", "--data=x", "--protocol=lfw"], "verification"),
    ],
)
def test_bad_input_ends_in_one_line(faces, run_cli, tmp_path, arguments, message):
    filled = [argument.format(folder=faces[0]) for argument in arguments]
    done = run_cli("evaluate", *filled, f"--output={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
