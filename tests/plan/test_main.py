"""python -m uniface_jax.plan, as a user runs it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.accelerators import for_gpu
from tests.helpers.paths import ROOT


@pytest.mark.slow  # compiles the whole step; tests/plan/test_memory.py compares smaller ones
def test_the_demo(run_cli, tmp_path):
    path = tmp_path / "plan.json"
    done = run_cli(
        "plan", "--config=demo", "--devices=2", "--device_memory=8",
        "--classes=1000", "--images=6400", "--verify", f"--json={path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(path.read_text())
    assert plan["fits"]
    data = {"images": 6400, "classes": 1000, "source": "as given", "epoch": None}
    assert plan["data"] == data
    compiled = plan["compiled"]
    assert compiled["predicted"] == pytest.approx(compiled["total"], rel=0.1)
    assert plan["largest"]["batch"] > plan["batch_size"] == 64
    assert done.stdout.startswith("demo: 2 devices, batch 64 in 1 micro-batches, 6,400 images of ")
    assert "of 7.2: fits" in done.stdout
    assert "400 steps" in done.stdout


def test_the_machine_at_hand(run_cli, tmp_path):
    """The same numbers as training would have, and a flag that is given counts more."""
    path = tmp_path / "plan.json"
    done = run_cli(
        "plan", "--config=demo", "--here", "--device_memory=0.1", "--classes=30", "--images=300",
        "--config.model.width=4", f"--json={path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "as this machine would run it" in done.stderr
    plan = json.loads(path.read_text())
    assert (plan["devices"], plan["allowed"]) == (1, pytest.approx(0.09e9))
    assert plan["compiled"]["predicted"] == pytest.approx(plan["compiled"]["total"], rel=0.05)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--config=nowhere.py"], "nowhere.py"),
        (["--devices=0"], "devices"),
        (["--classes=5"], "give both or neither"),
        (["--config.batch_sise=3"], "config.batch_sise"),
        (["--target=v5e:4x4", "--devices=8"], "--devices=8: v5e:4x4 has 16; leave --devices out"),
        (["--target=h100", "--here"], "--target=h100: give it or --here"),
        (["--devices=3"], "batch_size=64: must be divisible by 3 devices"),
    ],
)
def test_bad_flags(run_cli, flags, named):
    done = run_cli("plan", *flags)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert named in done.stderr


@for_gpu
def test_a_target_from_end_to_end(run_cli, tmp_path):
    """Plan the demo by an accelerator's compiler, as the page of the guide does a larger one."""
    path = tmp_path / "plan.json"
    done = run_cli(
        "plan", "--config=demo", "--target=h100", "--classes=1000", "--images=6400",
        f"--json={path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "arithmetic alone" not in done.stdout
    plan = json.loads(path.read_text())
    assert (plan["devices"], plan["on_target"]["devices"]) == (8, 8)
    assert len(plan["on_target"]["collectives"]) >= 3
    assert "the compiler says" in done.stdout
    (total,) = [line for line in done.stdout.splitlines() if line.startswith("all  ")]
    assert float(total.split()[-1]) > 0
    assert "hidden" in done.stdout
    compiled = plan["compiled"]
    assert compiled["predicted"] == pytest.approx(compiled["total"], rel=0.1)


@pytest.mark.parametrize("verify", ["", pytest.param("--verify", marks=pytest.mark.slow)])
def test_an_interrupted_plan_ends_at_once_in_one_line(verify):
    """While Python imports and traces, and while XLA compiles, which no signal of Python ends."""
    command = [sys.executable, "-m", "uniface_jax.plan", "--config=demo", "--images=300"]
    plan = subprocess.Popen(
        [*command, "--classes=30", "--devices=2", *filter(None, [verify])],
        cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said = ""
    for line in plan.stderr if verify else plan.stdout:
        said += line
        if not verify or "compil" in line:
            break
    plan.send_signal(signal.SIGINT)
    _, error = plan.communicate(timeout=60)
    assert plan.returncode == 130, said + error
    assert error.endswith("interrupted\n"), error
    assert "Traceback" not in error
