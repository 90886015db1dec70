"""The command: from features to answers, and what it refuses."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from tests.helpers.onnx_graphs import face_network
from uniface_jax import Embedder, Gallery
from uniface_jax.data.formats.images import decode, encode_png


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return face_network(tmp_path_factory.mktemp("model") / "face.onnx", metadata=SCALED)


SCALED = {"Image.NominalPixelRange": "Normalized_1_1"}


@pytest.fixture(scope="module")
def table(faces, model, run_cli, tmp_path_factory):
    output = tmp_path_factory.mktemp("table") / "features.parquet"
    done = run_cli("embed", faces, f"--model={model}", f"--output={output}", "--nomirror")
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def built(table, run_cli):
    folder = table.with_name("gallery")
    done = run_cli("gallery", "build", table, f"--output={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder}: 23 faces added, 23 now\n"
    return folder


@pytest.fixture
def gallery(built, tmp_path):
    return shutil.copytree(built, tmp_path / "g")


def metrics(model, tmp_path):
    embedder = Embedder(model, mirror=False)
    found = [{"far": 0.01, "resolvable": True, "threshold_cosine": 0.9}]
    found.append({"far": 1e-4, "resolvable": True, "threshold_cosine": 0.9999})
    content = {
        "model": {"name": "m", "sha256": embedder.sha256, "description": embedder.description},
        "protocols": {"folders": {"sets": {"faces": {"thresholds": found}}}},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    return tmp_path / "metrics.json"


def test_photographs_are_found(gallery, faces, model, run_cli, tmp_path):
    stranger = tmp_path / "stranger.png"
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    stranger.write_bytes(encode_png(noise))
    sheet, report = tmp_path / "sheet.png", tmp_path / "answers.json"
    done = run_cli(
        "gallery", "search", gallery, faces / "s10" / "3.jpg", stranger, f"--model={model}",
        "--nomirror", "-k", "2", "--far=1e-4", f"--calibration={metrics(model, tmp_path)}",
        f"--sheet={sheet}", f"--report={report}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(report.read_text())
    assert found["threshold"] == {
        "cosine": 0.9999,
        "far": 1e-4,
        "fpir": pytest.approx(1 - (1 - 1e-4) ** 23),
        "measured_on": "folders/faces",
    }
    known, unknown = found["answers"]
    assert (known["answer"], unknown["answer"]) == ("s10", "unknown")
    assert [each["accepted"] for each in known["nearest"]] == [True, False]
    assert known["nearest"][0]["name"] == "s10/3.jpg"
    assert known["nearest"][0]["cosine"] == pytest.approx(1)
    assert len(unknown["nearest"]) == 2
    drawn = decode(sheet.read_bytes(), "sheet")
    face = decode((faces / "s10" / "3.jpg").read_bytes(), "face")
    # The query and the first answer, the same photograph, beside each other.
    for left in (6, 6 + 124):
        np.testing.assert_array_equal(drawn[6:118, left : left + 112], face)


def test_faces_are_added_removed_and_merged(gallery, table, run_cli, tmp_path):
    done = run_cli("gallery", "add", gallery, table)
    assert done.stdout == f"{gallery}: 23 faces added, 46 now\n"
    done = run_cli("gallery", "remove", gallery, "--people=s1", "--names=s2/1.jpg", "--ids=45")
    assert (done.returncode, done.stdout) == (0, f"{gallery}: 17 faces removed, 29 left\n")
    done = run_cli("gallery", "merge", gallery)
    assert done.stdout == f"{gallery}: 29 faces, in one part\n"
    people = Counter(row.person for row in Gallery(gallery).rows())
    assert people == {"s2": 8, "s10": 21}
    done = run_cli("gallery", "search", gallery, table, "-k", "1", "--threshold=0.99")
    answers = json.loads(done.stdout)["answers"]
    named = [answer["answer"] for answer in answers]
    assert named[:7] == ["unknown"] * 7
    assert named[-10:] == ["s10"] * 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "{g}"], "expected photographs, or tables of features"),
        (["search", "{g}", "a.jpg"], "--model is missing: the network that embeds a.jpg"),
        (["search", "{g}", "{t}", "--far=1e-4"], "--far: --calibration is missing"),
        (["search", "{g}", "{t}", "--far=1e-4", "--fpir=0.1"], "--far and --fpir: give one"),
        (["search", "{g}", "{t}", "--calibration=x"], "--calibration: only with --far or --fpir"),
        (["search", "{g}", "{t}", "--far=0.5", "--calibration={m}"], "FAR 0.5 was not measured"),
        (["search", "{g}", "{t}", "--fpir=1e-4", "--calibration={m}"], "a FAR of 4.3e-06, and"),
        (["search", "{g}", "{other}"], "7 numbers; expected 8"),
        (["build", "{t}", "--output={g}"], "a gallery is there already"),
        (["build", "{t}"], "--output is missing"),
        (["remove", "{g}"], "--ids, --names or --people says which faces"),
        (["remove", "{g}", "--ids=99"], "no row has the id 99"),
        (["count", "{g}"], "count: expected one of build, search, add, remove, merge, index"),
    ],
)
def test_bad_choices_are_one_line(arguments, words, gallery, table, model, run_cli, tmp_path):
    np.save(tmp_path / "other.npy", np.ones((2, 7), np.float32))
    places = {
        "g": gallery, "t": table, "other": tmp_path / "other.npy", "m": metrics(model, tmp_path)
    }  # fmt: skip
    done = run_cli("gallery", *(text.format(**places) for text in arguments))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line


def test_an_index_answers_too(gallery, table, run_cli):
    done = run_cli("gallery", "index", gallery)
    assert done.returncode == 0, done.stderr
    assert "of the 10 nearest, measured on 23 of its faces" in done.stdout
    done = run_cli("gallery", "search", gallery, table, "-k", "1", "--method=approximate")
    answers = json.loads(done.stdout)["answers"]
    assert [answer["nearest"][0]["name"] for answer in answers] == [a["query"] for a in answers]
