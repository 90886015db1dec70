"""Networks as functions, and checkpoints whose record of their config is not to be believed."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.helpers.paths import FIXTURES
from tests.helpers.tiny_training import small_images, tiny_network
from tests.helpers.trained_networks import trained_looking
from uniface_jax import Embedder, models
from uniface_jax import config as configs
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.features import SUM, ComputedFeatures
from uniface_jax.inference import fused
from uniface_jax.inference import network as networks
from uniface_jax.inference.load import load_model
from uniface_jax.inference.network import load_network, make_embed
from uniface_jax.native import build
from uniface_jax.train.validation import Evaluator


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A workdir from before checkpoints had digests: whatever its JSON says can be read."""
    folder = tmp_path_factory.mktemp("left") / "run"
    shutil.copytree(FIXTURES / "ec4f2e5" / "run", folder)
    return folder, json.loads((folder / "checkpoints" / "3" / "run" / "metadata").read_text())


def changed(config, path, value):
    """The text of a config with another value at a dotted path."""
    values = json.loads(config)
    inner, *keys = values, *path.split(".")
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model", 3, "no config of a run"),
        ("model.width", "x", "no config of a run"),
        ("model.width", -4, r"config.model.width=-4: must be > 0"),
        ("model.width", 6, "its arrays are not those of its config's network"),
        ("model.embedding_size", 2**40, "its arrays are not those of its config's network"),
        ("model.stage_sizes", [1, "x", 1, 1], "no config of a run"),
        ("model.stage_sizes", [1, 1, 1, 10**6], "."),
        ("model.name", "nothing", "model.name"),
        ("imports", {"os": 1}, "no list of modules|no config"),
        ("imports", ["os.system('x')"], "no module's name"),
        ("data.augment", [], "no config of a run"),
        ("", [1], "no object of config keys"),
        ("", None, "no JSON|not JSON|no object|no config"),
        ("", "deep", "nested too deeply"),
    ],
)
def test_a_config_of_another_form_is_one_line(path, value, words, left):
    workdir, run = left
    file = workdir / "checkpoints" / "3" / "run" / "metadata"
    text = "[" * 200 + "]" * 200 if value == "deep" else json.dumps(value)
    text = changed(run["config"], path, value) if path else text
    file.write_text(json.dumps({**run, "config": text}))
    with pytest.raises(UserError, match=words) as error:
        load_network(workdir)
    assert "\n" not in str(error.value)
    assert str(workdir) in str(error.value)


@pytest.mark.parametrize(
    "run", [[], {}, {"config": 3, "data": {}}, {"config": "{}", "data": []}, "x", None]
)
def test_run_metadata_of_another_form_is_one_line(run, left):
    workdir, _ = left
    (workdir / "checkpoints" / "3" / "run" / "metadata").write_text(json.dumps(run))
    with pytest.raises(UserError, match="checkpoints/3"):
        load_network(workdir)


@pytest.mark.skipif(not build.available(), reason="no compiler for the kernels")
def test_kernels_compute_features_and_no_export_holds_one(monkeypatch):
    """One device computes by them what lax does; several do not; a trace outside has none."""
    network = tiny_network(width=16).clone(zero_last_scale=False)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    calls, forward = [], fused.forward

    def counted(x, kernel, *given):
        calls.append(kernel.shape)
        return forward(x, kernel, *given)

    monkeypatch.setattr(fused, "forward", counted)
    with small_images(32):
        variables = network.init(jax.random.key(0), images / 255.0, train=False)
        plain = partial(models.features, network, variables)
        expected = jax.jit(plain)(models.normalize(images))
        make_embed(network, mirror=False)(variables, images)
        assert (calls == []) == (len(jax.local_devices()) > 1)
        monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
        found = make_embed(network, mirror=False)(variables, images)
        assert (3, 3, 16, 16) in calls
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert "ffi_call" not in str(jax.make_jaxpr(plain)(models.normalize(images)))


def calls_of(monkeypatch):
    """The names of the custom calls of what is traced from now on."""
    names, ffi_call = [], jax.ffi.ffi_call

    def noted(name, *given, **options):
        names.append(name)
        return ffi_call(name, *given, **options)

    monkeypatch.setattr(jax.ffi, "ffi_call", noted)
    return names


def by_embedder(workdir, images, pairs):
    return Embedder(workdir).embed([*images])


def by_evaluate(workdir, images, pairs):
    return ComputedFeatures(load_model(workdir), pairs.parent, 2, {}).embed(SUM, images)


def by_validation(workdir, images, pairs):
    net, variables, _ = networks.load_network(workdir)
    config = configs.base()
    config.eval.data, config.data.train, config.eval.batch_size = str(pairs), "", 2
    return Evaluator(SimpleNamespace(config=config, network=net))(variables)


@pytest.mark.skipif(not build.available(), reason="no compiler for the kernels")
@pytest.mark.parametrize("run", [by_embedder, by_evaluate, by_validation])
def test_who_embeds_calls_the_kernels(run, tmp_path, monkeypatch):
    """Hold Embedder, evaluate and validation to a kernel for each convolution, on one device."""
    net = tiny_network(width=16)
    variables = trained_looking(net)
    workdir = FIXTURES / "ec4f2e5" / "run"
    facts = {"step": 3, "digest": "0", "workdir": workdir, "run": {}}
    loaded = (net, variables, facts)
    monkeypatch.setattr(networks, "load_network", lambda path: loaded)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    pairs = tmp_path / "pairs.bin"
    write_pairs(pairs, [*map(encode_png, images)], [0] * 10, [0, 1] * 5, [True, False] * 5)
    calls = calls_of(monkeypatch)
    run(workdir, images, pairs)
    convolutions = [leaf for leaf in jax.tree.leaves(variables) if leaf.ndim == 4]
    assert calls == ["uniface_fused_convolution"] * len(convolutions)
