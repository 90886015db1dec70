"""python -m uniface_jax.export, as a user runs it."""

import json
import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import onnx
import pytest
from safetensors import safe_open

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT
from tests.helpers.trained_networks import SMALL, trained_looking
from uniface_jax import models
from uniface_jax.weights.recognise import from_state
from uniface_jax.weights.state_files import read_state

# The command with a workdir's network replaced by a small one: no run has to be trained first.
WITH_SMALL_NETWORK = """
import pathlib
from tests.helpers.trained_networks import SMALL, trained_looking
from uniface_jax import cli, models
from uniface_jax.export.__main__ import main
from uniface_jax.inference import network

def load_network(workdir):
    network = models.create("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    facts = {"step": 70, "digest": "abc", "workdir": pathlib.Path("nowhere"), "run": {}}
    return network, trained_looking(network), facts

network.load_network = load_network
cli.run(main)
"""


def run_small(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", WITH_SMALL_NETWORK, "--workdir=run", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": FAST_COMPILATION},
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    arguments = [f"--output={folder}/face.onnx", f"--report={folder}/export.json"]
    return folder, run_small(*arguments, "--zip", "--nomirror", "--cross-check")


def test_export(exported):
    folder, printed = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "export.json",
        "face.onnx",
        "face.onnx.card.json",
        "face.onnx.card.md",
        "model.zip",
    ]
    assert json.loads((folder / "export.json").read_text()) == printed
    assert printed["bytes"] == (folder / "face.onnx").stat().st_size
    assert set(printed["differences"]) == {"1", "3", "5"}
    assert 0 < max(printed["differences"].values()) <= 1e-5
    assert printed["cross_check"]["faces"] == 100
    assert 0 < printed["cross_check"]["difference"] <= 1e-5
    assert printed["cross_check"]["nodes"] > printed["nodes"]
    with zipfile.ZipFile(folder / "model.zip") as archive:
        assert archive.read("model.onnx") == (folder / "face.onnx").read_bytes()
    model = onnx.load(folder / "face.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties.pop("uniface_jax.version") == model.producer_version
    assert properties == {
        "uniface_jax.mirror": "0",
        "uniface_jax.step": "70",
        "uniface_jax.digest": "abc",
    }
    assert printed["nodes"] == len(model.graph.node) == 28


def test_check(exported, run_cli):
    folder, _ = exported
    report = folder / "check.json"
    model = onnx.load(folder / "face.onnx")
    model.graph.node[0].name, model.graph.node[1].name = "Sub0", "Mul0"
    onnx.save(model, folder / "bad.onnx")
    done = run_cli("export", f"--check={folder}/bad.onnx", "--track=ms1m", f"--report={report}")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert failed[0] == (
        "FAILED  input scale: raw 0..255 (by node names) to a graph that does not normalize its "
        "input (allowed: one normalization in all)"
    )
    assert failed[1].startswith("FAILED  recognizes people: AUC 0.")  # nobody trained it
    assert len(failed) == 2
    rules = json.loads(report.read_text())
    assert rules["passed"] is False
    assert len(rules["rules"]) == len(done.stdout.splitlines()) == 21
    assert sum(rule["passed"] is False for rule in rules["rules"]) == 2


def test_safetensors_come_back_bitwise(tmp_path):
    path = tmp_path / "face.safetensors"
    printed = run_small("--format=safetensors", f"--output={path}")
    state = read_state(path)
    assert printed["tensors"] == len(state)
    assert printed["family"] == "release"
    assert printed["bytes"] == path.stat().st_size
    imported = from_state(state, "face")
    network = models.create("lresnet18", **SMALL, stage_sizes=(1, 1, 1, 1))
    expected = trained_looking(network)
    jax.tree.map(np.testing.assert_array_equal, imported.params, expected["params"])
    jax.tree.map(np.testing.assert_array_equal, imported.batch_stats, expected["batch_stats"])
    with safe_open(path, "np") as file:
        assert file.metadata()["uniface_jax.step"] == "70"


def test_bad_flags(run_cli, tmp_path):
    for flags, named in (
        ([f"--check={tmp_path}/no.onnx"], "no.onnx"),
        (["--opset=9"], "opset"),
        (["--format=tflite", "--zip"], "--zip: only for --format=onnx, not tflite"),
        (["--cvlface"], "--cvlface: only for --format=safetensors or pth, not onnx"),
    ):
        done = run_cli("export", *flags)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        assert named in done.stderr
