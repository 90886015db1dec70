"""Weights of a workdir as PyTorch reads them: strictly, by the names of both implementations."""

import jax
import numpy as np
import pytest

from tests.helpers.trained_networks import SMALL_OTHERS, trained_looking
from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.errors import UserError
from uniface_jax.export.pytorch import Form, write_weights
from uniface_jax.inference.network import load_network
from uniface_jax.state import TrainState, Weights
from uniface_jax.weights.state_files import read_state
from uniface_jax.weights.workdir import import_weights

CLASSES = 7
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 112, 112, 3)).astype(np.float32)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch: make torch")


def workdir_of(path, name, loss="cosface"):
    """Make a workdir whose only checkpoint holds trained-looking weights, and a head."""
    config = configs.base()
    sizes = dict(SMALL_OTHERS[name])
    features = config.model.embedding_size = sizes.pop("embedding_size")
    config.model.name, config.loss.name = name, loss
    config.model[models.family(name)].update(sizes)
    configs.claim_workdir(path, config)
    variables = trained_looking(configs.create_network(config))
    draw = np.random.default_rng(1).normal
    weights = Weights(
        variables["params"],
        draw(size=(CLASSES, features)).astype(np.float32),
        np.float32(0.0 if loss == "cosface" else 4.25),
    )
    momentum = jax.tree.map(np.zeros_like, weights)
    state = TrainState(np.zeros((), np.int32), weights, momentum, variables["batch_stats"])
    data = {"samples": 0, "num_examples": 70, "num_classes": CLASSES}
    checkpoints = Checkpoints(path)
    checkpoints.save(state, {"config": configs.to_json(config), "data": data})
    checkpoints.wait()
    checkpoints.close()
    return weights


def written(workdir, form, output):
    network, variables, facts = load_network(workdir)
    write_weights(network, variables, output, form, facts, {"uniface_jax.step": "0"})
    return network, variables


@pytest.mark.parametrize("name", SMALL_OTHERS)
@pytest.mark.parametrize("format_", ["safetensors", "pth"])
def test_strict_load_and_back(torch, tmp_path, name, format_):
    from torch_families import in_torch

    weights = workdir_of(tmp_path / "run", name)
    path = tmp_path / f"weights.{format_}"
    network, variables = written(tmp_path / "run", Form(format_), path)
    if format_ == "pth":
        state = torch.load(path, weights_only=True)
    else:
        state = {key: torch.tensor(array) for key, array in read_state(path).items()}
    module = in_torch(network).eval()
    module.load_state_dict(state, strict=True)
    with torch.no_grad():
        found = module(torch.tensor(IMAGES.transpose(0, 3, 1, 2))).numpy()
    expected = models.features(network, variables, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    heads = SMALL_OTHERS[name].get("heads")
    imported = import_weights(path, tmp_path / "back", heads=heads)
    jax.tree.map(np.testing.assert_array_equal, imported.params, weights.network)
    # PyTorch's own state dict, with its counters, comes in as well.
    torch.save({"state_dict": module.state_dict()}, tmp_path / "theirs.pth")
    again = import_weights(tmp_path / "theirs.pth", tmp_path / "again", heads=heads)
    jax.tree.map(np.testing.assert_array_equal, again.params, weights.network)
    jax.tree.map(np.testing.assert_array_equal, again.batch_stats, variables["batch_stats"])


def test_arcface_torchs_checkpoint_with_its_head(torch, tmp_path):
    weights = workdir_of(tmp_path / "run", "mbf")
    path = tmp_path / "checkpoint_gpu_0.pt"
    written(tmp_path / "run", Form("pth", with_head=True), path)
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"state_dict_backbone", "state_dict_softmax_fc"}
    assert content["state_dict_softmax_fc"].keys() == {"weight"}
    # A second GPU's rows, as train_v2.py saves them.
    rows = torch.ones(2, weights.prototypes.shape[1])
    torch.save(
        {**content, "state_dict_softmax_fc": {"weight": rows}}, tmp_path / "checkpoint_gpu_1.pt"
    )
    imported = import_weights(path, tmp_path / "back", with_head=True)
    np.testing.assert_array_equal(imported.prototypes[:CLASSES], weights.prototypes)
    np.testing.assert_array_equal(imported.prototypes[CLASSES:], rows)


@pytest.mark.parametrize("loss", ["cosface", "uce"])
def test_the_head_comes_back_bitwise_without_pytorch(tmp_path, loss):
    weights = workdir_of(tmp_path / "run", "mbf", loss)
    path = tmp_path / "weights.safetensors"
    written(tmp_path / "run", Form("safetensors", with_head=True), path)
    assert ("state_dict_softmax_fc.bias" in read_state(path)) == (loss == "uce")
    imported = import_weights(path, tmp_path / "back", with_head=True)
    np.testing.assert_array_equal(imported.prototypes, weights.prototypes)
    # A loss without a bias leaves UCE's start, which training replaces.
    assert float(imported.bias) == pytest.approx(4.25 if loss == "uce" else np.log(10 * CLASSES))
    again = tmp_path / "again.safetensors"
    written(tmp_path / "back", Form("safetensors", with_head=True), again)
    first, second = read_state(path), read_state(again)
    assert first.keys() <= second.keys()
    for key, array in first.items():
        np.testing.assert_array_equal(second[key], array)
    assert import_weights(path, tmp_path / "headless").prototypes is None
    with pytest.raises(UserError, match="headless: --with_head: has none, as it was imported wit"):
        written(tmp_path / "headless", Form("safetensors", with_head=True), again)


def test_cvlfaces_names(tmp_path):
    workdir_of(tmp_path / "run", "vit_t")
    path = tmp_path / "weights.safetensors"
    written(tmp_path / "run", Form("safetensors", cvlface=True), path)
    state = read_state(path)
    assert all(name.startswith("net.") for name in state)
    imported = import_weights(path, tmp_path / "back", heads=4)
    assert imported.model["vit"]["dim"] == 32


def test_pth_files_are_equal_bytes(torch, tmp_path):
    workdir_of(tmp_path / "run", "mbf")
    for name in ("first.pth", "second.pth"):
        written(tmp_path / "run", Form("pth"), tmp_path / name)
    assert (tmp_path / "first.pth").read_bytes() == (tmp_path / "second.pth").read_bytes()


@pytest.mark.slow
def test_commands(run_cli, tmp_path):
    workdir_of(tmp_path / "run", "vit_t")
    path = tmp_path / "face.safetensors"
    flags = [f"--workdir={tmp_path}/run", "--format=safetensors", "--with_head"]
    done = run_cli("export", *flags, f"--output={path}")
    assert done.returncode == 0, done.stderr
    done = run_cli("import_weights", path, tmp_path / "back")
    assert done.returncode == 2
    assert "give --heads" in done.stderr
    done = run_cli("import_weights", path, tmp_path / "back", "--heads=4", "--with_head")
    assert done.returncode == 0, done.stderr
    assert "vit.heads 4" in done.stdout
    assert f"{CLASSES} classes" in done.stdout
