"""The scripts that collect benchmarks and that count FLOPs do it right."""

import json
import subprocess
import sys

import bench_all
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import roofline

from tests.helpers.paths import ROOT
from uniface_jax import models

GOOD = """import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--json")
path = parser.parse_args().json
print("two times as fast")
open(path, "w").write(json.dumps({"ratio": 2}))
"""
BAD = GOOD.replace("print(", "raise SystemExit('error: no such shape') or print(")


def test_one_benchmark_may_fail(tmp_path, monkeypatch, capsys):
    for name, text in {"bench_good": GOOD, "bench_bad": BAD, "bench_part": "pass"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    page, numbers = tmp_path / "docs" / "page.md", tmp_path / "all.json"
    monkeypatch.setattr(bench_all, "SCRIPTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", f"--output={page}", f"--json={numbers}"])
    with pytest.raises(SystemExit) as stopped:
        bench_all.main()
    assert stopped.value.code == 1
    text = page.read_text()
    assert "two times as fast" in text
    assert "Failed with status 1: error: no such shape" in text
    assert json.loads(numbers.read_text()) == {"good": {"ratio": 2}, "bad": None}
    # A second run of one alone keeps what the page says of the other.
    (tmp_path / "bench_good.py").write_text(GOOD.replace("two", "three").replace(": 2", ": 3"))
    only = ["x", f"--output={page}", "--only=good", f"--json={numbers}"]
    monkeypatch.setattr(sys, "argv", only)
    with pytest.raises(SystemExit):
        bench_all.main()
    assert json.loads(numbers.read_text()) == {"good": {"ratio": 3}, "bad": None}
    assert "three times" in page.read_text()
    assert "two times" not in page.read_text()
    assert "no such shape" in page.read_text()


def test_all_benchmarks_are_found():
    assert {"conv", "train", "head"} <= set(bench_all.benchmarks())


@pytest.mark.parametrize("name", ["lresnet50", "iresnet18"])
def test_flops_of_the_roofline_are_the_networks(name):
    network = models.create(name)
    images = jax.ShapeDtypeStruct((2, 112, 112, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    jaxpr = jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False))(variables, images)

    def count(jaxpr) -> int:
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
                total += 2 * int(np.prod(out)) * int(np.prod(kernel[:3]))
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                total += count(inner)
        return total

    parts = roofline.step_parts(name, 2, 100)
    assert parts["convolutions"].flops == 3 * count(jaxpr.jaxpr)


def test_roofline_prints_both_devices(tmp_path):
    command = [sys.executable, "scripts/roofline.py", f"--json={tmp_path / 'r.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    for device in ("H100 SXM", "TPU v5e"):
        assert device in done.stdout
        assert 0 < report[device]["share_of_peak"] < 1
