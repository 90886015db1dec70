"""Whole runs by AdamW with sampled classes and a mean of the weights: resumed bitwise, loaded."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open

from tests.helpers import demo_run
from tests.helpers.paths import FIXTURES
from uniface_jax.checkpoints import reading
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.errors import UserError
from uniface_jax.inference.load import load_mean, load_model
from uniface_jax.inference.network import load_network
from uniface_jax.state import Average

ADAMW = {
    "optim.name": "adamw", "optim.lr": 0.001, "optim.ema": 0.8, "head.sampling_rate": 0.4,
    "steps": 6, "checkpoint.every_steps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run_cli):
    """(workdir, flags) of a run by AdamW with sampled classes and a mean of the weights."""
    folder = tmp_path_factory.mktemp("adamw")
    train_, pairs = demo_run.make_data(folder / "data")
    flags = demo_run.flags(train_, **ADAMW, **{"eval.data": pairs, "eval.every_steps": 6})
    done = run_cli("train", f"--workdir={folder / 'run'}", *flags)
    assert done.returncode == 0, done.stderr
    return folder / "run", flags


@pytest.mark.slow
def test_resumed_bitwise(whole, tmp_path, run_cli):
    workdir, flags = whole
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / "6")
    (again / "scores.json").unlink(missing_ok=True)
    assert run_cli("train", f"--workdir={again}", *flags).returncode == 0
    found, expected = reading.read(again)[0], reading.read(workdir)[0]
    assert int(found.average.updates) == int(found.updates.network) == int(found.step) == 6
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_the_mean_of_the_weights_is_evaluated_and_loaded(whole):
    workdir, _ = whole
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any({"eval/auc", "eval/ema/auc"} <= line.keys() for line in lines)
    state, _ = reading.read(workdir)
    _, raw, about = load_network(workdir)
    _, mean, about_mean = load_network(workdir, weights="ema")
    jax.tree.map(np.testing.assert_array_equal, raw["params"], state.weights.network)
    jax.tree.map(np.testing.assert_array_equal, mean["params"], state.average.network)
    jax.tree.map(np.testing.assert_array_equal, mean["batch_stats"], state.average.batch_stats)
    assert about["digest"] != about_mean["digest"]
    assert "at step 6 (ema)" in load_mean(workdir).description


@pytest.mark.slow
def test_the_mean_of_the_weights_is_exported(whole, tmp_path, run_cli):
    workdir, _ = whole
    output = tmp_path / "mean.safetensors"
    arguments = (f"--workdir={workdir}", "--format=safetensors", f"--output={output}")
    done = run_cli("export", *arguments, "--weights=ema")
    assert done.returncode == 0, done.stderr
    with safe_open(output, "np") as file:
        assert file.metadata()["uniface_jax.weights"] == "ema"
        kernel = file.get_tensor("conv1.weight").transpose(2, 3, 1, 0)
    state, _ = reading.read(workdir)
    np.testing.assert_array_equal(kernel, state.average.network["conv1"]["kernel"])
    assert np.any(kernel != state.weights.network["conv1"]["kernel"])


@pytest.mark.slow
def test_weights_that_there_are_not_are_refused(whole, tmp_path, run_cli):
    workdir, flags = whole
    other = [f"--config.optim.{key}" for key in ("name=lamb", "ema=0.5")]
    for flag in other:
        refused = run_cli("train", f"--workdir={workdir}", "--extend", *flags, flag)
        assert refused.returncode == 2
        assert "belongs to a run with config.optim" in refused.stderr
        assert "or --extend" not in refused.stderr
    (tmp_path / "some.onnx").touch()
    with pytest.raises(UserError, match=r"weights=ema: .*some.onnx is no workdir"):
        load_mean(tmp_path / "some.onnx")


@pytest.mark.parametrize(
    "choice", [{"input_scale": "raw"}, {"channel_order": "bgr"}, {"output_name": "features"}]
)
def test_choices_of_onnx_files_are_refused_with_the_mean_too(choice, tmp_path):
    for load in (load_model, load_mean):
        with pytest.raises(UserError, match=r"is a workdir; only ONNX files take one"):
            load(tmp_path, **choice)


def test_a_run_without_a_mean_has_none_to_load(tmp_path):
    shutil.copytree(FIXTURES / "ec4f2e5" / "run", tmp_path / "run")
    with pytest.raises(UserError, match=r"--weights=ema: the run has kept no mean"):
        load_network(tmp_path / "run", weights="ema")


def test_a_mean_of_nothing_is_refused(tmp_path):
    state, run = reading.read(FIXTURES / "ec4f2e5" / "run")
    zeros = jax.tree.map(np.zeros_like, (state.weights.network, state.batch_stats))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state._replace(average=Average(np.zeros((), np.int32), *zeros)), run)
    assert checkpoints.wait()
    checkpoints.close()
    with pytest.raises(UserError, match=r"--weights=ema: all steps were skipped"):
        load_network(tmp_path, weights="ema")
