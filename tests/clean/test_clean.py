import csv
import json

import cv2
import numpy as np
import pytest

from tests.clean.test_duplicates import texture
from tests.clean.test_people import faces
from tests.helpers.html_pages import check_is_clean
from uniface_jax.data.sources.opening import open_source

NAMES = ["=1+1", "<img src=x onerror=alert(1)>", "ann", "zoë"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a folder of four people, and a file of features; FAULTS says what is wrong."""
    folder = tmp_path_factory.mktemp("planted")
    features, labels = faces(np.random.default_rng(0), 4, 6, width=256)
    images = [texture(i) for i in range(24)]
    images[9] = images[8]  # exact
    images[15] = np.clip(images[14][3:109, 3:109] * 0.9, 0, 255).astype(np.uint8)  # near
    features[15] = features[14] + 0.01 * features[13]
    features[2] = features[20]  # an image of the fourth under the first
    images[23] = np.zeros((112, 112, 3), np.uint8)
    for number, image in enumerate(images):
        person = folder / "faces" / NAMES[labels[number]]
        person.mkdir(parents=True, exist_ok=True)
        file = cv2.imencode(".png", cv2.resize(image, (112, 112))[..., ::-1])[1].tobytes()
        (person / f"{number:02d}.png").write_bytes(file)
    source = open_source(folder / "faces")
    order = [int(source.item_name(i).rpartition("/")[2][:2]) for i in range(24)]
    np.save(folder / "features.npy", features[order].astype(np.float32))
    return folder


def test_command_finds_writes_and_applies(planted, tmp_path, run_cli):
    done = run_cli(
        "clean", planted / "faces", f"--embeddings={planted / 'features.npy'}",
        f"--output={tmp_path / 'out'}", f"--apply={tmp_path / 'new'}", "--detector=none",
        "--least_sharpness=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "products of 256 numbers" in done.stdout
    found = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    by_kind = {
        kind: [f["name"].rpartition("/")[2] for f in found if f["kind"] == kind]
        for kind in {f["kind"] for f in found}
    }
    assert by_kind == {
        "exact_duplicate": ["09.png"],
        "near_duplicate": ["15.png"],
        "stranger": ["02.png"],
        "no_face": ["23.png"],
    }
    (stranger,) = (f for f in found if f["kind"] == "stranger")
    assert (stranger["person"], stranger["other_person"]) == ("=1+1", "zoë")
    lines = (tmp_path / "out" / "findings.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["kind"] for row in rows] == [f["kind"] for f in found]
    assert all(not value.startswith("=") for row in rows for value in row.values())
    page = (tmp_path / "out" / "report.html").read_text()
    check_is_clean(page)
    assert (tmp_path / "out" / "sheets" / "near_duplicate.jpg").is_file()
    cleaned = open_source(tmp_path / "new")
    assert len(cleaned) == 20
    assert sorted(cleaned.class_names) == sorted(NAMES)
    manifest = json.loads((tmp_path / "new" / "clean.json").read_text())
    assert manifest["acted_on"] == dict.fromkeys(by_kind, 1)
    assert {change["name"] for change in manifest["changes"]} == {f["name"] for f in found}
    assert len(list((planted / "faces").rglob("*.png"))) == 24


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model or --embeddings"),
        (["--embeddings=f.npy"], "--output is missing"),
        (["--embeddings=f.npy", "--output=o", "--checks=faces"], "--checks=faces: expected"),
        (["--embeddings=f.npy", "--output=o", "--apply_kinds=all"], "--apply_kinds=all"),
        (["--embeddings=nowhere.npy", "--output=o"], "nowhere.npy: no such file"),
    ],
)
def test_bad_input(arguments, words, run_cli, tmp_path):
    done = run_cli("clean", "synthetic:3:9", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_plan_says_what_it_takes_and_ends(planted, tmp_path, run_cli):
    done = run_cli(
        "clean", planted / "faces", f"--embeddings={planted / 'features.npy'}",
        f"--output={tmp_path / 'out'}", "--plan",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "near duplicates among 24 images" in done.stdout
    assert not (tmp_path / "out" / "findings.json").exists()
