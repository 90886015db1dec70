"""Each command as a newcomer first types it: alone, in an empty folder."""

import pytest

from tests.helpers.paths import ROOT

COMMANDS = {
    "align": "SOURCE DEST",
    "convert": "SOURCE DEST",
    "hold_out": "SOURCE DEST",
    "make_pairs": "SOURCE DEST",
    "unpack": "SOURCE DEST",
    "show": "DATASET",
    "clean": "DATASET",
    "demo_data": "DEST",
    "import_weights": "SOURCE WORKDIR",
    "evaluate": "--model=MODEL --data=FILES",
    "export": "--workdir=WORKDIR",
    "embed": "SOURCE",
    "gallery": "build|search|add|remove|merge|index",
    "serve": "--model=MODEL",
    "studio": "--model=MODEL",
    "inspection": "--workdir=WORKDIR",
}
WITH_A_DEFAULT = {"train", "plan"}  # the recipe demo


def test_every_command_is_tested():
    doors = {path.parent.name for path in ROOT.glob("uniface_jax/*/__main__.py")}
    doors |= {
        path.stem
        for path in ROOT.glob("uniface_jax/*.py")
        if path.stem != "__init__" and "cli.run(" in path.read_text()
    }
    assert doors == COMMANDS.keys() | WITH_A_DEFAULT


@pytest.mark.parametrize("command", COMMANDS)
def test_says_how_it_is_used(command, run_cli, tmp_path):
    done = run_cli(command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"usage: python -m uniface_jax.{command} {COMMANDS[command]}" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plan_plans_the_demo(run_cli, tmp_path):
    done = run_cli("plan", "--devices=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo: 1 devices, batch 64 in 1 micro-batches, 300 images of 30 ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_train_trains_the_demo_to_its_end(run_cli, tmp_path):
    done = run_cli("train", cwd=tmp_path, timeout=900, env={"XLA_FLAGS": ""})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("recipe demo; writes to runs/demo; --config=NAME trains another: ")
    assert "casia" in lines[0]
    assert lines[1] == "runs/faces: preparing the demo's faces"
    assert "300 images of 30 classes" in done.stdout
    assert lines[-1].startswith("done in ")
    assert (tmp_path / "runs" / "demo" / "checkpoints" / "400").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.slow
def test_train_begins_the_demo_alone(run_cli, tmp_path):
    """Do as the slow test does, for two steps."""
    done = run_cli("train", "--config.steps=2", "--config.eval.data=", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("recipe demo; writes to runs/demo; --config=NAME trains another")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["demo", "faces"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "synthetic:2:4"], "--output is missing: expected a name that ends in .png"),
        (["evaluate", "--embeddings=x.npy", "--data=y.bin"], "--output is missing"),
    ],
)
def test_nothing_is_written_into_the_folder_unasked(arguments, words, run_cli, tmp_path):
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
