"""python -m uniface_jax.import_weights, and what evaluation, export and fine-tuning make of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import release_weights
from tests.helpers.trained_networks import shapes_of
from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.errors import UserError
from uniface_jax.inference.network import load_network, load_workdir
from uniface_jax.runtime.parallel import create_runner
from uniface_jax.state import class_sharded
from uniface_jax.train import from_config
from uniface_jax.weights.names import to_state
from uniface_jax.weights.state_files import write_safetensors
from uniface_jax.weights.workdir import import_weights


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A state dict with a head of 7 classes, and its file."""
    network = models.create(
        "lresnet18", width=4, embedding_size=6, stem_stride=2, stage_sizes=(1, 1, 2, 1)
    )
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape), shapes_of(network))
    state = to_state(network, dict(zip(("params", "batch_stats"), drawn, strict=True)))
    state |= {"loss.weight": rng.normal(size=(7, 6)), "loss.bias": np.array([4.2])}
    path = tmp_path_factory.mktemp("small") / "small.npz"
    np.savez(path, **state)
    return path, state, network


@pytest.fixture(scope="module")
def golden_state(golden):
    state = release_weights.torch_state(golden.seed)
    return {name: array.astype(np.float32) for name, array in state.items()}


@pytest.fixture(scope="module")
def golden_workdir(golden_state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    np.savez(folder / "backbone.npz", **golden_state)
    import_weights(folder / "backbone.npz", folder / "run")
    return folder / "run"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_golden_weights_of_other_files_are_the_same(golden_state, golden_workdir, tmp_path, suffix):
    """By the bits of its weights, and so by its features."""
    path = tmp_path / f"backbone{suffix}"
    if suffix == ".safetensors":
        write_safetensors(path, golden_state, {})
    else:
        torch = pytest.importorskip("torch")
        tensors = {f"module.{name}": torch.tensor(array) for name, array in golden_state.items()}
        torch.save({"epoch": 28, "state_dict": tensors}, path)
    import_weights(path, tmp_path / "run")
    found, weights, _ = load_network(tmp_path / "run")
    expected, expected_weights, _ = load_network(golden_workdir)
    assert found == expected
    jax.tree.map(np.testing.assert_array_equal, weights, expected_weights)


def test_golden_features_in_float32(golden, golden_workdir):
    images = release_weights.draw(golden.seed, "images").integers(
        0, 256, (6, 112, 112, 3), dtype=np.uint8
    )
    expected = golden("backbone")["eval_features"]
    found = load_workdir(golden_workdir).embed(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_command(small, run_cli, tmp_path):
    path, state, _ = small
    done = run_cli("import_weights", path, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "release's network (name lresnet50, stage_sizes (1, 1, 2, 1), width 4" in done.stdout
    assert "7 classes" in done.stdout
    report = json.loads((tmp_path / "run" / "import.json").read_text())
    assert {row["name"] for row in report["tensors"]} == state.keys()
    assert report["model"]["stem_stride"] == 2

    again = run_cli("import_weights", path, tmp_path / "run")
    assert again.returncode == 2
    assert again.stderr == f"error: {tmp_path}/run: holds a run already; give a new folder\n"


def test_the_checkpoint_holds_the_head_and_a_config_that_passes_its_checks(small, tmp_path):
    path, written, network = small
    import_weights(path, tmp_path / "run")
    state, run = reading.read(tmp_path / "run")
    config = configs.from_json(run["config"])
    configs.check(config, num_devices=1)
    assert (tmp_path / "run" / "config.json").read_text().strip() == run["config"].strip()
    np.testing.assert_allclose(state.weights.prototypes, written["loss.weight"], rtol=1e-6)
    assert float(state.weights.bias) == pytest.approx(4.2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.weights)} == {"float32"}
    assert run["data"]["num_classes"] == 7
    found, variables, info = load_network(tmp_path / "run")
    assert found.stem_stride == network.stem_stride
    assert info["step"] == 0
    expected = np.float32(written["layer3.1.bn1.running_mean"])
    np.testing.assert_array_equal(variables["batch_stats"]["layer3_1"]["bn1"]["mean"], expected)


@pytest.fixture
def fine_tuned(monkeypatch):
    """The state before the first step of a run that starts from a workdir."""
    create_state = from_config.create_state

    def threes(*arguments):  # in place of random weights, whose compilation takes long
        shapes = jax.eval_shape(lambda: create_state(*arguments))
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 3, leaf.dtype), shapes)

    monkeypatch.setattr(from_config, "create_state", threes)

    def start(workdir, loss="uce"):
        config = configs.base()
        config.model.update(
            name="lresnet18", width=4, embedding_size=6, stem_stride=2, stage_sizes=(1, 1, 2, 1)
        )
        config.loss.name = loss
        config.finetune = str(workdir)
        recipe = from_config.make_recipe(config, 70, 7)
        runner = create_runner("auto", class_sharded(recipe.shapes))
        state = from_config.initial_state(recipe, runner)
        return runner.logical(runner.from_global(state))

    return start


def test_fine_tuning_starts_from_network_and_matching_head(small, fine_tuned, tmp_path):
    path, written, _ = small
    import_weights(path, tmp_path / "run")
    state = fine_tuned(tmp_path / "run")
    kernel = written["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(
        state.weights.network["layer1_0"]["conv1"]["kernel"], kernel, rtol=1e-6
    )
    np.testing.assert_allclose(state.weights.prototypes, written["loss.weight"], rtol=1e-6)
    assert float(state.weights.bias) == pytest.approx(4.2)


def test_fine_tuning_without_a_head_starts_a_new_one(small, fine_tuned, tmp_path):
    _, written, _ = small
    headless = {name: array for name, array in written.items() if not name.startswith("loss.")}
    np.savez(tmp_path / "headless.npz", **headless)
    imported = import_weights(tmp_path / "headless.npz", tmp_path / "run")
    assert imported.prototypes is None
    state = fine_tuned(tmp_path / "run")
    np.testing.assert_array_equal(state.weights.prototypes, np.full((7, 6), 3))
    np.testing.assert_array_equal(state.weights.bias, 3)


@pytest.mark.parametrize("shape", [(7,), (1, 7)])  # the latter is the release's
def test_a_bias_a_class_is_bces(small, fine_tuned, tmp_path, shape):
    _, written, _ = small
    bias = np.arange(7.0).reshape(shape)
    np.savez(tmp_path / "bce.npz", **{**written, "loss.bias": bias})
    import_weights(tmp_path / "bce.npz", tmp_path / "run")
    state = fine_tuned(tmp_path / "run", loss="bce")
    np.testing.assert_array_equal(state.weights.bias, np.arange(7.0))


def test_nothing_is_written_for_a_bad_file(small, tmp_path):
    _, written, _ = small
    np.savez(tmp_path / "bad.npz", **{**written, "extra": np.ones(2)})
    with pytest.raises(UserError, match=r"bad\.npz: extra is without a place"):
        import_weights(tmp_path / "bad.npz", tmp_path / "run")
    assert not (tmp_path / "run").exists()
