"""The command: from photographs to each format of table."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.helpers.onnx_graphs import expected_features, face_network
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats.images import decode, encode_png
from uniface_jax.data.sources.photographs import open_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A flat folder of two photographs with a face each, and one of noise."""
    folder = tmp_path_factory.mktemp("photos")
    for number in (1, 2):
        content = (orl_folder() / "s31" / f"{number}.pgm").read_bytes()
        (folder / f"{number}.pgm").write_bytes(content)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    (folder / "3.png").write_bytes(encode_png(noise))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return face_network(tmp_path_factory.mktemp("model") / "face.onnx")


def test_parquet_of_a_flat_folder_with_alignment(photos, model, run_cli, tmp_path):
    output = tmp_path / "features.parquet"
    done = run_cli(
        "embed", photos, f"--model={model}", f"--output={output}", "--align", "--faces=all",
        "--input_scale=unit",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 features of 8 numbers" in done.stdout
    rows = pq.read_table(output).to_pydict()
    assert rows["name"] == ["1.pgm", "2.pgm"]
    assert rows["person"] == [None, None]
    assert rows["photograph"] == [0, 1]
    assert rows["face"] == [0, 0]
    assert min(rows["score"]) > 0.6
    assert min(rows["box_width"]) > 30
    norms = np.linalg.norm(np.array(rows["feature"]), axis=1)
    np.testing.assert_allclose(rows["norm"], norms, rtol=1e-6)
    with output.with_name("features.parquet.left_out.csv").open() as file:
        assert list(csv.reader(file)) == [["name", "reason"], ["3.png", "no face found"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features.parquet", "features.parquet.json", "features.parquet.left_out.csv"
    ]  # fmt: skip
    assert json.loads((tmp_path / "features.parquet.json").read_text())["rows"] == 2


def test_csv_of_a_list_without_alignment(faces, model, run_cli, tmp_path):
    listed = faces / "paths.txt"
    listed.write_text("s1/1.jpg\ns10/2.png\n")
    output = tmp_path / "features.csv"
    flags = [f"--model={model}", f"--output={output}", "--input_scale=unit", "--nomirror"]
    done = run_cli("embed", listed, *flags)
    listed.unlink()
    assert done.returncode == 0, done.stderr
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["s1/1.jpg", "s10/2.png"]
    pixels = np.stack([decode((faces / row["name"]).read_bytes(), "") for row in rows])
    features = [[float(row[f"f{i}"]) for i in range(8)] for row in rows]
    np.testing.assert_allclose(features, expected_features(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=m.onnx"], "--output is missing; usage: "),
        (["--output=f.npy"], "--model is missing; usage: "),
        (["--model=m.onnx", "--output=f.txt"], "expected a name that ends in .parquet, .npy, .csv"),
        (["--model=m.onnx", "--output=f.npy", "--faces=all"], "--faces: only with --align"),
        (["--model=m.onnx", "--output=f.npy"], "m.onnx: no such model"),
    ],
)
def test_bad_choices_are_one_line(flags, words, faces, run_cli, tmp_path):
    done = run_cli("embed", faces, *flags, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_data_set_and_a_picture_is_the_data_set(dataset, tmp_path):
    (tmp_path / "logo.png").write_bytes(encode_png(np.zeros((9, 9, 3), np.uint8)))
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"train\.parquet"):
        open_images(str(tmp_path))
