"""What commit ec4f2e5 left on disk, before the house, still opens; tests/fixtures/ec4f2e5."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.helpers.paths import FIXTURES, ROOT
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.config import from_json
from uniface_jax.data.sources.opening import open_source
from uniface_jax.runtime.parallel import create_runner
from uniface_jax.state import class_sharded
from uniface_jax.train.from_config import make_recipe

COMMIT = "ec4f2e5"


def copied(folder):
    """Return a new folder that a command may change: the fixture, and the verification set."""
    shutil.copytree(FIXTURES / COMMIT, folder)
    shutil.copy(FIXTURES / "bins" / "py3.bin", folder / "pairs.bin")
    return folder


@pytest.fixture
def left(tmp_path):
    """A copy of one test."""
    return copied(tmp_path / "left")


def run(folder, module, *arguments, package=ROOT, kernels="1"):
    """Runs a command of the package in `package`, in `folder`, with or without native kernels."""
    done = subprocess.run(
        [sys.executable, "-m", f"uniface_jax.{module}", *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "XLA_FLAGS": "",
            "PYTHONPATH": str(package),
            "UNIFACE_NATIVE": kernels,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def state_of(workdir):
    """{path of the leaf: array} of a workdir's newest checkpoint, whose step is given as well."""
    config = from_json((workdir / "config.json").read_text())
    abstract = make_recipe(config, 40, 8).shapes
    runner = create_runner("auto", class_sharded(abstract), jax.devices()[:1])
    checkpoints = Checkpoints(workdir)
    state, _ = checkpoints.restore_newest(runner.template(abstract), abstract)
    checkpoints.close()
    state = runner.logical(runner.from_global(state))
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def resumed(folder, package, kernels):
    """Lets the workdir's run go on to its end: metrics of the steps after the third, and state."""
    config = json.loads((folder / "run" / "config.json").read_text())
    recipe = folder / "recipe.py"
    recipe.write_text(RECIPE)
    (folder / "recipe.json").write_text(json.dumps(config))
    run(folder, "train", f"--config={recipe}", "--workdir=run", package=package, kernels=kernels)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][4:], state_of(folder / "run")


# Keys that the commit did not have yet are those of base().
RECIPE = """
import json
from uniface_jax.config import base

def get_config():
    config = base()
    config.update(json.load(open("recipe.json")))
    return config
"""


@pytest.fixture(scope="module")
def resumed_here(tmp_path_factory):
    """Metrics and state of this package's run with or without kernels, which is made once."""

    @functools.cache
    def resumed_here(kernels):
        return resumed(copied(tmp_path_factory.mktemp("here") / "left"), ROOT, kernels)

    return resumed_here


# Kernels have other sums than the commit, and a value may lie on the other side of PReLU's zero.
@pytest.mark.slow
@pytest.mark.parametrize(("kernels", "by"), [("0", 1e-6), ("1", 1e-4)])
def test_a_run_resumes(resumed_here, kernels, by):
    metrics, state = resumed_here(kernels)
    lines = (FIXTURES / COMMIT / "after.jsonl").read_text().splitlines()
    before = [json.loads(line) for line in lines]
    measured = ("images_per_second", "input_share", "elapsed_seconds")
    for found, expected in zip(metrics, before, strict=True):
        assert found.keys() == expected.keys()
        for key in expected.keys() - set(measured):
            assert found[key] == pytest.approx(expected[key], rel=1e-4), key
    with np.load(FIXTURES / COMMIT / "state6.npz") as expected:
        assert state.keys() == set(expected.files)
        for key, value in state.items():
            scale = max(1.0, float(np.abs(expected[key]).max(initial=0)))
            np.testing.assert_allclose(value, expected[key], atol=by * scale, err_msg=key)


@pytest.mark.slow
def test_a_run_resumes_bitwise_beside_the_commit(resumed_here, tmp_path):
    """On one machine, by XLA alone, the commit and this package end in the same bits."""
    archive = tmp_path / "commit.tar"
    made = subprocess.run(
        ["git", "archive", COMMIT, f"--output={archive}", "uniface_jax", "configs"], cwd=ROOT
    )
    if made.returncode:
        pytest.skip(f"{COMMIT} is not in this clone's history")
    package = tmp_path / "package"
    with tarfile.open(archive) as tar:
        tar.extractall(package, filter="data")
    _, expected = resumed(copied(tmp_path / "beside"), package, kernels="0")
    _, state = resumed_here("0")
    assert state.keys() == expected.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_a_data_set_opens(left):
    source = open_source(left / "faces")
    assert (len(source), source.num_classes, list(source.notes)) == (40, 8, [])
    original = open_source(FIXTURES / "insightface")
    items = [source[index] for index in range(40)]
    assert sorted(items) == sorted(original[index] for index in range(40))


def test_an_export_and_its_features_are_taken_up(left, run_cli):
    """The same metrics, by the features that lie there: none is computed again."""
    features = next((left / "results" / "embeddings").glob("*.npy"))
    written = features.stat().st_mtime_ns
    arguments = ("--model=model.onnx", "--data=pairs.bin", "--output=results")
    done = run_cli("evaluate", *arguments, cwd=left)
    assert done.returncode == 0, done.stderr
    assert features.stat().st_mtime_ns == written
    found, expected = (
        json.loads((folder / "results" / "metrics.json").read_text())
        for folder in (left, FIXTURES / COMMIT)
    )
    name = next(key for key in expected if "verification" in json.dumps(expected[key]))
    assert_holds(found[name], expected[name])


def assert_holds(found, expected):
    """Assert that all that was in a metrics.json is in it still, under keys that say what it is."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_holds(found["squared_distance" if key not in found else key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_holds(one, other)
    else:
        assert found == expected


def test_a_workdir_is_exported(left, run_cli):
    shutil.rmtree(left / "results")
    done = run_cli("export", "--workdir=run", "--output=again.onnx", cwd=left)
    assert done.returncode == 0, done.stderr
    assert Path(left / "again.onnx").stat().st_size > 10_000
