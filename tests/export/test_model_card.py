"""The model card: all that a workdir knows, the same each time, and "unknown" for all else."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from tests.helpers.paths import FIXTURES
from uniface_jax.checkpoints import reading
from uniface_jax.export.model_card import (
    UNKNOWN,
    Artifact,
    Origin,
    markdown,
    model_card,
    write_card,
)

DIGEST = "d" * 64
OF_THIS = b'{"model": {"sha256": "' + DIGEST.encode() + b'"}, "protocols": '


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(FIXTURES / "ec4f2e5" / "run", tmp_path / "run")


def origin_of(workdir):
    step, _, run = reading.read_network(workdir)
    return Origin(workdir, step, DIGEST, run)


def artifact_in(folder, name="face.onnx", kind="onnx"):
    path = folder / name
    path.write_bytes(b"weights")
    return Artifact(path, kind, features=8, mirror=True, parameters=17_364)


def evaluated(workdir, digest=DIGEST):
    """Puts a finished evaluation of the weights `digest` into a workdir."""
    found = json.loads((FIXTURES / "ec4f2e5" / "results" / "metrics.json").read_text())
    found["model"]["sha256"] = digest
    (workdir / "evaluation").mkdir()
    (workdir / "evaluation" / "metrics.json").write_text(json.dumps(found))
    return found


def test_what_a_run_knows(workdir, tmp_path):
    evaluated(workdir)
    card = model_card(artifact_in(tmp_path), origin_of(workdir))
    assert card["file"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert card["file"]["bytes"] == 7
    assert card["input"]["shape"] == ["batch", 3, 112, 112]
    assert "(x - 127.5) / 127.5" in card["input"]["scale"]
    assert card["output"]["mirror_sum"] == "in the file: f(x) + f(mirrored x)"
    assert card["network"]["name"] == "lresnet18"
    assert card["network"]["settings"]["width"] == 4
    training = card["training"]
    assert (training["data"], training["images"], training["classes"]) == ("faces", 40, 8)
    assert (training["recipe"], training["steps"]) == ("demo", 3)
    assert training["loss"] == {
        "name": "uce", "scale": 64.0, "margin": 0.4, "negative_weight": 1.0,
    }  # fmt: skip
    assert training["commit"].startswith("ec4f2e5")
    assert training["versions"]["jax"] == "0.10.2"
    assert training["finetuned_from"] is None
    assert card["imported"] is None
    assert card["validation"] == {
        "step": 3, "pairs/auc": 0.84, "pairs/accuracy": 0.8, "auc": 0.84,
    }  # fmt: skip
    cells = card["evaluation"]["protocols"]["verification"]["pairs"]
    assert cells["pairs"] == "40"
    assert "0.91" in cells["AUC"]


def test_both_files_are_the_same_each_time_and_show_no_folder(workdir, tmp_path):
    evaluated(workdir)
    artifact = artifact_in(tmp_path)
    written = []
    for _ in range(2):
        path = write_card(artifact, origin_of(workdir))
        assert path == tmp_path / "face.onnx.card.md"
        written.append((path.read_text(), (tmp_path / "face.onnx.card.json").read_text()))
    assert written[0] == written[1]
    text, data = written[0]
    assert json.loads(data) == model_card(artifact, origin_of(workdir))
    for shown in ("| commit | ec4f2e5", "| images | 40 |", "## Responsible use", "pairs/auc"):
        assert shown in text
    for folder in (str(tmp_path), "/work/base"):
        assert folder not in text + data


def test_an_evaluation_of_other_weights_is_not_this_ones(workdir, tmp_path):
    evaluated(workdir, digest="0" * 64)
    card = model_card(artifact_in(tmp_path), origin_of(workdir))
    assert card["evaluation"] == "unknown: evaluation/metrics.json is of other weights"


def test_a_validation_after_the_checkpoint_is_not_its_own(workdir, tmp_path):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "eval/auc": 0.99}\n{"step": 7, "eval')
    card = model_card(artifact_in(tmp_path), origin_of(workdir))
    assert card["validation"]["step"] == 3


def test_the_mean_of_the_weights_is_named(workdir, tmp_path):
    artifact = artifact_in(tmp_path)
    assert "weights" not in model_card(artifact, origin_of(workdir))["network"]
    card = model_card(replace(artifact, weights="ema"), origin_of(workdir))
    assert "optim.ema" in card["network"]["weights"]
    assert "| weights | their mean over the steps" in markdown(card)


def test_imported_weights(tmp_path):
    found = {"source": "/home/a/net.pth", "sha256": "1" * 64, "family": "arcface_torch"}
    (tmp_path / "import.json").write_text(json.dumps(found))
    run = {"config": json.dumps({"model": {"name": "iresnet50"}}), "data": {"num_examples": 0}}
    origin = Origin(tmp_path, 0, DIGEST, run)
    card = model_card(artifact_in(tmp_path, "w.safetensors", "safetensors"), origin)
    assert card["imported"]["source"] == "net.pth"
    assert card["imported"]["family"] == "arcface_torch"
    assert card["network"]["name"] == "iresnet50"
    for key in ("data", "images", "classes", "recipe", "commit", "versions"):
        assert card["training"][key] == UNKNOWN
    assert "add f(mirrored x)" in card["output"]["mirror_sum"]
    assert "net.pth" in write_card(artifact_in(tmp_path), origin).read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"[1, 2]", b"\xff\xfe", b"[" * 5000,
        b'{"data": 3, "command": 4}',
        OF_THIS + b'{"verification": 1}}',
        OF_THIS + b'{"mine": {"sets": {"a": 1}}}}',
        b'{"step": "x", "eval/auc": "\\ud800|\\n"}',
        b'{"eval/auc": 1, "step": 1}',
    ],
)  # fmt: skip
def test_a_damaged_workdir_is_unknown(content, tmp_path):
    (tmp_path / "evaluation").mkdir()
    for name in ("run.json", "import.json", "metrics.jsonl", "evaluation/metrics.json"):
        (tmp_path / name).write_bytes(content)
    for run in ({}, {"config": content.decode("latin-1")}, {"config": 3, "data": []}):
        path = write_card(artifact_in(tmp_path), Origin(tmp_path, 5, DIGEST, run))
        assert "unknown" in path.read_text()
        json.loads((tmp_path / "face.onnx.card.json").read_text())


def test_a_folder_is_digested_with_its_names(tmp_path):
    folder = tmp_path / "face.savedmodel"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"numbers")
    artifact = Artifact(folder, "savedmodel", 8, mirror=False, parameters=1)
    origin = Origin(tmp_path, 1, DIGEST, {})
    first = model_card(artifact, origin)["file"]
    assert first["bytes"] == 12
    (folder / "saved_model.pb").rename(folder / "saved_model.pbtxt")
    assert model_card(artifact, origin)["file"]["sha256"] != first["sha256"]


def test_a_data_set_of_the_field_is_known_by_its_numbers(tmp_path):
    sizes = [(490_623, 10_572, "CASIA-WebFace"), (490_622, 10_572, None)]
    for images, classes, title in sizes:
        data = {"data": {"images": images, "classes": classes}}
        (tmp_path / "run.json").write_text(json.dumps(data))
        card = model_card(artifact_in(tmp_path), Origin(tmp_path, 1, DIGEST, {}))
        found = card["training"]["known_set"]
        assert found == title or found.startswith(f"{title}, by these numbers; Yi, Lei")


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        (["train", "--config=/a/configs/casia.py:uce_m", "--config.steps=5"], "casia:uce_m"),
        (["train", "--config", "casia:uce_m"], "casia:uce_m"),
        (["train", "-config=demo"], "demo"),
        (["train", "--workdir=w"], "demo"),
        ("train", UNKNOWN),
    ],
)
def test_the_recipe_of_a_command(command, recipe, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"command": command}))
    card = model_card(artifact_in(tmp_path), Origin(tmp_path, 1, DIGEST, {}))
    assert card["training"]["recipe"] == recipe
