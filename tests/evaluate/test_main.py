"""The command line of the evaluation, on a hand-written ONNX network and random faces."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.html_pages import check_is_clean
from tests.helpers.make_ijb import make_ijb
from tests.helpers.onnx_graphs import expected_features, face_network
from tests.helpers.paths import ROOT
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png


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
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(encode_png(image))
    lines = (f"{a}.png,{b}.png,{int(s)}" for a, b, s in zip(first, second, same, strict=True))
    (folder / "faces.csv").write_text("\n".join(lines))
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


def check_one_line(run_cli, folder, output, arguments, message):
    """The command refuses the arguments in a single line that holds `message`."""
    filled = [argument.format(folder=folder) for argument in arguments]
    done = run_cli("evaluate", *filled, f"--output={output}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


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
    check_one_line(run_cli, faces[0], tmp_path / "out", arguments, message)


@pytest.mark.slow
def test_several_protocols_from_given_features_and_several_models_in_one_report(
    faces, run_cli, tmp_path
):
    folder, cosines, same = faces
    ijb, features = make_ijb(tmp_path / "ijb")
    np.save(tmp_path / "ijbc.npy", features)
    net, data, kept = folder / "net.onnx", folder / "faces.bin", tmp_path / "kept"
    first = run_cli(
        "evaluate", f"--model={net}", f"--data={data}", f"--cache={kept}",
        f"--output={tmp_path / 'net'}",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    (array,) = kept.glob("faces-*.npy")
    second = run_cli(
        "evaluate", f"--embeddings=faces={kept},ijbc={tmp_path / 'ijbc.npy'}",
        "--protocol=verification,ijb", f"--data=verification:{data}", f"--data=ijb:{ijb}",
        f"--output={tmp_path / 'given'}",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    given = json.loads((tmp_path / "given/metrics.json").read_text())["protocols"]
    found = given["verification"]["sets"]["faces"]
    expected = json.loads((tmp_path / "net/metrics.json").read_text())
    of_net = expected["protocols"]["verification"]["sets"]["faces"]
    assert found == of_net
    assert found["features"] == str(array)
    wins = cosines[same][:, None] > cosines[~same]
    assert found["auc"] == pytest.approx(wins.mean(), abs=1e-12)
    assert list(given["ijb"]["sets"]) == ["ijbc", "ijbc_1N_G1", "ijbc_1N_G2", "ijbc_1N_all"]
    assert "IJB-B and IJB-C" in second.stdout
    third = run_cli(
        "evaluate", "--compare", tmp_path / "net", net, tmp_path / "given", f"--data={data}",
        f"--output={tmp_path / 'both'}",
    )  # fmt: skip
    assert third.returncode == 0, third.stderr
    assert (tmp_path / "both/net/metrics.json").is_file()
    page = (tmp_path / "both/report.html").read_text()
    assert all(f"<td>{of_net['auc']:.5f}</td>" in row for row in rows_of(page, "faces"))
    assert len(rows_of(page, "faces")) == 3
    assert len(rows_of(page, "ijbc_1N_G1")) == 1


NAMES = (
    b"<img src=x onerror=alert(1)>", b"$\\frac{$", b"p\nnewline", b"\033]0;PWNED\a",
    b"No\353l", b"_x",
)  # fmt: skip


def test_names_of_any_bytes_are_evaluated_and_shown_escaped(faces, run_cli, tmp_path):
    root = tmp_path / "<b>$x_{ set"
    rng = np.random.default_rng(0)
    for name in map(os.fsdecode, NAMES):
        (root / name).mkdir(parents=True)
        for number in range(2):
            face = encode_png(rng.integers(0, 256, (112, 112, 3), np.uint8))
            (root / name / f"{name}{number}.png").write_bytes(face)
    done = run_cli(
        "evaluate", f"--model={faces[0] / 'net.onnx'}", "--protocol=folders", f"--data={root}",
        f"--output={tmp_path / 'out'}",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "<b>$x_{ set" in done.stdout
    assert "\x1b" not in done.stdout
    text = check_is_clean((tmp_path / "out/report.html").read_text()).text
    for shown in ("onerror=alert(1)>", "$\\frac{$", r"p\nnewline", r"\x1b]0;PWNED\x07", r"No\xebl"):
        assert f"{shown}0.png" in text or f"{shown}1.png" in text
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["protocols"]["folders"]["sets"]["<b>$x_{ set"]["images"] == 12
    assert len(list((tmp_path / "out/figures").iterdir())) == 3


def test_results_are_written_where_nobody_reads_what_is_printed(faces, tmp_path):
    """A pipe that is closed before the command begins, as `| head -1` closes it."""
    folder, output = faces[0], tmp_path / "out"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [
            sys.executable, "-m", "uniface_jax.evaluate", f"--model={folder / 'net.onnx'}",
            "--protocol=verification,pairs", f"--data=verification:{folder / 'faces.bin'}",
            f"--data=pairs:{folder / 'faces.csv'}", f"--output={output}",
        ],
        stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((output / "metrics.json").read_text())
    assert list(metrics["protocols"]) == ["verification", "pairs"]
    assert (output / "report.html").is_file()


def rows_of(page, name):
    """The rows of the tables of metrics that are of the set `name`."""
    return [row for row in page.split("<tr>") if row.startswith(f'<td class="text">{name}</td>')]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "{folder}/net.onnx"], "expected two or more models"),
        (["--compare", "{folder}/net.onnx", "{folder}/net.onnx"], "--data is missing"),
        (["--model=x", "--embeddings=y", "--data=z"], "give one of them"),
        (["--embeddings=y", "--data=z", "--weights=ema"], "--weights: of a --model"),
        (["--embeddings=y", "--data=z", "--landmarks=template"], "--landmarks: of a --model"),
        (["--model={folder}/net.onnx"], "--data is missing"),
        (
            ["--model={folder}/net.onnx", "--protocol=ijb", "--data={folder}"],
            "0 of the files meta/",
        ),
        (["--model={folder}/net.onnx", "--protocol=pairs", "--data=x=y"], "x is no part of pairs"),
        (["--embeddings={folder}/faces.bin", "--data={folder}/faces.bin"], "no array that can"),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(faces, run_cli, tmp_path, arguments, message):
    check_one_line(run_cli, faces[0], tmp_path / "out", arguments, message)
